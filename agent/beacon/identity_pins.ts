import type { IdentityClaim } from "./identity.ts";
import { fromBase64, isSameBytes, verifyClaim } from "./identity_rotation.ts";
import { PUBLIC_KEY_BYTES } from "./identity.ts";

/** Peers whose keys are remembered; beyond that the one not seen for longest is forgotten. */
export const MAX_PINNED_PEERS = 16_384;

/** What is remembered of a peer. */
export interface Pin {
  nodeId: string;
  publicKey: Uint8Array;
  /** Rotations the key was reached by. */
  rotations: number;
  seenAtMs: number;
}

/** What {@linkcode PinnedPeers.accept} says. */
export type PinVerdict =
  | { accepted: true; change: "none" | "new" | "rotated" }
  | { accepted: false; reason: string };

/**
 * The key of each peer, from the first time it was seen. A claim with another key is refused unless its rotations lead
 * from the pinned key to the new one; so neither a stolen older key nor a second history of the same node gets in.
 * Forgetting costs little: an id is bound to its first key anyway, so only a rotation is forgotten with a pin, and peers
 * that never rotated are forgotten first.
 */
export class PinnedPeers {
  /** Ordered by when they were last seen. */
  readonly #pins = new Map<string, Pin>();
  readonly #limit: number;

  constructor(options: { limit?: number } = {}) {
    this.#limit = options.limit ?? MAX_PINNED_PEERS;
  }

  get size(): number {
    return this.#pins.size;
  }

  get(nodeId: string): Pin | undefined {
    return this.#pins.get(nodeId);
  }

  /** Pins what is new and valid; says why anything else is refused. */
  accept(claim: IdentityClaim, nowMs: number): PinVerdict {
    const pin = this.#pins.get(claim.nodeId);
    if (pin !== undefined && isSameBytes(pin.publicKey, claim.publicKey)) {
      this.#put({ ...pin, seenAtMs: nowMs });
      return { accepted: true, change: "none" };
    }
    const verdict = verifyClaim(claim);
    if ("reason" in verdict) return { accepted: false, reason: verdict.reason };
    if (pin !== undefined) {
      if (claim.rotations.length <= pin.rotations) {
        return { accepted: false, reason: "it has rotated away from this key, or the key is not its own" };
      }
      if (!isSameBytes(verdict.keys[pin.rotations], pin.publicKey)) {
        return { accepted: false, reason: "its rotations do not lead from the pinned key" };
      }
    }
    this.#put({
      nodeId: claim.nodeId,
      publicKey: claim.publicKey,
      rotations: claim.rotations.length,
      seenAtMs: nowMs,
    });
    return { accepted: true, change: pin === undefined ? "new" : "rotated" };
  }

  /** Forgets a peer, so that the next key seen for it is pinned. */
  forget(nodeId: string): boolean {
    return this.#pins.delete(nodeId);
  }

  /** For the file: one entry a peer, oldest first. */
  dump(): { node_id: string; public_key: string; rotations: number; seen_at_ms: number }[] {
    return [...this.#pins.values()].map((pin) => ({
      node_id: pin.nodeId,
      public_key: pin.publicKey.toBase64(),
      rotations: pin.rotations,
      seen_at_ms: pin.seenAtMs,
    }));
  }

  /** Takes what {@linkcode PinnedPeers.dump} gave; entries that cannot be read are left out and counted. */
  load(entries: readonly unknown[]): { unreadable: number } {
    let unreadable = 0;
    for (const entry of entries) {
      const pin = parsePin(entry);
      if (pin === undefined) unreadable++;
      else this.#put(pin);
    }
    return { unreadable };
  }

  #put(pin: Pin): void {
    this.#pins.delete(pin.nodeId);
    this.#pins.set(pin.nodeId, pin);
    if (this.#pins.size <= this.#limit) return;
    const others = [...this.#pins.values()].filter((each) => each !== pin);
    this.#pins.delete((others.find((each) => each.rotations === 0) ?? others[0]).nodeId);
  }
}

const NODE_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function parsePin(entry: unknown): Pin | undefined {
  if (typeof entry !== "object" || entry === null) return undefined;
  const { node_id, public_key, rotations, seen_at_ms } = entry as Record<string, unknown>;
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const publicKey = typeof public_key === "string" ? fromBase64(public_key, PUBLIC_KEY_BYTES) : undefined;
  if (typeof node_id !== "string" || !NODE_ID.test(node_id) || publicKey === undefined) return undefined;
  if (!isCount(rotations) || !isCount(seen_at_ms)) return undefined;
  return { nodeId: node_id, publicKey, rotations, seenAtMs: seen_at_ms };
}
