/** Bytes from a peer that are not a valid message. The only error a decoder of this folder throws. */
export class DecodeError extends Error {
  override readonly name = "DecodeError";
  /** Whether the bytes are the beginning of what might be valid. */
  readonly incomplete: boolean;
  /** Whether no key of ours opens them. */
  readonly sealed: boolean;

  constructor(what: string, reason: string, options: { incomplete?: boolean; sealed?: boolean } = {}) {
    super(`Cannot decode "${what}": ${reason}`);
    this.incomplete = options.incomplete ?? false;
    this.sealed = options.sealed ?? false;
  }
}
