import { hkdfSync } from "node:crypto";

/** Keys of the cluster that a node may hold at once: the most that are tried against one proof. */
export const MAX_KEYS = 32;
/** What the keys for this purpose are derived with (RFC 5869). */
const INFO = "hypercore peer membership 1";
const KEY_BYTES = 32;

/**
 * Derives from the cluster's gossip keys, the primary first, those by which members recognise each other; the gossip
 * keys themselves are never used or sent. An empty list means a cluster without a key. Keys beyond
 * {@linkcode MAX_KEYS} are left out.
 */
export function derivePeerKeys(clusterKeys: readonly Uint8Array[]): readonly Uint8Array[] {
  return clusterKeys.slice(0, MAX_KEYS).map(derive);
}

/** The derived keys of a key ring that changes: the same object for a key as long as it is in the ring. */
export class PeerKeys {
  readonly #clusterKeys: () => readonly Uint8Array[];
  #derived = new Map<string, Uint8Array>();

  /** `clusterKeys` tells the gossip keys of the moment, the primary first. */
  constructor(clusterKeys: () => readonly Uint8Array[]) {
    this.#clusterKeys = clusterKeys;
  }

  /** Derived from the keys of the moment, the primary first. */
  current(): readonly Uint8Array[] {
    const now = new Map<string, Uint8Array>();
    for (const key of this.#clusterKeys().slice(0, MAX_KEYS)) {
      const name = key.toHex();
      now.set(name, this.#derived.get(name) ?? derive(key));
    }
    this.#derived = now;
    return [...now.values()];
  }

  /** Whether what was proved by this key (undefined: without one) still counts. */
  isInForce(key: Uint8Array | undefined): boolean {
    const keys = this.current();
    return key === undefined ? keys.length === 0 : keys.includes(key);
  }
}

function derive(key: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", key, new Uint8Array(), INFO, KEY_BYTES));
}
