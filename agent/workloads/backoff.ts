/** Pause before the first restart, milliseconds. */
export const BACKOFF_FIRST_MS = 1_000;
/** Longest pause, milliseconds. */
export const BACKOFF_MAX_MS = 300_000;
/** A workload that ran this long starts again with the first pause, milliseconds. */
export const BACKOFF_RESET_MS = 600_000;

/** One ended run, or a start that failed (`startedAtMs` absent). */
export interface EndedRun {
  /** Consecutive short runs and failed starts before this one. */
  failures: number;
  startedAtMs?: number;
  endedAtMs: number;
}

/** When to start again, and the count of failures to remember with it. */
export interface RestartPlan {
  failures: number;
  delayMs: number;
  restartAtMs: number;
}

/** The pause after an ended run: 1 s, doubling to 5 min; after a run of 10 min it begins anew. */
export function planRestart(run: EndedRun): RestartPlan {
  const upMs = run.startedAtMs === undefined ? 0 : run.endedAtMs - run.startedAtMs;
  const before = upMs >= BACKOFF_RESET_MS ? 0 : run.failures;
  const delayMs = Math.min(BACKOFF_FIRST_MS * 2 ** Math.min(before, 30), BACKOFF_MAX_MS);
  return { failures: before + 1, delayMs, restartAtMs: run.endedAtMs + delayMs };
}
