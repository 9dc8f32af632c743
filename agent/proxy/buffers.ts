/**
 * Enough for most heads, and for most responses of pages and APIs in one read; every open connection holds one, of which
 * the system backs only what has been used.
 */
export const SMALL_BUFFER_BYTES = 32 * 1024;
/** For moving bodies; held only while one moves. */
export const LARGE_BUFFER_BYTES = 256 * 1024;

/** Free ones that are kept. */
export const MAX_FREE_SMALL = 512;
/** The same of large ones. */
export const MAX_FREE_LARGE = 32;

/** Buffers of two sizes, used again. What is kept free is bounded; what is in use is bounded by the connections. */
export class BufferPool {
  readonly #small: Uint8Array<ArrayBuffer>[] = [];
  readonly #large: Uint8Array<ArrayBuffer>[] = [];

  takeSmall(): Uint8Array<ArrayBuffer> {
    return this.#small.pop() ?? new Uint8Array(SMALL_BUFFER_BYTES);
  }

  takeLarge(): Uint8Array<ArrayBuffer> {
    return this.#large.pop() ?? new Uint8Array(LARGE_BUFFER_BYTES);
  }

  /** The caller must not use `buffer` any more, and no read into it may be pending. Other sizes are left to the GC. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.length === SMALL_BUFFER_BYTES) {
      if (this.#small.length < MAX_FREE_SMALL) this.#small.push(buffer);
    } else if (buffer.length === LARGE_BUFFER_BYTES && this.#large.length < MAX_FREE_LARGE) {
      this.#large.push(buffer);
    }
  }
}
