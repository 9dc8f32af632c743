import { createHash, timingSafeEqual } from "node:crypto";

/** The token's file in the data dir. */
export const TOKEN_FILE = "token";
/** Random bytes in a token. */
export const TOKEN_BYTES = 32;

const TOKEN = /^[\x21-\x7e]{16,512}$/;

/**
 * The API token of this node: the one in the data dir, made at first start with mode 0600. Two agents that start at the
 * same moment end up with the same one. Throws an Error that names the file.
 */
export async function loadToken(dataDir: string): Promise<string> {
  const path = `${dataDir}/${TOKEN_FILE}`;
  try {
    return await readToken(path) ?? await makeToken(dataDir, path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot load the API token "${path}": ${reason}`, { cause: error });
  }
}

/** Compares in a time that does not depend on where they differ, or on their lengths. */
export function isSameToken(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}

async function readToken(path: string): Promise<string | undefined> {
  let text: string;
  try {
    const { mode } = await Deno.lstat(path);
    if (mode !== null && (mode & 0o077) !== 0) throw new Error("others may read it; its mode must be 0600");
    text = (await Deno.readTextFile(path)).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  if (!TOKEN.test(text)) {
    throw new Error("it does not hold 16 to 512 printable characters; remove it for a new one");
  }
  return text;
}

/** Writes it whole under another name first; the link fails when somebody else was faster. */
async function makeToken(dataDir: string, path: string): Promise<string> {
  const token = crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)).toHex();
  await Deno.mkdir(dataDir, { recursive: true });
  const draft = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(draft, `${token}\n`, { mode: 0o600, createNew: true });
    await Deno.link(draft, path);
    return token;
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    const winner = await readToken(path);
    if (winner === undefined) throw error;
    return winner;
  } finally {
    await Deno.remove(draft).catch(() => {}); // a draft that was never written needs no removal
  }
}
