import { canonicalJson } from "../canonical.ts";
import type { Log } from "../../runtime/log.ts";
import { MAX_PINNED_PEERS, PinnedPeers } from "./identity_pins.ts";

/** The pins' file in the data dir. */
export const PINS_FILE = "peers.json";
/** Largest file that is read, bytes. */
export const MAX_PINS_BYTES = MAX_PINNED_PEERS * 256;

/**
 * The pins that an earlier agent left. A file that cannot be read is put aside, loudly, and everybody is pinned anew:
 * an agent must start at three in the morning. Throws only what the file system refuses.
 */
export async function loadPins(dataDir: string, options: { log: Log }): Promise<PinnedPeers> {
  const path = `${dataDir}/${PINS_FILE}`;
  const pins = new PinnedPeers();
  let entries: unknown;
  try {
    const { size } = await Deno.lstat(path);
    if (size > MAX_PINS_BYTES) throw new SyntaxError(`it is larger than ${MAX_PINS_BYTES} bytes`);
    entries = JSON.parse(await Deno.readTextFile(path));
    if (!Array.isArray(entries)) throw new SyntaxError("it holds no list");
    const { unreadable } = pins.load(entries);
    if (unreadable > 0) options.log.warn("some pinned keys of peers cannot be read", { path, unreadable });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return pins;
    if (!(error instanceof SyntaxError)) {
      throw new Error(`Cannot load the pinned keys "${path}": ${(error as Error).message}`, { cause: error });
    }
    await Deno.rename(path, `${path}.damaged`);
    options.log.warn("the pinned keys of peers are damaged and were put aside; all are pinned anew", {
      path: `${path}.damaged`,
      error: error.message,
    });
  }
  return pins;
}

/** Writes them whole: after a crash the file holds the old pins or the new ones. Throws an Error that names the file. */
export async function savePins(dataDir: string, pins: PinnedPeers): Promise<void> {
  const path = `${dataDir}/${PINS_FILE}`;
  const draft = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(draft, `${canonicalJson(pins.dump())}\n`, { mode: 0o600, createNew: true });
    await Deno.rename(draft, path);
  } catch (error) {
    await Deno.remove(draft).catch(() => {}); // it may never have been written
    throw new Error(`Cannot save the pinned keys "${path}": ${(error as Error).message}`, { cause: error });
  }
}
