import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { UsageError } from "./exit.ts";
import type { Io } from "./io.ts";

/** Name of a flag's environment variable: `--grpc-bind-addr` is `HYPERCORE_GRPC_BIND_ADDR`. */
export function envName(flag: string): string {
  return `HYPERCORE_${flag.toUpperCase().replaceAll("-", "_")}`;
}

/**
 * Gives each flag of `command` that is not on the command line its value from the environment or, after that, from
 * the TOML file named by `--config`. A key of the file may belong to any command of the program; one that belongs to
 * none is an error. Throws {@linkcode UsageError}.
 */
export async function applySettings(command: CommandUnknownOpts, io: Io): Promise<void> {
  const path = command.opts().config as string | undefined ?? io.env(envName("config"));
  const file = path === undefined ? {} : await readConfigFile(path, command, io);
  for (const option of command.options) {
    const flag = option.name();
    if (!isSetting(option) || command.getOptionValueSource(option.attributeName()) === "cli") continue;
    const fromEnv = io.env(envName(flag));
    if (fromEnv !== undefined && fromEnv !== "") {
      const texts = option.variadic || isRepeatable(option) ? splitList(flag, fromEnv) : [fromEnv];
      setValue(command, option, texts, envName(flag), "env");
    } else if (flag in file) {
      setValue(command, option, textsOf(file[flag], `${path}: ${flag}`), `${path}: ${flag}`, "config");
    }
  }
}

/** Marks an option that may be given several times. */
export function repeatable<T extends Option>(option: T): T {
  Object.assign(option, { [REPEATABLE]: true });
  return option;
}

/** Whether {@linkcode repeatable} marked it. */
export function isRepeatable(option: Option): boolean {
  return REPEATABLE in option;
}

const REPEATABLE = Symbol("repeatable");

/** Flags that stand only on the command line. */
function isSetting(option: Option): boolean {
  return !["config", "help", "version"].includes(option.name()) && !option.negate;
}

/** Lists in a variable are separated by commas; environment entries, which may hold commas, by line ends. */
function splitList(flag: string, text: string): string[] {
  return text.split(flag === "env" ? "\n" : ",").map((item) => item.trim()).filter((item) => item !== "");
}

function setValue(
  command: CommandUnknownOpts,
  option: Option,
  texts: string[],
  where: string,
  source: string,
): void {
  let value: unknown;
  if (option.isBoolean()) {
    value = parseBoolean(texts, where);
  } else {
    if (texts.length !== 1 && !isRepeatable(option)) throw new UsageError(`${where}: takes one value`);
    for (const text of texts) {
      try {
        value = option.parseArg === undefined ? text : option.parseArg(text, value as never);
      } catch (error) {
        throw new UsageError(`${where}: ${(error as Error).message}`, { cause: error });
      }
    }
  }
  command.setOptionValueWithSource(option.attributeName(), value, source);
}

function parseBoolean(texts: string[], where: string): boolean {
  const text = texts.length === 1 ? texts[0].toLowerCase() : "";
  if (["true", "1", "yes", "on"].includes(text)) return true;
  if (["false", "0", "no", "off"].includes(text)) return false;
  throw new UsageError(`${where}: "${texts.join(",")}" is neither true nor false`);
}

async function readConfigFile(
  path: string,
  command: CommandUnknownOpts,
  io: Io,
): Promise<Record<string, unknown>> {
  const { parse } = await import("smol-toml");
  let file: Record<string, unknown>;
  try {
    file = parse(io.readTextFile(path));
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new UsageError(`Cannot read the configuration "${path}": ${reason}`, { cause: error });
  }
  const known = settingNames(rootOf(command));
  for (const key of Object.keys(file)) {
    if (!known.has(key)) throw new UsageError(`${path}: unknown key "${key}"`);
  }
  return file;
}

function textsOf(value: unknown, where: string): string[] {
  const items = Array.isArray(value) ? value : [value];
  return items.map((item) => {
    if (!["string", "number", "boolean", "bigint"].includes(typeof item)) {
      throw new UsageError(`${where}: takes a string, a number, true, false, or a list of them`);
    }
    return String(item);
  });
}

function rootOf(command: CommandUnknownOpts): CommandUnknownOpts {
  return command.parent === null ? command : rootOf(command.parent);
}

function settingNames(command: CommandUnknownOpts, into = new Set<string>()): Set<string> {
  for (const option of command.options) if (isSetting(option)) into.add(option.name());
  for (const child of command.commands) settingNames(child, into);
  return into;
}
