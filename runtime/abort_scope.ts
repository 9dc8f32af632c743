/**
 * A signal for one piece of work: aborts with the first of its sources, or after a time, until it is disposed. Unlike
 * `AbortSignal.any` and `AbortSignal.timeout` it leaves nothing behind: no entry in a source that lives as long as the
 * program, and no timer.
 *
 * @example
 * ```ts
 * import { AbortScope } from "./abort_scope.ts";
 *
 * const closing = new AbortController();
 * using scope = new AbortScope([closing.signal, undefined], { timeoutMs: 1000 });
 * scope.signal.throwIfAborted();
 * ```
 */
export class AbortScope implements Disposable {
  readonly #controller = new AbortController();
  readonly #sources: readonly AbortSignal[];
  readonly #timer: ReturnType<typeof setTimeout> | undefined;

  /** Sources that are `undefined` never abort; without `timeoutMs` there is no time limit. */
  constructor(sources: readonly (AbortSignal | undefined)[], options: { timeoutMs?: number } = {}) {
    this.#sources = sources.filter((source) => source !== undefined);
    const { timeoutMs } = options;
    if (timeoutMs !== undefined) this.#timer = setTimeout(this.#expire, timeoutMs);
    for (const source of this.#sources) source.addEventListener("abort", this.#abort, { once: true });
    if (this.#sources.some((source) => source.aborted)) this.#abort();
  }

  /** Aborts with the reason of the source, or a `TimeoutError`. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on nothing aborts it. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const source of this.#sources) source.removeEventListener("abort", this.#abort);
  }

  readonly #abort = () => {
    this[Symbol.dispose]();
    this.#controller.abort(this.#sources.find((source) => source.aborted)?.reason);
  };

  readonly #expire = () => {
    this[Symbol.dispose]();
    this.#controller.abort(new DOMException("The time is up", "TimeoutError"));
  };
}
