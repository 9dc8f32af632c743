import { DecodeError } from "./error.ts";
import { MessageType } from "./types.ts";

/** Parts one compound can hold. */
export const MAX_COMPOUND_PARTS = 255;
/** Bytes a compound adds to each part. */
export const COMPOUND_PART_OVERHEAD = 2;
/** Bytes of a compound's own head. */
export const COMPOUND_HEAD = 2;

/** Joins up to 255 non-empty messages into one compound. */
export function encodeCompound(parts: readonly Uint8Array[]): Uint8Array {
  let length = COMPOUND_HEAD + COMPOUND_PART_OVERHEAD * parts.length;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  out[0] = MessageType.compound;
  out[1] = parts.length;
  let head = COMPOUND_HEAD;
  let at = COMPOUND_HEAD + COMPOUND_PART_OVERHEAD * parts.length;
  for (const part of parts) {
    out[head++] = part.length >>> 8;
    out[head++] = part.length & 0xff;
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * Calls `visit` with where each complete part stands in `bytes`. Returns how many were cut off. The compound goes from
 * `start`, its type byte, to `end`.
 */
export function decodeCompound(
  bytes: Uint8Array,
  start: number,
  end: number,
  visit: (bytes: Uint8Array, start: number, end: number) => void,
): number {
  if (end - start < COMPOUND_HEAD) throw new DecodeError("compound", "the input ends inside its head");
  const count = bytes[start + 1];
  let at = start + COMPOUND_HEAD + COMPOUND_PART_OVERHEAD * count;
  if (at > end) throw new DecodeError("compound", "the input ends inside the lengths");
  for (let i = 0; i < count; i++) {
    const head = start + COMPOUND_HEAD + COMPOUND_PART_OVERHEAD * i;
    const length = (bytes[head] << 8) | bytes[head + 1];
    if (at + length > end) return count - i;
    if (length > 0) visit(bytes, at, at + length);
    at += length;
  }
  return 0;
}
