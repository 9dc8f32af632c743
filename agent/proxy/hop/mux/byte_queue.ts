import type { BufferPool } from "../../buffers.ts";

/** Bytes that wait for their reader, in buffers of a pool: one at least while there are any, however they came. */
export class ByteQueue {
  /** How many there are. */
  length = 0;
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  /** Of the first buffer, what has been read; of the last, where it is filled to. */
  #start = 0;
  #end = 0;

  constructor(private readonly pool: Pick<BufferPool, "takeSmall" | "give">) {}

  /** Appends a copy. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      let last = this.#buffers.at(-1);
      if (last === undefined || this.#end === last.length) {
        this.#buffers.push(last = this.pool.takeSmall());
        this.#end = 0;
      }
      const count = Math.min(bytes.length - at, last.length - this.#end);
      last.set(count === bytes.length ? bytes : bytes.subarray(at, at + count), this.#end);
      this.#end += count;
      at += count;
    }
    this.length += bytes.length;
  }

  /** Moves as many as there are and fit; how many. */
  shift(into: Uint8Array): number {
    let moved = 0;
    while (moved < into.length && this.length > 0) {
      const [first] = this.#buffers;
      const end = this.#buffers.length === 1 ? this.#end : first.length;
      const count = Math.min(end - this.#start, into.length - moved);
      into.set(first.subarray(this.#start, this.#start + count), moved);
      moved += count;
      this.length -= count;
      this.#start += count;
      if (this.#start === end) this.#drop();
    }
    return moved;
  }

  clear(): void {
    while (this.#buffers.length > 0) this.#drop();
    this.length = 0;
  }

  #drop(): void {
    this.pool.give(this.#buffers.shift()!);
    this.#start = 0;
  }
}
