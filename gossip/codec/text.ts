const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** UTF-8 bytes of `text`. */
export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Text of UTF-8 `bytes`, or undefined where they are not UTF-8. */
export function fromUtf8(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Lower-case hex of `bytes`. */
export function toHex(bytes: Uint8Array): string {
  return (bytes as Uint8Array & { toHex(): string }).toHex();
}

/** Whether two byte strings are equal. Not constant-time. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether `bytes` from `start` to `end` are those of `whole`. */
export function sameBytes(whole: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  const length = end - start;
  if (whole.length !== length) return false;
  for (let i = 0; i < length; i++) if (whole[i] !== bytes[start + i]) return false;
  return true;
}

/** A hash of `bytes` from `start` to `end`, as an unsigned integer: quick, and no defence against who picks the bytes. */
export function hashBytes(bytes: Uint8Array, start: number, end: number): number {
  let hash = end - start;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + bytes[i]) | 0;
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** The parts one after another. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The empty byte string. */
export const NO_BYTES: Uint8Array = new Uint8Array(0);
