import { MAX_CLOCK_STEP_MS } from "./limits.ts";

/**
 * Time in whole milliseconds that only goes forward, and never far at once. A clock that is set, or a machine that sleeps,
 * must not make everybody else look silent.
 */
export class SteadyClock {
  /** Milliseconds since an arbitrary beginning. */
  nowMs = 0;
  #wallMs: number | undefined;

  /** Takes the time of the outer clock; returns the steady one. */
  advance(outerMs: number): number {
    const wallMs = Math.floor(outerMs);
    if (this.#wallMs !== undefined) {
      this.nowMs += Math.min(Math.max(0, wallMs - this.#wallMs), MAX_CLOCK_STEP_MS);
    }
    this.#wallMs = wallMs;
    return this.nowMs;
  }

  /** The first whole millisecond of the outer clock at which this steady time is reached. */
  toWallMs(steadyMs: number): number {
    return (this.#wallMs ?? 0) + Math.ceil(steadyMs - this.nowMs);
  }
}
