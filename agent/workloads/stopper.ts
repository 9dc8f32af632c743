import { RuntimeError } from "../../runtime/errors.ts";
import { planRestart } from "./backoff.ts";
import { reasonOf, type WorkloadContext } from "./context.ts";
import { STOPPING_LABELS } from "./labels.ts";
import { DEFAULT_GRACE_MS } from "./limits.ts";
import type { Workload } from "./workload.ts";

/**
 * Stops and removes a workload: the route goes first, requests in flight get a moment, then the container. A stop that
 * has begun is carried on until the container is gone, by this agent or by the next one; callers join it.
 */
export function stopWorkload(
  context: WorkloadContext,
  workload: Workload,
  options: { graceMs?: number } = {},
): Promise<void> {
  return workload.stopping ??= carryOut(context, workload, options.graceMs ?? DEFAULT_GRACE_MS);
}

async function carryOut(context: WorkloadContext, workload: Workload, graceMs: number): Promise<void> {
  const { engine, drainMs, log } = context.options;
  const { id } = workload;
  const wasRouted = workload.routable.address !== undefined && workload.spec.ports.length > 0;
  workload.setTimer(undefined);
  workload.enter("stopping");
  workload.abort.abort(new RuntimeError("canceled", `Cannot start workload "${id}": it is being stopped`));
  try {
    await context.queue.run(id, async () => {
      await Promise.all([markStopping(context, workload), context.syncRoutes()]);
      if (wasRouted) await pause(context, drainMs);
      await engine.remove(id, { graceMs, signal: context.closing.signal });
    });
  } catch (error) {
    workload.stopping = undefined;
    workload.enter("stopping", reasonOf(error));
    if (!context.closing.signal.aborted) retryLater(context, workload, graceMs);
    throw error;
  }
  context.forget(workload);
  log.info("workload stopped", { id });
  context.emit("stopped", id, "stopped and removed");
}

async function markStopping({ options }: WorkloadContext, { id }: Workload): Promise<void> {
  try {
    await options.engine.setLabels(id, STOPPING_LABELS);
  } catch (error) {
    if (!(error instanceof RuntimeError && error.code === "not-found")) throw error;
  }
}

function retryLater(context: WorkloadContext, workload: Workload, graceMs: number): void {
  const { nowMs, setTimer } = context.options;
  const { delayMs, failures } = planRestart({ failures: workload.stopFailures, endedAtMs: nowMs() });
  workload.stopFailures = failures;
  workload.setTimer(setTimer(() => {
    context.background(
      "cannot stop a workload yet",
      workload.id,
      () => stopWorkload(context, workload, { graceMs }),
    );
  }, delayMs));
}

function pause({ options, closing }: WorkloadContext, delayMs: number): Promise<void> {
  if (closing.signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      cancel();
      closing.signal.removeEventListener("abort", end);
      resolve();
    };
    const cancel = options.setTimer(end, delayMs);
    closing.signal.addEventListener("abort", end);
  });
}
