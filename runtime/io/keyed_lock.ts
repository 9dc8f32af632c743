/** Lets one at a time do something with each key, in the order they came. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Keys someone holds or waits for. */
  get size(): number {
    return this.#tails.size;
  }

  /** Resolves when it is the caller's turn, which lasts until the result is disposed. Throws when aborted before. */
  async acquire(key: string, signal?: AbortSignal): Promise<Disposable> {
    const { promise: turnOver, resolve: endTurn } = Promise.withResolvers<void>();
    const before = this.#tails.get(key) ?? Promise.resolve();
    const mine = before.then(() => turnOver);
    this.#tails.set(key, mine);
    void mine.then(() => {
      if (this.#tails.get(key) === mine) this.#tails.delete(key);
    });
    const { promise: aborted, reject: giveUp } = Promise.withResolvers<never>();
    const onAbort = () => giveUp(signal!.reason);
    try {
      signal?.throwIfAborted();
      signal?.addEventListener("abort", onAbort, { once: true });
      await Promise.race([before, aborted]);
    } catch (error) {
      endTurn();
      throw error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
    return { [Symbol.dispose]: endTurn };
  }
}
