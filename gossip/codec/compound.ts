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
 * Calls `visit` with each complete part; the parts share memory with the input. Returns how many were cut off.
 * `message` begins with the type byte.
 */
export function decodeCompound(message: Uint8Array, visit: (part: Uint8Array) => void): number {
  if (message.length < COMPOUND_HEAD) throw new DecodeError("compound", "the input ends inside its head");
  const count = message[1];
  let at = COMPOUND_HEAD + COMPOUND_PART_OVERHEAD * count;
  if (at > message.length) throw new DecodeError("compound", "the input ends inside the lengths");
  for (let i = 0; i < count; i++) {
    const head = COMPOUND_HEAD + COMPOUND_PART_OVERHEAD * i;
    const length = (message[head] << 8) | message[head + 1];
    if (at + length > message.length) return count - i;
    if (length > 0) visit(message.subarray(at, at + length));
    at += length;
  }
  return 0;
}
