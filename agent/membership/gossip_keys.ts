import { parseGossipKey } from "./join_address.ts";

/** File of the key ring in the data dir, in Serf's format. */
export const KEYRING_FILE = "gossip.keyring";
/** Bytes of a key that is made here. */
export const KEY_BYTES = 32;

const MAX_FILE_BYTES = 64 * 1024;

/** What decides about the keys of a node's gossip. */
export interface GossipKeyOptions {
  dataDir: string;
  /** Given by the operator: `--encrypt`, or in a join line. */
  given?: Uint8Array;
  /** Run without a key where none is given. */
  insecure: boolean;
  /** Gossip is bound to loopback only. */
  isLocal: boolean;
  /** Addresses to join, for the error that asks for the key. */
  joins: readonly string[];
}

/** The key ring a node starts with. */
export interface GossipKeys {
  /** The primary first; empty means no encryption. */
  keys: Uint8Array[];
  /** Where the ring is kept; absent without encryption. */
  file?: string;
  /** Whether the key was made now. */
  isNew: boolean;
}

/**
 * The keys of this node's gossip: the ring in the data dir, with a given key as its primary; else a new key, unless gossip
 * stays on loopback, or nobody wants one. Throws an Error where a key is needed that only another member has.
 */
export async function gossipKeys(options: GossipKeyOptions): Promise<GossipKeys> {
  const file = `${options.dataDir}/${KEYRING_FILE}`;
  const kept = await readRing(file);
  const { given } = options;
  if (given === undefined && options.insecure) return { keys: [], isNew: false };
  if (given !== undefined) {
    const others = (kept ?? []).filter((key) => !isEqual(key, given));
    const keys = [given, ...others];
    await writeRing(options.dataDir, keys);
    return { keys, file, isNew: false };
  }
  if (kept !== undefined) return { keys: kept, file, isNew: false };
  if (options.isLocal) return { keys: [], isNew: false };
  if (options.joins.length > 0) {
    throw new Error(
      `Cannot join "${
        options.joins[0]
      }": the cluster's key is missing; run "hypercore keys show" on a member and ` +
        `join with the line it prints (--join KEY@${
          options.joins[0]
        }), or give --encrypt; --insecure joins a ` +
        `cluster that has none`,
    );
  }
  const keys = [crypto.getRandomValues(new Uint8Array(KEY_BYTES))];
  await writeRing(options.dataDir, keys);
  return { keys, file, isNew: true };
}

async function readRing(path: string): Promise<Uint8Array[] | undefined> {
  try {
    const { mode, size, isFile } = await Deno.lstat(path);
    if (!isFile) throw new Error("it is no file");
    if (mode !== null && (mode & 0o077) !== 0) throw new Error("others may read it; its mode must be 0600");
    if (size > MAX_FILE_BYTES) throw new Error(`it has more than ${MAX_FILE_BYTES} bytes`);
    const parsed: unknown = JSON.parse(await Deno.readTextFile(path));
    if (!Array.isArray(parsed) || parsed.length === 0) throw new Error("it is no list of keys");
    return parsed.map((key) => parseGossipKey(String(key)));
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot read the gossip keys "${path}": ${reason}`, { cause });
  }
}

async function writeRing(dataDir: string, keys: readonly Uint8Array[]): Promise<void> {
  const path = `${dataDir}/${KEYRING_FILE}`;
  try {
    await Deno.mkdir(dataDir, { recursive: true });
    const draft = `${path}.${crypto.randomUUID()}`;
    await Deno.writeTextFile(draft, `${JSON.stringify(keys.map((key) => key.toBase64()))}\n`, {
      mode: 0o600,
      createNew: true,
    });
    await Deno.rename(draft, path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot store the gossip keys "${path}": ${reason}`, { cause });
  }
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
