import type { BufferPool } from "./buffers.ts";
import { type Conn, isSecure } from "./conn.ts";
import { CR, LF } from "./http1/bytes.ts";
import { findHeadEnd, HEAD_INCOMPLETE } from "./http1/head.ts";
import { HttpError } from "./http_error.ts";

const NOTHING = new Uint8Array(0);
/** Content of one TLS record at most (RFC 8446 §5.1). */
const MAX_RECORD_BYTES = 16 * 1024;
/** Promises that a read which need not wait takes to resolve, and a few more. */
const READY_TURNS = 8;

/**
 * The reading side of a connection: a buffer whose unread bytes are `buffer[start, end)`, and at most one read in flight.
 * A read may be started ahead of need ({@linkcode Source.fill} without awaiting it): it notices a peer that leaves, and
 * its bytes are the next message's.
 */
export class Source {
  buffer: Uint8Array<ArrayBuffer>;
  start = 0;
  end = 0;
  ended = false;
  /** Reads bring a TLS record at most. */
  readonly #isSecure: boolean;
  #failure?: { error: unknown };
  #pending?: Promise<number>;
  #released = false;

  constructor(private readonly conn: Conn, private readonly pool: BufferPool) {
    this.buffer = pool.takeSmall();
    this.#isSecure = isSecure(conn);
  }

  get buffered(): number {
    return this.end - this.start;
  }

  get isReading(): boolean {
    return this.#pending !== undefined;
  }

  /**
   * Reads once. Resolves with the number of bytes added; 0 at the end of the stream, or at once when the buffer is
   * full.
   */
  fill(): Promise<number> {
    if (this.#pending) return this.#pending;
    if (this.#released) return Promise.reject(new Deno.errors.BadResource("the buffer has been given back"));
    if (this.#failure) return Promise.reject(this.#failure.error);
    if (this.start === this.end) this.start = this.end = 0;
    else if (this.end === this.buffer.length) this.#compact();
    if (this.ended || this.end === this.buffer.length) return Promise.resolve(0);
    const room = this.end === 0 ? this.buffer : this.buffer.subarray(this.end);
    return this.#pending = this.conn.read(room).then(this.#onRead, this.#onReadFailed);
  }

  readonly #onRead = (count: number | null): number => {
    this.#readEnded();
    if (count === null) this.ended = true;
    else this.end += count;
    return count ?? 0;
  };

  readonly #onReadFailed = (error: unknown): never => {
    this.#failure = { error };
    this.#readEnded();
    throw error;
  };

  /**
   * After a {@linkcode Source.fill}, reads on while there is more to be had without waiting. Only for TLS, where each read
   * brings a record at most, so that a body would be moved in small pieces. A read may be in flight afterwards.
   */
  fillReady(): Promise<void> | undefined {
    return this.#isSecure && this.buffer.length - this.end >= MAX_RECORD_BYTES
      ? this.#fillReady()
      : undefined;
  }

  async #fillReady(): Promise<void> {
    while (!this.ended && !this.#failure && this.buffer.length - this.end >= MAX_RECORD_BYTES) {
      let isDone = false;
      const done = () => void (isDone = true);
      this.fill().then(done, done); // a failure is told by the next fill
      // What is there arrives within the promises of a read, without a turn of the event loop.
      for (let turn = 0; turn < READY_TURNS && !isDone; turn++) await undefined;
      if (!isDone) return;
    }
  }

  #readEnded(): void {
    this.#pending = undefined;
    if (this.#released) this.#give();
  }

  #give(): void {
    this.pool.give(this.buffer);
    this.buffer = NOTHING;
    this.start = this.end = 0;
  }

  /**
   * Reads until a whole head is buffered; the offset behind it, or -1 when the stream ends before its first byte. Throws
   * {@linkcode HttpError} 431 when the head is longer than `maxBytes`, 400 when the stream ends within.
   */
  head(maxBytes: number, onFirstByte?: () => void): number | Promise<number> {
    if (this.start === this.end) return this.#readHead(maxBytes, onFirstByte);
    onFirstByte?.();
    const headEnd = this.#findHead(0, maxBytes);
    return headEnd === HEAD_INCOMPLETE ? this.#readHead(maxBytes) : headEnd;
  }

  async #readHead(maxBytes: number, onFirstByte?: () => void): Promise<number> {
    for (;;) {
      const scanned = this.buffered;
      if (!this.isReading && this.start === 0 && this.end === this.buffer.length) {
        this.resize(this.buffer.length * 2);
      }
      const added = await this.fill();
      if (added === 0 && this.ended) {
        if (scanned === 0) return -1;
        throw new HttpError(400, "the connection ended within a head");
      }
      if (scanned === 0) onFirstByte?.();
      const headEnd = this.#findHead(scanned, maxBytes);
      if (headEnd !== HEAD_INCOMPLETE) return headEnd;
    }
  }

  /** Goes behind an empty line, when that is what comes next; its first byte has been buffered. */
  async skipEmptyLine(): Promise<void> {
    if (this.buffered === 1) await this.fill();
    const { buffer, start } = this;
    if (this.buffered >= 2 && buffer[start] === CR && buffer[start + 1] === LF) this.start += 2;
  }

  /** Looks on for the end of a head whose first `scanned` bytes do not hold it. */
  #findHead(scanned: number, maxBytes: number): number {
    const headEnd = findHeadEnd(this.buffer, this.start, this.start + scanned, this.end);
    const bytes = (headEnd === HEAD_INCOMPLETE ? this.end : headEnd) - this.start;
    if (bytes > maxBytes) throw new HttpError(431, `the head is longer than ${maxBytes} bytes`);
    return headEnd;
  }

  /** Changes to a large or back to a small buffer. No read may be pending. */
  resize(bytes: number): void {
    if (this.#pending || this.#released || bytes === this.buffer.length || this.buffered > bytes) return;
    const old = this.buffer;
    const next = bytes < old.length ? this.pool.takeSmall() : this.#larger(bytes);
    if (this.buffered > 0) next.set(old.subarray(this.start, this.end));
    this.end -= this.start;
    this.start = 0;
    this.buffer = next;
    this.pool.give(old);
  }

  /**
   * Gives the buffer back, once a pending read has come to its end. Only for one who knows that nobody looks into it or writes
   * from it any more: the next owner is another client's connection. Otherwise it is left to the garbage collector.
   */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (!this.#pending) this.#give();
  }

  #larger(bytes: number): Uint8Array<ArrayBuffer> {
    const large = this.pool.takeLarge();
    if (bytes === large.length) return large;
    this.pool.give(large);
    return new Uint8Array(bytes);
  }

  #compact(): void {
    if (this.start === 0) return;
    this.buffer.copyWithin(0, this.start, this.end);
    this.end -= this.start;
    this.start = 0;
  }
}
