/**
 * A log is one endless stream of bytes of which a window is kept: what is older than the window is given back to the
 * file system in place, as a hole at the head of the file. This file decides how far the window moves.
 *
 * Why so: the shim keeps its descriptor, so a rename rotates nothing; copying and truncating loses what is appended
 * in between; collapsing the file shifts every position, and cannot be told apart from not having done so after a
 * crash. A hole needs no space, copies nothing, keeps every position for life (a reader's place stays its place), and
 * may be made twice. The price: `ls` shows the length of the stream, `du` what is kept; programs that read the file
 * from its very start see zeros first.
 */

/** How much of a log is kept. */
export interface LogLimits {
  /** The step, in bytes: space is given back about this much at a time. */
  maxBytes: number;
  /** How many steps stay besides the one being written; 0 keeps half a step. */
  maxFiles: number;
}

/** The window never moves to the middle of a line that ends within this many bytes; a longer line may lose its head. */
export const MAX_UNCUT_LINE_BYTES = 1 << 20;

/** A log holds at most this many bytes when its window has just been moved or is not to be moved. */
export function capacityOf(limits: LogLimits): number {
  return limits.maxBytes * (limits.maxFiles + 1);
}

/**
 * The position at or after which the window of a log should begin, or undefined while the log is within its limits.
 * `base` is where it begins now, `size` where the log ends.
 */
export function trimTarget(base: number, size: number, limits: LogLimits): number | undefined {
  if (size - base < capacityOf(limits)) return undefined;
  const keep = limits.maxFiles > 0 ? limits.maxBytes * limits.maxFiles : Math.ceil(limits.maxBytes / 2);
  return size - keep;
}

const BASE_DIGITS = 20;

/** Bytes of the file that remembers where a window begins. Its length never changes, so it is overwritten in place. */
export function encodeBase(base: number): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${String(base).padStart(BASE_DIGITS, "0")}\n`);
}

/** The inverse of {@linkcode encodeBase}; undefined when the bytes are not of that form. */
export function decodeBase(bytes: Uint8Array): number | undefined {
  const match = /^(\d{20})\n$/.exec(new TextDecoder().decode(bytes));
  if (!match) return undefined;
  const base = Number(match[1]);
  return Number.isSafeInteger(base) ? base : undefined;
}
