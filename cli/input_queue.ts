/** Messages that may wait for the network; a producer that is quicker waits. */
export const MAX_QUEUED_INPUTS = 64;

/** What goes to the agent during a session, from several producers, as one bounded async iterable. */
export class InputQueue<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  /** One place for each kind, so that they are as few as there are kinds. */
  readonly #urgent = new Map<string, T>();
  #closed = false;
  #wakeReader: () => void = () => {};
  #wakeWriters: (() => void)[] = [];

  /** Waits for room; comes out in order. False when the queue has been closed. */
  async push(item: T): Promise<boolean> {
    while (!this.#closed && this.#items.length >= MAX_QUEUED_INPUTS) {
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
    }
    if (this.#closed) return false;
    this.#items.push(item);
    this.#wakeReader();
    return true;
  }

  /**
   * Puts an item ahead of what was pushed, however much that is; it takes the place of one of its kind that still waits,
   * as a newer window size or the same signal again does. Says whether there was one. After the close it is dropped.
   */
  urge(kind: string, item: T): boolean {
    if (this.#closed) return false;
    const isRepeated = this.#urgent.has(kind);
    this.#urgent.set(kind, item);
    this.#wakeReader();
    return isRepeated;
  }

  /** What waits is still read; nothing more goes in. */
  close(): void {
    this.#closed = true;
    this.#wakeReader();
    this.#releaseWriters();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    while (true) {
      const [urgent] = this.#urgent;
      if (urgent !== undefined) {
        this.#urgent.delete(urgent[0]);
        yield urgent[1];
      } else if (this.#items.length > 0) {
        const item = this.#items.shift()!;
        this.#releaseWriters();
        yield item;
      } else if (this.#closed) {
        return;
      } else {
        await new Promise<void>((resolve) => this.#wakeReader = resolve);
      }
    }
  }

  #releaseWriters(): void {
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }
}
