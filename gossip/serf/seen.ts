import { hashBytes } from "../codec/text.ts";

/** Messages remembered by their bytes; a power of two. */
const SEEN_SLOTS = 512;

/**
 * Events and queries that were handled lately, as they were queued for others: what comes once more, as gossip does a
 * dozen times, need not be decoded. Bounded: a newer one takes the place of an older one with the same slot.
 */
export class SeenMessages {
  readonly #slots: (Uint8Array | undefined)[] = new Array(SEEN_SLOTS).fill(undefined);

  /** Whether the Serf message in `bytes` from `start` to `end` was handled. */
  has(bytes: Uint8Array, start: number, end: number): boolean {
    const known = this.#slots[hashBytes(bytes, start, end) & (SEEN_SLOTS - 1)];
    if (known === undefined || known.length !== end - start + 1) return false;
    for (let i = start, at = 1; i < end; i++, at++) if (known[at] !== bytes[i]) return false;
    return true;
  }

  /** Remembers a Serf message that follows memberlist's type byte. The bytes are kept, not copied. */
  add(queued: Uint8Array): void {
    this.#slots[hashBytes(queued, 1, queued.length) & (SEEN_SLOTS - 1)] = queued;
  }
}
