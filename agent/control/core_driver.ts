import type { ClusterCore } from "../cluster/core.ts";
import type { ClusterEffect } from "../cluster/ports.ts";

/** Longest sleep; a clock that was set back must not silence the core. Milliseconds. */
const MAX_SLEEP_MS = 5_000;

/** Gives a core its inputs and the time, and has its effects done, in the order they come. */
export class CoreDriver implements Disposable {
  readonly #core: ClusterCore;
  readonly #perform: (effect: ClusterEffect) => void;
  readonly #waiting: ((nowMs: number) => ClusterEffect[])[] = [];
  #isBusy = false;
  #isDisposed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(core: ClusterCore, perform: (effect: ClusterEffect) => void) {
    this.#core = core;
    this.#perform = perform;
  }

  /** An input of the core; one that comes while effects are being done waits for its turn. */
  input(give: (nowMs: number) => ClusterEffect[]): void {
    if (this.#isDisposed) return;
    this.#waiting.push(give);
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        for (const effect of next(Date.now())) this.#perform(effect);
      }
    } finally {
      this.#isBusy = false;
    }
    this.#arm();
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    clearTimeout(this.#timer);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const delayMs = Math.min(MAX_SLEEP_MS, Math.max(1, this.#core.nextWakeMs() - Date.now()));
    this.#timer = setTimeout(() => this.input((nowMs) => this.#core.tick(nowMs)), delayMs);
  }
}
