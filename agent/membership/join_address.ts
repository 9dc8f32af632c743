/** One place to join through. */
export interface JoinAddress {
  /** `host`, `host:port`, `[v6]:port`, or an SRV name `_service._proto.domain`. */
  address: string;
  /** The cluster's key, where the join line carries it. */
  key?: Uint8Array;
}

/** Lengths of gossip keys in bytes, as Serf has them. */
export const KEY_LENGTHS: readonly number[] = [16, 24, 32];
/** Addresses of one agent's join lines. */
export const MAX_JOIN_ADDRESSES = 64;

const HOST =
  /^(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?$/;

/**
 * Reads a join line: addresses separated by commas, each `[KEY@]host[:port]`. Throws an Error that says why not; the key
 * is never in it.
 *
 * @example
 * ```ts
 * import { parseJoin } from "./join_address.ts";
 * const [one, two] = parseJoin("n1.example:7946,[::1]:7947");
 * if (one.address !== "n1.example:7946" || two.address !== "[::1]:7947") throw new Error("unexpected");
 * ```
 */
export function parseJoin(text: string): JoinAddress[] {
  const parts = text.split(",").map((part) => part.trim()).filter((part) => part !== "");
  if (parts.length === 0) throw new Error("an address to join is host or host:port");
  if (parts.length > MAX_JOIN_ADDRESSES) throw new Error(`at most ${MAX_JOIN_ADDRESSES} addresses to join`);
  return parts.map((part) => {
    const at = part.lastIndexOf("@");
    const address = part.slice(at + 1);
    if (!HOST.test(address)) throw new Error(`"${address}" is not an address to join (host or host:port)`);
    const port = /:([0-9]{1,5})$/.exec(address)?.[1];
    const isPort = port === undefined || (Number(port) >= 1 && Number(port) <= 65_535);
    if (!isPort && !address.endsWith("]")) throw new Error(`"${address}" has a port outside 1 to 65535`);
    return at < 0 ? { address } : { address, key: parseGossipKey(part.slice(0, at)) };
  });
}

/** Reads a gossip key: 16, 24 or 32 bytes in base64. Throws an Error that does not show it. */
export function parseGossipKey(text: string): Uint8Array {
  let key: Uint8Array;
  try {
    key = Uint8Array.fromBase64(text.trim());
  } catch {
    throw new Error("the gossip key is not base64");
  }
  if (!KEY_LENGTHS.includes(key.length)) {
    throw new Error(`the gossip key has ${key.length} bytes; it must have 16, 24 or 32`);
  }
  return key;
}
