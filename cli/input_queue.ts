/** Messages that may wait for the network; a producer that is quicker waits. */
export const MAX_QUEUED_INPUTS = 64;

/** What goes to the agent during a session, from several producers in order, as one bounded async iterable. */
export class InputQueue<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  #closed = false;
  #wakeReader: () => void = () => {};
  #wakeWriters: (() => void)[] = [];

  /** Waits for room. False when the queue has been closed. */
  async push(item: T): Promise<boolean> {
    while (!this.#closed && this.#items.length >= MAX_QUEUED_INPUTS) {
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
    }
    return this.offer(item);
  }

  /** Drops the item when there is no room: for what a later one replaces, such as a window size. */
  offer(item: T): boolean {
    if (this.#closed || this.#items.length >= MAX_QUEUED_INPUTS) return false;
    this.#items.push(item);
    this.#wakeReader();
    return true;
  }

  /** What waits is still read; nothing more goes in. */
  close(): void {
    this.#closed = true;
    this.#wakeReader();
    this.#releaseWriters();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    while (true) {
      const item = this.#items.shift();
      if (item !== undefined) {
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
