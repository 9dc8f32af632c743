import { X25519_BYTES } from "../codec/serf_push_pull.ts";
import type { Log } from "../log.ts";
import type { KeyMemory } from "../serf/key_queries.ts";

/** Longest key ring file that is read. */
const MAX_BYTES = 1024 * 1024;

/** Keys of a file in Serf's format, the primary first; undefined where there is none. Throws where it is not valid. */
export async function readKeyring(path: string): Promise<Uint8Array[] | undefined> {
  try {
    const { size } = await Deno.stat(path);
    if (size > MAX_BYTES) throw new Error(`it has ${size} bytes, the limit is ${MAX_BYTES}`);
    const parsed: unknown = JSON.parse(await Deno.readTextFile(path));
    if (!Array.isArray(parsed) || !parsed.every((key) => typeof key === "string")) {
      throw new Error("it is no array of base64 keys");
    }
    return parsed.map((key) => Uint8Array.fromBase64(key));
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot read key ring "${path}": ${reason}`, { cause });
  }
}

/** What a node keeps beside its key ring, so that it gets back in after a rotation that it slept through. */
export interface KeyringExtras extends KeyMemory {
  /** Keys that were removed, the latest first. */
  retired: Uint8Array[];
}

/** Extras of a key ring file; undefined where there are none. Throws where they are not valid. */
export async function readKeyringExtras(keyringFile: string): Promise<KeyringExtras | undefined> {
  const path = extrasPath(keyringFile);
  try {
    const { size } = await Deno.stat(path);
    if (size > MAX_BYTES) throw new Error(`it has ${size} bytes, the limit is ${MAX_BYTES}`);
    const parsed = JSON.parse(await Deno.readTextFile(path));
    const { version, secret, retired, doors } = parsed as Record<string, unknown>;
    const isTable = (value: unknown): value is Record<string, string> =>
      typeof value === "object" && value !== null &&
      Object.values(value).every((text) => typeof text === "string");
    if (
      !Number.isSafeInteger(version) || typeof secret !== "string" || !isTable(retired) || !isTable(doors)
    ) {
      throw new Error("it holds no version, secret, retired keys and doors");
    }
    const bytes = Uint8Array.fromBase64(secret);
    if (bytes.length !== X25519_BYTES) throw new Error("its secret has another length");
    return {
      version: version as number,
      secret: bytes,
      retired: Object.values(retired).map((key) => Uint8Array.fromBase64(key)),
      doors: new Map(Object.entries(doors).map(([name, key]) => [name, Uint8Array.fromBase64(key)])),
    };
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot read "${path}": ${reason}`, { cause });
  }
}

/** Stores keys and extras, readable by the owner alone. At once, so that a crash does not lose a key that others use. */
export function writeKeyring(
  keyringFile: string,
  ring: { keys: readonly Uint8Array[]; extras: KeyringExtras },
  log: Log,
): void {
  const { version, secret, retired, doors } = ring.extras;
  const extras = {
    version,
    secret: secret.toBase64(),
    retired: retired.map((key) => key.toBase64()),
    doors: Object.fromEntries(Array.from(doors, ([name, key]) => [name, key.toBase64()])),
  };
  // The extras first: a ring without them is only less able, the other way round a removed key would be lost.
  writeFile(extrasPath(keyringFile), extras, log);
  writeFile(keyringFile, ring.keys.map((key) => key.toBase64()), log);
}

function extrasPath(keyringFile: string): string {
  return `${keyringFile}.rejoin`;
}

function writeFile(path: string, value: unknown, log: Log): void {
  try {
    const temporary = `${path}.new`;
    const file = Deno.openSync(temporary, { write: true, create: true, truncate: true, mode: 0o600 });
    try {
      const bytes = new TextEncoder().encode(JSON.stringify(value, null, 2));
      for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
      file.syncSync();
    } finally {
      file.close();
    }
    Deno.renameSync(temporary, path);
  } catch (error) {
    log.error("cannot store the key ring", {
      path,
      reason: error instanceof Error ? error.message : String(error),
    });
  }
}
