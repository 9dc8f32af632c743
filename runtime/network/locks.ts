/** One at a time per key, and a bound on how many keys at once; waiters go in order. */
export class KeyedLocks {
  readonly #tails = new Map<string, Promise<void>>();
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(options: { maxConcurrent: number }) {
    this.#free = options.maxConcurrent;
  }

  /** Whether someone holds or awaits the key. */
  isBusy(key: string): boolean {
    return this.#tails.has(key);
  }

  /** Runs `work` alone under the key. */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#tails.set(key, promise);
    await before;
    await this.#acquire();
    try {
      return await work();
    } finally {
      this.#release();
      if (this.#tails.get(key) === promise) this.#tails.delete(key);
      resolve();
    }
  }

  async #acquire(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #release(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }
}
