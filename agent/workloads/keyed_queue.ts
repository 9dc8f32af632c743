import { RuntimeError } from "../../runtime/errors.ts";

/** Runs work one at a time per key, in order of arrival; different keys run side by side. */
export class KeyedQueue {
  readonly #tails = new Map<string, { tail: Promise<unknown>; length: number }>();

  /** @param maxPerKey work that may run or wait for one key */
  constructor(readonly maxPerKey: number) {}

  /** Whether work runs or waits for this key. */
  isBusy(key: string): boolean {
    return this.#tails.has(key);
  }

  /** Runs it when its turn comes. Throws `exhausted` at once when too much waits already. */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const entry = this.#tails.get(key) ?? { tail: Promise.resolve(), length: 0 };
    if (entry.length >= this.maxPerKey) {
      throw new RuntimeError(
        "exhausted",
        `Cannot queue work for "${key}": ${entry.length} operations wait already`,
      );
    }
    entry.length++;
    this.#tails.set(key, entry);
    const run = entry.tail.then(work, work);
    entry.tail = run;
    try {
      return await run;
    } finally {
      if (--entry.length === 0) this.#tails.delete(key);
    }
  }

  /** Resolves when everything that runs or waits now has ended. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#tails.values()].map((entry) => entry.tail));
  }
}
