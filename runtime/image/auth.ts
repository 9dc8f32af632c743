import { Buffer } from "node:buffer";
import { RuntimeError } from "../errors.ts";
import { boundedText } from "./body.ts";

/** Time a credential helper may take, in milliseconds. */
const HELPER_TIMEOUT_MS = 10_000;
const MAX_HELPER_ANSWER_BYTES = 64 << 10;
const MAX_CONFIG_FILE_BYTES = 1 << 20;

/** What a registry is told; an identity token is exchanged for access tokens. */
export type Credentials =
  | { kind: "basic"; username: string; password: string }
  | { kind: "identity-token"; token: string };

/** Credentials by registry host; `undefined` means anonymous. */
export type CredentialStore = (registry: string, signal?: AbortSignal) => Promise<Credentials | undefined>;

/** A parsed `WWW-Authenticate` challenge (RFC 9110 §11.6.1). */
export interface Challenge {
  scheme: "basic" | "bearer";
  parameters: Record<string, string>;
}

/** The challenges of a header value that can be answered, bearer first. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  // scheme, then a comma-separated list of name=value; a new scheme is a word that no "=" follows.
  const token = /([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/g;
  let current: Challenge | undefined;
  for (const match of header.matchAll(token)) {
    const [, word, quoted, plain] = match;
    const value = quoted?.replace(/\\(.)/g, "$1") ?? plain;
    if (value !== undefined) {
      if (current) current.parameters[word.toLowerCase()] = value;
      continue;
    }
    const scheme = word.toLowerCase();
    current = scheme === "basic" || scheme === "bearer" ? { scheme, parameters: {} } : undefined;
    if (current) challenges.push(current);
  }
  return challenges.sort((a, b) => (a.scheme === "bearer" ? 0 : 1) - (b.scheme === "bearer" ? 0 : 1));
}

/** The value of an `Authorization: Basic` header. */
export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}

/**
 * Credentials from docker's `config.json`: `credHelpers`, then `credsStore`, then `auths`. The file is read anew at each
 * pull, so that a `docker login` counts at once; a missing file means anonymous. Secrets go into no message.
 */
export function dockerConfigCredentials(configFile: string): CredentialStore {
  return async (registry, signal) => {
    const config = await readConfig(configFile);
    if (config === undefined) return undefined;
    const keys = registry === "docker.io"
      ? ["https://index.docker.io/v1/", "index.docker.io", "docker.io"]
      : [registry, `https://${registry}`, `http://${registry}`];
    const own = keys.find((key) => config.credHelpers?.[key] !== undefined);
    const helper = own === undefined ? config.credsStore : config.credHelpers![own];
    if (helper) {
      const found = await askHelper(helper, { server: own ?? keys[0], signal });
      if (found) return found;
    }
    for (const key of keys) {
      const entry = config.auths?.[key] ?? config.auths?.[`${key}/`];
      const credentials = entry && fromEntry(entry, registry, configFile);
      if (credentials) return credentials;
    }
    return undefined;
  };
}

type AuthEntry = Readonly<Record<string, string>>;

interface DockerConfig {
  /** Fields `auth`, `username`, `password`, `identitytoken`. */
  auths?: Readonly<Record<string, AuthEntry>>;
  credHelpers?: Readonly<Record<string, string>>;
  credsStore?: string;
}

