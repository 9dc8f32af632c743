import type { ContainerEngine } from "../runtime/engine.ts";
import type { Log } from "../runtime/log.ts";

/** How often garbage is looked for, milliseconds. */
export const GARBAGE_INTERVAL_MS = 600_000;

/** Collects garbage now and then again and again, one collection at a time, until disposed. */
export function collectPeriodically(
  engine: Pick<ContainerEngine, "collectGarbage">,
  options: { log: Log; intervalMs?: number },
): AsyncDisposable {
  const { log } = options;
  let running: Promise<void> | undefined;
  const collect = () => {
    running ??= engine.collectGarbage().then((report) => {
      if (Object.values(report).some((count) => count > 0)) log.info("garbage collected", { ...report });
    }).catch((error) => {
      log.warn("cannot collect garbage", { error: error instanceof Error ? error.message : String(error) });
    }).finally(() => running = undefined);
  };
  collect();
  const timer = setInterval(collect, options.intervalMs ?? GARBAGE_INTERVAL_MS);
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await running;
    },
  };
}
