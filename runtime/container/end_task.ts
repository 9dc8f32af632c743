import { setTimeout as delay } from "node:timers/promises";
import { type Process, Status } from "../../proto/gen/containerd/v1/types/task_pb.ts";
import { NO_TIMEOUT } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import { RuntimeError } from "../errors.ts";
import { type EngineContext, findTask, isAlive } from "./context.ts";
import { untilDone } from "../containerd/until_done.ts";

/** How a task is ended. */
export interface EndTaskOptions {
  /** Number of the signal that asks it to stop. */
  stopSignal: number;
  /** Time between that signal and SIGKILL; zero means SIGKILL at once. */
  graceMs: number;
  /** Called when the process has ended and its task is still there; must not fail. */
  beforeDelete?: () => Promise<void>;
  signal?: AbortSignal;
}

/** How long a process may take to go after SIGKILL, in milliseconds. */
export const KILL_TIMEOUT_MS = 10_000;

/** How often a task is ended anew when it is found in yet another state. */
const MAX_ROUNDS = 5;

const SIGKILL = 9;

type TaskContext = Pick<EngineContext, "client" | "log" | "absenceMs">;

/**
 * Ends the container's task and deletes it: stop signal, grace, SIGKILL, wait by containerd's own wait. Does nothing
 * when there is none. Rides out a restart of containerd, a shim that dies meanwhile, and runtimes (gVisor) that report
 * an error although the task is gone: what counts is what a second look finds.
 */
export async function endTask(context: TaskContext, id: string, options: EndTaskOptions): Promise<void> {
  const killAtMs = performance.now() + options.graceMs;
  await untilDone(async () => {
    let failure: unknown;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const process = await findTask(context, id, options.signal);
      if (process === undefined) return;
      if (isAlive(process)) await stopProcess(context, id, { process, killAtMs, ...options });
      await options.beforeDelete?.();
      try {
        await context.client.tasks.delete({ containerId: id }, { signal: options.signal });
        return;
      } catch (error) {
        if (isNotFound(error)) return;
        if (isFatal(error)) throw error;
        failure = error;
      }
    }
    throw failure;
  }, { signal: options.signal, absenceMs: context.absenceMs });
}

async function stopProcess(
  context: TaskContext,
  id: string,
  options: EndTaskOptions & { process: Process; killAtMs: number },
): Promise<void> {
  const { process, signal } = options;
  const waiting = new AbortController();
  const exited = waitForExit(context, id, AbortSignal.any([waiting.signal, ...(signal ? [signal] : [])]));
  const endsWithin = (ms: number) => settlesWithin(exited, ms, signal);
  try {
    if (process.status === Status.PAUSED || process.status === Status.PAUSING) {
      // A frozen process takes no signal, SIGKILL included.
      await tolerate(context.client.tasks.resume({ containerId: id }, { signal }));
    }
    const graceMs = options.killAtMs - performance.now();
    if (graceMs > 0 && process.status !== Status.CREATED) {
      await kill(context, id, { number: options.stopSignal, signal });
      if (await endsWithin(graceMs)) return;
    }
    await kill(context, id, { number: SIGKILL, signal });
    if (await endsWithin(KILL_TIMEOUT_MS)) return;
    context.log.warn("a runtime does not end its container, killing the process itself", {
      id,
      pid: process.pid,
    });
    if (await killDirectly(context, id, process.pid) && await endsWithin(KILL_TIMEOUT_MS)) return;
  } finally {
    waiting.abort();
    await exited.catch(() => {});
  }
  throw new RuntimeError("failed", `Cannot stop container "${id}": process ${process.pid} survives SIGKILL`);
}

async function waitForExit(context: TaskContext, id: string, signal: AbortSignal): Promise<void> {
  try {
    await context.client.tasks.wait({ containerId: id }, { timeoutMs: NO_TIMEOUT, signal });
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

async function kill(
  context: TaskContext,
  id: string,
  options: { number: number; signal?: AbortSignal },
): Promise<void> {
  await tolerate(
    context.client.tasks.kill({ containerId: id, signal: options.number }, { signal: options.signal }),
  );
}

/** Lets pass what a runtime says about a process that is not there (any more): the caller looks for itself. */
async function tolerate(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (isFatal(error)) throw error;
  }
}

/** Whether an error says something of the call and not of the task. */
function isFatal(error: unknown): boolean {
  return !(error instanceof RuntimeError) || ["unavailable", "canceled", "timeout"].includes(error.code);
}

/** SIGKILL past the runtime; only a process that still is in the container's cgroup. */
async function killDirectly(context: TaskContext, id: string, pid: number): Promise<boolean> {
  if (pid <= 1) return false;
  try {
    const groups = (await Deno.readTextFile(`/proc/${pid}/cgroup`)).split("\n");
    if (!groups.some((line) => line.split("/").includes(id))) return false;
    Deno.kill(pid, "SIGKILL");
    return true;
  } catch (error) {
    context.log.debug("the process is gone", { id, pid, error: String(error) });
    return true;
  }
}

async function settlesWithin(promise: Promise<void>, ms: number, signal?: AbortSignal): Promise<boolean> {
  const timer = new AbortController();
  const scope = AbortSignal.any([timer.signal, ...(signal ? [signal] : [])]);
  try {
    return await Promise.race([
      promise.then(() => true),
      delay(ms, false, { signal: scope }).catch(() => false),
    ]);
  } finally {
    timer.abort();
  }
}
