/** Lets one at a time do something with each key, in the order they came. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Keys someone holds or waits for. */
  get size(): number {
    return this.#tails.size;
  }

  /** Resolves when it is the caller's turn, which lasts until the result is disposed. Throws when aborted before. */
  async acquire(key: string, signal?: AbortSignal): Promise<Disposable> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#tails.get(key) ?? Promise.resolve();
    const mine = before.then(() => promise);
    this.#tails.set(key, mine);
    const release = () => {
      resolve();
      if (this.#tails.get(key) === mine) this.#tails.delete(key);
    };
    await before;
    if (signal?.aborted) {
      release();
      throw signal.reason;
    }
    return { [Symbol.dispose]: release };
  }
}
