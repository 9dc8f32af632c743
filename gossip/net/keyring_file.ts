import type { Log } from "../log.ts";

/** Longest key ring file that is read. */
const MAX_BYTES = 64 * 1024;

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

/** Stores keys, readable by the owner alone. At once, so that a crash does not lose a key that others use already. */
export function writeKeyring(path: string, keys: readonly Uint8Array[], log: Log): void {
  try {
    const temporary = `${path}.new`;
    Deno.writeTextFileSync(temporary, JSON.stringify(keys.map((key) => key.toBase64()), null, 2), {
      mode: 0o600,
    });
    Deno.renameSync(temporary, path);
  } catch (error) {
    log.error("cannot store the key ring", {
      path,
      reason: error instanceof Error ? error.message : String(error),
    });
  }
}
