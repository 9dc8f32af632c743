import { CR, LF } from "./bytes.ts";
import { HttpError } from "../http_error.ts";

enum State {
  Size,
  Extension,
  SizeLf,
  Data,
  DataCr,
  DataLf,
  Trailers,
}

/** Hexadecimal digits of a chunk size that always fit a safe integer. */
const MAX_SIZE_DIGITS = 12;

/**
 * Walks over chunked content (RFC 9112 §7.1) without copying it: {@linkcode ChunkScanner.scan} says how many bytes belong
 * to chunks, until `done`: what follows is the trailer section, empty line included.
 */
export class ChunkScanner {
  /** The last chunk's line has been consumed. */
  done = false;
  /** Content bytes seen so far, without framing. */
  dataBytes = 0;
  #state: State = State.Size;
  #digits = 0;
  #lineBytes = 0;
  #size = 0;

  constructor(private readonly maxLineBytes: number) {}

  reset(): void {
    this.done = false;
    this.dataBytes =
      this.#digits =
      this.#lineBytes =
      this.#size =
        0;
    this.#state = State.Size;
  }

  /**
   * Consumes `buffer[start, end)`, returns where it stopped: `end`, or behind the line of the last chunk. `onData` gets
   * the ranges that are content. Throws {@linkcode HttpError} 400 on anything but strict framing.
   */
  scan(
    buffer: Uint8Array,
    start: number,
    end: number,
    onData?: (start: number, end: number) => void,
  ): number {
    let at = start;
    while (at < end && !this.done) {
      if (this.#state === State.Data) {
        const take = Math.min(this.#size, end - at);
        onData?.(at, at + take);
        this.dataBytes += take;
        this.#size -= take;
        at += take;
        if (this.#size === 0) this.#state = State.DataCr;
        continue;
      }
      this.#step(buffer[at++]);
    }
    return at;
  }

  #step(code: number): void {
    switch (this.#state) {
      case State.Size: {
        const digit = hexDigit(code);
        if (digit >= 0) {
          if (++this.#digits > MAX_SIZE_DIGITS) throw new HttpError(400, "chunk size too large");
          this.#size = this.#size * 16 + digit;
        } else if (this.#digits === 0) {
          throw new HttpError(400, "malformed chunk size");
        } else if (code === CR) {
          this.#state = State.SizeLf;
        } else if (code === 59) {
          this.#state = State.Extension;
        } else {
          throw new HttpError(400, "malformed chunk size");
        }
        break;
      }
      case State.Extension:
        if (code === CR) this.#state = State.SizeLf;
        else if (code !== 9 && (code < 32 || code === 127)) {
          throw new HttpError(400, "malformed chunk extension");
        } else if (++this.#lineBytes > this.maxLineBytes) {
          throw new HttpError(400, "chunk extension too long");
        }
        break;
      case State.SizeLf:
        if (code !== LF) throw new HttpError(400, "malformed chunk line");
        this.#digits = this.#lineBytes = 0;
        if (this.#size === 0) {
          this.#state = State.Trailers;
          this.done = true;
        } else {
          this.#state = State.Data;
        }
        break;
      case State.DataCr:
        if (code !== CR) throw new HttpError(400, "chunk longer than its size");
        this.#state = State.DataLf;
        break;
      case State.DataLf:
        if (code !== LF) throw new HttpError(400, "chunk longer than its size");
        this.#state = State.Size;
        break;
    }
  }
}

/**
 * Looks for the end of a trailer section that begins at `start`: behind its empty line, or -1 when there is more to come.
 */
export function findTrailerEnd(buffer: Uint8Array, start: number, end: number): number {
  if (end - start < 2) return -1;
  if (buffer[start] === CR && buffer[start + 1] === LF) return start + 2;
  for (let at = start + 3; at < end; at++) {
    if (buffer[at] !== LF) continue;
    if (buffer[at - 1] !== CR) throw new HttpError(400, "line feed without carriage return");
    if (buffer[at - 2] === LF && buffer[at - 3] === CR) return at + 1;
  }
  return -1;
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  const letter = code | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}
