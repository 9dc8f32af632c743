import { hashBytes } from "../codec/text.ts";

/** Bytes of a message's beginning, with its Lamport time, and of its end that say which slot is its. */
const HEAD_BYTES = 32;
const TAIL_BYTES = 16;

/** Messages remembered by their bytes; a power of two. */
const SEEN_SLOTS = 512;

/** Whether `queued`, a Serf message after memberlist's type byte, is the one in `bytes` from `start` to `end`. */
export function isQueued(queued: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (queued.length !== end - start + 1) return false;
  for (let i = start, at = 1; i < end; i++, at++) if (queued[at] !== bytes[i]) return false;
  return true;
}

/** A hash of the Serf message in `bytes` from `start` to `end` that does not read all of a long one. */
export function messageHash(bytes: Uint8Array, start: number, end: number): number {
  if (end - start <= HEAD_BYTES + TAIL_BYTES) return hashBytes(bytes, start, end);
  const head = hashBytes(bytes, start, start + HEAD_BYTES);
  return head ^ Math.imul(hashBytes(bytes, end - TAIL_BYTES, end), 0x9e3779b1);
}

/**
 * Events and queries that were handled lately, as they were queued for others: what comes once more, as gossip does a
 * dozen times, need not be decoded. Bounded: a newer one takes the place of an older one with the same slot.
 */
export class SeenMessages {
  readonly #slots: (Uint8Array | undefined)[] = new Array(SEEN_SLOTS).fill(undefined);

  /** Whether the Serf message in `bytes` from `start` to `end` was handled. */
  has(bytes: Uint8Array, start: number, end: number): boolean {
    const known = this.#slots[messageHash(bytes, start, end) & (SEEN_SLOTS - 1)];
    return known !== undefined && isQueued(known, bytes, start, end);
  }

  /** Remembers a Serf message that follows memberlist's type byte. The bytes are kept, not copied. */
  add(queued: Uint8Array): void {
    this.#slots[messageHash(queued, 1, queued.length) & (SEEN_SLOTS - 1)] = queued;
  }
}
