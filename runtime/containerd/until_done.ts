import { setTimeout as delay } from "node:timers/promises";
import { RuntimeError } from "../errors.ts";

/** How long clean-up waits for a containerd that is away, in milliseconds. */
export const CONTAINERD_ABSENCE_MS = 30_000;

/** Pauses between two tries meanwhile: the first, doubling to the last, in milliseconds. */
const RETRY_MS = { first: 20, last: 500 };

/** How {@linkcode untilDone} goes on. */
export interface UntilDoneOptions {
  signal?: AbortSignal;
  /** In milliseconds; {@linkcode CONTAINERD_ABSENCE_MS} by default. */
  absenceMs?: number;
}

/**
 * Runs idempotent work that must get done, again when containerd (or a shim that just died) does not answer, for at
 * most `absenceMs`.
 */
export async function untilDone<T>(work: () => Promise<T>, options: UntilDoneOptions = {}): Promise<T> {
  const { signal, absenceMs = CONTAINERD_ABSENCE_MS } = options;
  const endMs = performance.now() + absenceMs;
  for (let pauseMs = RETRY_MS.first;; pauseMs = Math.min(pauseMs * 2, RETRY_MS.last)) {
    try {
      return await work();
    } catch (error) {
      const isAway = error instanceof RuntimeError && error.code === "unavailable";
      if (!isAway || performance.now() > endMs || signal?.aborted) throw error;
    }
    await delay(pauseMs, undefined, { signal });
  }
}
