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
  return clusterKeys.slice(0, MAX_KEYS).map((key) =>
    new Uint8Array(hkdfSync("sha256", key, new Uint8Array(), INFO, KEY_BYTES))
  );
}