async function readConfig(file: string): Promise<DockerConfig | undefined> {
  const refuse = (reason: string): never => {
    throw new RuntimeError("precondition", `Cannot read registry credentials "${file}": ${reason}`);
  };
  let text: string;
  try {
    const { size } = await Deno.stat(file);
    if (size > MAX_CONFIG_FILE_BYTES) return refuse(`it is larger than ${MAX_CONFIG_FILE_BYTES} bytes`);
    text = await Deno.readTextFile(file);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory) return undefined;
    if (cause instanceof RuntimeError) throw cause;
    throw new RuntimeError(
      "precondition",
      `Cannot read registry credentials "${file}": ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // A parser's message would quote the file, and so a secret.
    return refuse("it is not JSON");
  }
  if (!isObject(value)) return refuse("it is not a JSON object");
  const { auths = {}, credHelpers = {}, credsStore } = value;
  if (!isObject(auths) || !Object.values(auths).every(isStringRecord)) {
    return refuse("auths is not as docker writes it");
  }
  if (!isStringRecord(credHelpers)) return refuse("credHelpers is not as docker writes it");
  if (credsStore !== undefined && typeof credsStore !== "string") return refuse("credsStore is not a string");
  return { auths: auths as Record<string, AuthEntry>, credHelpers, credsStore };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStringRecord(value: unknown): value is Record<string, string> {
  return isObject(value) && Object.values(value).every((item) => typeof item === "string");
}

function fromEntry(
  entry: AuthEntry,
  registry: string,
  file: string,
): Credentials | undefined {
  if (entry.identitytoken) return { kind: "identity-token", token: entry.identitytoken };
  if (entry.username) return { kind: "basic", username: entry.username, password: entry.password ?? "" };
  if (!entry.auth) return undefined;
  const decoded = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = decoded.indexOf(":");
  if (colon < 1) {
    throw new RuntimeError(
      "precondition",
      `Cannot use the credentials for "${registry}" in "${file}": auth is not base64 of user:password`,
    );
  }
  return { kind: "basic", username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

/** Runs `docker-credential-<helper> get` (docker/docker-credential-helpers protocol). */
async function askHelper(
  helper: string,
  options: { server: string; signal?: AbortSignal },
): Promise<Credentials | undefined> {
  const { server, signal } = options;
  const refuse = (reason: string, cause?: unknown): never => {
    throw new RuntimeError("precondition", `Cannot ask credential helper "${helper}": ${reason}`, { cause });
  };
  if (!/^[A-Za-z0-9_-]+$/.test(helper)) return refuse("its name holds more than letters, digits, _ and -");
  const program = `docker-credential-${helper}`;
  const deadline = AbortSignal.timeout(HELPER_TIMEOUT_MS);
  const ending = signal ? AbortSignal.any([signal, deadline]) : deadline;
  try {
    const child = new Deno.Command(program, {
      args: ["get"],
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
      signal: ending,
    }).spawn();
    const writer = child.stdin.getWriter();
    // A helper may end without reading its input; what it printed still counts.
    await writer.write(new TextEncoder().encode(server)).then(() => writer.close()).catch(() => undefined);
    // Children of a helper that was killed may hold its output open for ever.
    const output = child.stdout.pipeThrough(new TransformStream(), { signal: ending });
    const [text, { code }] = await Promise.all([
      boundedText(new Response(output), MAX_HELPER_ANSWER_BYTES).catch((error) => {
        if (ending.aborted) return "";
        throw error;
      }),
      child.status,
    ]);
    if (signal?.aborted) {
      throw new RuntimeError("canceled", `Cannot ask credential helper "${helper}": canceled`);
    }
    if (deadline.aborted) return refuse(`no answer within ${HELPER_TIMEOUT_MS} ms`);
    if (code !== 0) {
      return /credentials not found/i.test(text) ? undefined : refuse(`exit code ${code}`);
    }
    const { Username, Secret } = JSON.parse(text) as { Username?: unknown; Secret?: unknown };
    if (typeof Username !== "string" || typeof Secret !== "string") {
      return refuse("its answer has no Username and Secret");
    }
    return Username === "<token>"
      ? { kind: "identity-token", token: Secret }
      : { kind: "basic", username: Username, password: Secret };
  } catch (cause) {
    if (cause instanceof RuntimeError) throw cause;
    if (cause instanceof Deno.errors.NotFound) return refuse(`${program} is not on PATH`, cause);
    if (cause instanceof SyntaxError) return refuse("its answer is not JSON");
    return refuse((cause as Error).message, cause);
  }
}
