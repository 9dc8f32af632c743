import { RuntimeError } from "../errors.ts";

/** Someone who waits for a shared piece of work. */
interface Waiter<P> {
  onProgress?: (progress: P) => void;
}

interface Flight<T, P> {
  result: Promise<T>;
  waiters: Set<Waiter<P>>;
  abort: AbortController;
}

/**
 * Work that is done once for all who ask for it under the same key at the same time. Each may leave by its own signal; the
 * work is aborted when the last has left, who then waits for it to clean up.
 */
export class Flights<T, P> {
  readonly #flights = new Map<string, Flight<T, P>>();

  async join(
    key: string,
    work: (options: { signal: AbortSignal; onProgress: (progress: P) => void }) => Promise<T>,
    options: Waiter<P> & { signal?: AbortSignal },
  ): Promise<T> {
    const canceled = () =>
      new RuntimeError("canceled", `Cannot wait for "${key}": canceled`, { cause: options.signal?.reason });
    if (options.signal?.aborted) throw canceled();
    // One that is being aborted is no longer joined: its end is awaited.
    let flight = this.#flights.get(key);
    while (flight?.abort.signal.aborted) {
      await flight.result.catch(() => undefined);
      flight = this.#flights.get(key);
    }
    flight ??= this.#start(key, work);
    const waiter = { onProgress: options.onProgress };
    flight.waiters.add(waiter);
    const { promise: left, reject: leave } = Promise.withResolvers<never>();
    const onAbort = () => leave(canceled());
    if (options.signal?.aborted) onAbort();
    options.signal?.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([flight.result, left]);
    } catch (error) {
      flight.waiters.delete(waiter);
      if (options.signal?.aborted && flight.waiters.size === 0) {
        flight.abort.abort(options.signal.reason);
        await flight.result.catch(() => undefined);
      }
      throw error;
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
      flight.waiters.delete(waiter);
    }
  }

  #start(
    key: string,
    work: (options: { signal: AbortSignal; onProgress: (progress: P) => void }) => Promise<T>,
  ): Flight<T, P> {
    const waiters = new Set<Waiter<P>>();
    const abort = new AbortController();
    const result = work({
      signal: abort.signal,
      onProgress: (progress) => waiters.forEach((waiter) => waiter.onProgress?.(progress)),
    }).finally(() => this.#flights.delete(key));
    result.catch(() => undefined);
    const flight = { result, waiters, abort };
    this.#flights.set(key, flight);
    return flight;
  }
}
