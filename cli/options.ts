import { InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { formatHostPort, parseHostPort } from "./parse/host_port.ts";
import { repeatable } from "./settings.ts";

/** An option whose text a parser checks; the parser's error message follows the flag's name. */
export function parsed<const Flags extends string, T>(
  flags: Flags,
  description: string,
  parse: (text: string) => T,
) {
  return new Option(flags, description).argParser((text: string) => invalidArgument(() => parse(text)));
}

/** An option that may be given several times and collects what its parser returns. */
export function collected<const Flags extends string, T>(
  flags: Flags,
  description: string,
  parse: (text: string) => T,
) {
  return repeatable(
    new Option(flags, `${description} (repeatable)`).argParser((text: string, previous: T[] | undefined) =>
      invalidArgument(() => [...(previous ?? []), parse(text)])
    ),
  );
}

/** The same for a parser that adds to what it has read before. */
export function accumulated<const Flags extends string, T>(
  flags: Flags,
  description: string,
  parse: (text: string, previous: T | undefined) => T,
) {
  return repeatable(
    new Option(flags, description).argParser((text: string, previous: T | undefined) =>
      invalidArgument(() => parse(text, previous))
    ),
  );
}

/** `--config FILE`, of every command. */
export function configOption() {
  return new Option("--config <file>", "TOML file with any of these flags as keys");
}

/** `--json`, of everything that prints. */
export function jsonOption() {
  return new Option("--json", "print JSON");
}

/** Where a client finds the agent and how it proves that it may. */
export interface ClientOptions {
  grpcBindAddr: string;
  api?: string;
  apiCa?: string;
  token?: string;
  dataDir: string;
}

/** Default address of the agent's API. */
export const DEFAULT_API = "127.0.0.1:8000";
/** Default data directory of the agent. */
export const DEFAULT_DATA_DIR = "/var/lib/hypercore";

/** `--grpc-bind-addr`, as the original names it for clients too. */
export function grpcBindAddrOption() {
  return parsed(
    "--grpc-bind-addr <host:port>",
    "address of the agent's API",
    (text) => formatHostPort(parseHostPort(text)),
  )
    .default(DEFAULT_API);
}

/** `--api`, the same with a URL. */
export function apiOption() {
  return new Option("--api <url>", "the agent's API as host:port or URL (https for TLS)");
}

/** `--api-ca`. */
export function apiCaOption() {
  return new Option("--api-ca <file>", "PEM file with the authority of the agent's certificate");
}

/** `--token`. */
export function tokenOption() {
  return new Option("--token <token>", "the agent's API token");
}

/** `--data-dir`. */
export function dataDirOption() {
  return new Option("--data-dir <dir>", "data directory of the agent; its token is there").default(
    DEFAULT_DATA_DIR,
  );
}

function invalidArgument<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}
