/** A piece of output and where it came from. */
export interface OutputChunk {
  stream: "stdout" | "stderr";
  data: Uint8Array;
}

/** Bytes a queue holds before whoever fills it has to wait. */
export const OUTPUT_HIGH_WATER_BYTES = 256 << 10;

/** Output on its way from a process to the one who reads it: one consumer, producers that wait while it is full. */
export class OutputQueue implements AsyncIterable<OutputChunk> {
  readonly #chunks: OutputChunk[] = [];
  readonly #roomWaiters = new Set<() => void>();
  #dataWaiter: (() => void) | undefined;
  #bytes = 0;
  #closed = false;
  #unbounded = false;
  #error: unknown;

  /** Bytes that wait for the consumer. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Resolves when there is room for more. What comes after `close` is dropped. */
  async push(chunk: OutputChunk): Promise<void> {
    if (this.#closed) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.data.length;
    this.#dataWaiter?.();
    while (this.#bytes > OUTPUT_HIGH_WATER_BYTES && !this.#unbounded && !this.#closed) {
      await new Promise<void>((resolve) => this.#roomWaiters.add(resolve));
    }
  }

  /** From now on nobody waits for room: the producer has a bound of its own. */
  lift(): void {
    this.#unbounded = true;
    this.#wakeProducers();
  }

  /** Nothing more comes; what is queued can still be read. */
  close(error?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#dataWaiter?.();
    this.#wakeProducers();
  }

  /** Drops what is queued, and closes. */
  discard(): void {
    this.#chunks.length = 0;
    this.#bytes = 0;
    this.close();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk) {
        this.#bytes -= chunk.data.length;
        if (this.#bytes <= OUTPUT_HIGH_WATER_BYTES) this.#wakeProducers();
        yield chunk;
        continue;
      }
      if (this.#closed) {
        if (this.#error !== undefined) throw this.#error;
        return;
      }
      await new Promise<void>((resolve) => this.#dataWaiter = resolve);
      this.#dataWaiter = undefined;
    }
  }

  #wakeProducers(): void {
    for (const wake of this.#roomWaiters) wake();
    this.#roomWaiters.clear();
  }
}
