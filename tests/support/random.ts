/** Most bytes that one call of `crypto.getRandomValues` gives. */
const MAX_CALL_BYTES = 65_536;

/** Bytes that do not compress. */
export function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += MAX_CALL_BYTES) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(at + MAX_CALL_BYTES, length)));
  }
  return bytes;
}
