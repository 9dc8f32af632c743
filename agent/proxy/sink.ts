import { latin1Bytes } from "./http1/bytes.ts";
import type { BufferPool } from "./buffers.ts";
import type { Conn } from "./conn.ts";

/** Where content goes. Methods return a promise only when the caller has to wait for the receiver. */
export interface ContentSink {
  /**
   * `spare` bytes in front of `bytes`, in the same buffer, are of no more use: what is held back may be put there, so that
   * both go out in one piece.
   */
  write(bytes: Uint8Array, spare?: number): Promise<void> | undefined;
  /** Sends what has been held back. Called before every wait for more input, and at the end. */
  flush(): Promise<void> | undefined;
  /** The trailers of a chunked body that is decoded on the way; not called when there are none. */
  trailers?(fields: [name: string, value: string][]): void;
}

/** Longer pieces are written from where they stand. */
const MAX_COPIED_BYTES = 8 * 1024;

/** Writes to a connection, small pieces together: a head, and the body behind it when it is there already. */
export class ConnectionSink implements ContentSink {
  /** Room for a head is written by hand: set `filled` behind it. */
  readonly buffer: Uint8Array<ArrayBuffer>;
  filled = 0;
  /** A write has failed: the receiver is gone. */
  failed = false;

  constructor(private readonly conn: Conn, private readonly pool: BufferPool, minBytes: number) {
    const buffer = pool.takeSmall();
    this.buffer = buffer.length >= minBytes ? buffer : new Uint8Array(minBytes);
    if (this.buffer !== buffer) pool.give(buffer);
  }

  write(bytes: Uint8Array, spare = 0): Promise<void> | undefined {
    if (this.fits(bytes.length)) {
      this.buffer.set(bytes, this.filled);
      this.filled += bytes.length;
      return undefined;
    }
    const held = this.filled;
    if (held > spare) return this.#through(bytes);
    const whole = new Uint8Array(bytes.buffer, bytes.byteOffset - held, held + bytes.length);
    whole.set(this.buffer.subarray(0, held));
    this.filled = 0;
    return this.#send(whole);
  }

  /** Whether a piece of that size can be held back with what is. */
  fits(bytes: number): boolean {
    return bytes <= MAX_COPIED_BYTES && this.filled + bytes <= this.buffer.length;
  }

  flush(): Promise<void> | undefined {
    if (this.filled === 0) return undefined;
    const held = this.buffer.subarray(0, this.filled);
    this.filled = 0;
    return this.#send(held);
  }

  /** Gives the buffer back; nothing may be in flight. */
  release(): void {
    this.pool.give(this.buffer);
  }

  async #through(bytes: Uint8Array): Promise<void> {
    await this.flush();
    await this.#send(bytes);
  }

  async #send(bytes: Uint8Array): Promise<void> {
    try {
      const written = await this.conn.write(bytes);
      if (written < bytes.length) await writeAll(this.conn, bytes.subarray(written));
    } catch (error) {
      this.failed = true;
      throw error;
    }
  }
}

/** Puts each piece into a chunk of its own (RFC 9112 §7.1); `end` writes the last one. */
export class ChunkingSink implements ContentSink {
  constructor(private readonly inner: ContentSink) {}

  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    await this.inner.write(latin1Bytes(`${bytes.length.toString(16)}\r\n`));
    await this.inner.write(bytes);
    await this.inner.write(latin1Bytes("\r\n"));
  }

  flush(): Promise<void> | undefined {
    return this.inner.flush();
  }

  async end(trailers: [name: string, value: string][] = []): Promise<void> {
    await this.inner.write(
      latin1Bytes(`0\r\n${trailers.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`),
    );
    await this.inner.flush();
  }
}

/** Writes all of `bytes`. */
export async function writeAll(conn: Conn, bytes: Uint8Array): Promise<void> {
  let written = await conn.write(bytes);
  while (written < bytes.length) written += await conn.write(bytes.subarray(written));
}

/** Closes what may have been closed already. */
export function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}
