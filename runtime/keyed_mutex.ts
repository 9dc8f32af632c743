import { RuntimeError } from "./errors.ts";

/** Keys that are, or were since the watch began, busy; see {@linkcode KeyedMutex.watch}. */
export interface BusyKeys extends Disposable {
  readonly seen: Set<string>;
}

/** Lets one operation per key run at a time, in order of arrival; keys do not wait for each other. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>();
  readonly #watchers = new Set<Set<string>>();

  /** Resolves when no operation runs or waits. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values());
  }

  /**
   * Runs `work` when the key is free. Throws `canceled` when the signal aborts while waiting; a running `work` is not
   * interrupted. The watch `unseenBy` does not hear of it.
   */
  async run<T>(
    key: string,
    work: () => Promise<T>,
    options: { signal?: AbortSignal; unseenBy?: BusyKeys } = {},
  ): Promise<T> {
    const before = this.#tails.get(key);
    const { promise: done, resolve: release } = Promise.withResolvers<void>();
    const tail = before === undefined ? done : before.then(() => done);
    this.#tails.set(key, tail);
    for (const seen of this.#watchers) if (seen !== options.unseenBy?.seen) seen.add(key);
    try {
      if (before !== undefined) await settledOrAborted(before, key, options.signal);
      return await work();
    } finally {
      release();
      void tail.then(() => this.#tails.get(key) === tail && this.#tails.delete(key));
    }
  }

  /** A set of all keys that are busy now, and of those that become so until disposed. */
  watch(): BusyKeys {
    const seen = new Set(this.#tails.keys());
    this.#watchers.add(seen);
    return { seen, [Symbol.dispose]: () => void this.#watchers.delete(seen) };
  }
}

async function settledOrAborted(before: Promise<void>, key: string, signal?: AbortSignal): Promise<void> {
  if (signal === undefined) return await before;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () =>
    reject(new RuntimeError("canceled", `Cannot wait for "${key}": canceled`, { cause: signal.reason }));
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([before, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
