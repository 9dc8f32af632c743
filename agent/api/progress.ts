import type { CreateOptions } from "../../runtime/engine.ts";
import type { PullProgress } from "../../runtime/image/mod.ts";

/** How it goes, and at the end what came of it. */
export type ProgressEvent<T> =
  | { case: "pull"; value: PullProgress }
  | { case: "step"; value: string }
  | { case: "result"; value: T };

/** Steps kept for a reader that lags; blobs need no bound of their own, an image has few. */
const MAX_STEPS = 64;

/**
 * Runs work that tells how it goes, as a stream. A slow reader sees the newest state of each blob, not every change;
 * nothing queues up.
 */
export async function* streamProgress<T>(
  work: (report: Required<Pick<CreateOptions, "onPull" | "onStep">>) => Promise<T>,
): AsyncGenerator<ProgressEvent<T>> {
  const pulls = new Map<string, PullProgress>();
  const steps: string[] = [];
  let wake = () => {};
  let isDone = false;
  const result = work({
    onPull(progress) {
      pulls.set(progress.digest, progress);
      wake();
    },
    onStep(step) {
      if (steps.length < MAX_STEPS) steps.push(step);
      wake();
    },
  }).finally(() => {
    isDone = true;
    wake();
  });
  // The failure is thrown below, by await; until then nobody listens.
  result.catch(() => {});
  for (;;) {
    for (const [digest, value] of pulls) {
      pulls.delete(digest);
      yield { case: "pull", value };
    }
    while (steps.length > 0) yield { case: "step", value: steps.shift()! };
    if (pulls.size > 0 || steps.length > 0) continue;
    if (isDone) break;
    await new Promise<void>((resolve) => wake = resolve);
  }
  yield { case: "result", value: await result };
}
