import type { ContainerEvent, ContainerInfo } from "../../runtime/engine.ts";
import { AbortScope } from "../../runtime/abort_scope.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { planRestart } from "./backoff.ts";
import { reasonOf, type WorkloadContext } from "./context.ts";
import { encodeState, type WorkloadRecord } from "./labels.ts";
import { parseSpawn } from "./parse_spawn.ts";
import { type Action, reconcile } from "./reconcile.ts";
import { stopWorkload } from "./stopper.ts";
import { Workload } from "./workload.ts";

/** Pause after the event stream or a comparison failed, milliseconds. */
export const RETRY_MS = 1_000;

/** An ended run: what is known of it. */
interface Ending {
  exitCode?: number;
  atMs: number;
}

/**
 * Keeps the workloads as they were asked for: restarts what ended, on containerd's events and never by polling, and
 * brings belief and containerd together at start and whenever events may have been missed.
 */
export class Caretaker {
  readonly #context: WorkloadContext;
  #isFirstPass = true;

  constructor(context: WorkloadContext) {
    this.#context = context;
  }

  /** Watches until the agent closes; `onReady` is called after the first comparison that succeeded. */
  async run(onReady: () => void): Promise<void> {
    const { closing, options: { engine, log } } = this.#context;
    while (!closing.signal.aborted) {
      try {
        for await (const event of engine.watch(closing.signal)) {
          await this.#handle(event);
          if (event.type === "resync") onReady();
        }
      } catch (error) {
        if (closing.signal.aborted) return;
        log.warn("the event stream broke, opening it again", { error: reasonOf(error) });
      }
      if (!closing.signal.aborted) await this.#pause();
    }
  }

  async #handle(event: ContainerEvent): Promise<void> {
    if (event.type === "resync") return await this.#reconcile();
    const { id } = event;
    const context = this.#context;
    if (!context.workloads.has(id)) return;
    if (event.type === "oom") return context.emit("oom-killed", id, "out of memory");
    context.background("cannot handle the end of a container", id, () => {
      return context.queue.run(id, () => this.#exited(event));
    });
  }

  async #exited(event: ContainerEvent & { type: "exit" }): Promise<void> {
    const workload = this.#context.workloads.get(event.id);
    if (workload?.phase !== "running" || workload.container?.pid !== event.pid) return;
    await this.#ended(workload, event);
  }

  /** Its run is over: withdraws its route and plans the next start. */
  async #ended(workload: Workload, ending: Ending): Promise<void> {
    const { options: { nowMs, log } } = this.#context;
    const { id, record } = workload;
    const plan = planRestart({ ...record, endedAtMs: ending.atMs });
    const exit = ending.exitCode === undefined ? "its task is gone" : `exit code ${ending.exitCode}`;
    workload.record = { ...record, failures: plan.failures, exitCode: ending.exitCode ?? record.exitCode };
    workload.enter("backing-off", `ended: ${exit}`);
    const delayMs = Math.max(0, plan.restartAtMs - nowMs());
    log.info("workload ended, starting it again", { id, exitCode: ending.exitCode, delayMs });
    this.#context.emit("exited", id, exit);
    this.#restartIn(workload, delayMs);
    await this.#context.syncRoutes();
  }

  #restartIn(workload: Workload, delayMs: number): void {
    const context = this.#context;
    context.emit("restart-scheduled", workload.id, `in ${Math.ceil(delayMs / 1000)} s`);
    workload.setTimer(context.options.setTimer(() => {
      context.background("cannot restart a workload", workload.id, () => {
        return context.queue.run(workload.id, () => this.#restart(workload));
      });
    }, delayMs));
  }

  async #restart(workload: Workload): Promise<void> {
    const { closing, options: { engine, nowMs, observe }, starts } = this.#context;
    if (workload.phase !== "backing-off" || closing.signal.aborted) return;
    workload.enter("starting", workload.reason);
    const { record } = workload;
    const next: WorkloadRecord = {
      ...record,
      generation: record.generation + 1,
      restarts: record.restarts + 1,
      startedAtMs: nowMs(),
    };
    using scope = new AbortScope([workload.abort.signal, closing.signal]);
    const { signal } = scope;
    try {
      using _place = await starts.acquire(signal);
      const container = await engine.restart(workload.id, { signal, labels: encodeState(next) });
      if (signal.aborted) return;
      workload.run(container, next);
    } catch (error) {
      return this.#restartFailed(workload, error);
    }
    observe?.({ kind: "restart" });
    this.#context.emit("started", workload.id, `restart ${next.restarts}`);
    await this.#context.syncRoutes();
  }

  async #restartFailed(workload: Workload, error: unknown): Promise<void> {
    const context = this.#context;
    if (workload.phase !== "starting" || context.closing.signal.aborted) return;
    const code = error instanceof RuntimeError ? error.code : "failed";
    if (code === "not-found" && !(await this.#exists(workload.id))) return context.forget(workload);
    // containerd being away is not the workload's fault: it costs no longer pause.
    const { failures } = workload.record;
    const plan = planRestart({
      failures: code === "unavailable" ? 0 : failures,
      endedAtMs: context.options.nowMs(),
    });
    if (code !== "unavailable") workload.record = { ...workload.record, failures: plan.failures };
    workload.enter("backing-off", reasonOf(error));
    context.options.log.warn("cannot restart a workload", { id: workload.id, error: reasonOf(error) });
    context.emit("failed", workload.id, "the restart failed");
    this.#restartIn(workload, plan.delayMs);
  }

  async #exists(id: string): Promise<boolean> {
    try {
      await this.#context.options.engine.get(id);
      return true;
    } catch (error) {
      return !(error instanceof RuntimeError && error.code === "not-found");
    }
  }

  // ---- Comparison of belief and containerd.

  async #reconcile(): Promise<void> {
    const { workloads, queue, options: { engine } } = this.#context;
    const before = new Map([...workloads.values()].map((workload) => [workload.id, workload.version]));
    const beliefs = [...workloads.values()].map((workload) => {
      return workload.belief(workload.phase === "starting" || queue.isBusy(workload.id));
    });
    const actions = reconcile(await engine.list(), beliefs);
    const isFirst = this.#isFirstPass;
    this.#isFirstPass = false;
    await Promise.all(actions.map(async (action) => {
      const id = "id" in action ? action.id : action.container.id;
      const isCurrent = () => workloads.get(id)?.version === before.get(id);
      await queue.run(id, () => isCurrent() ? this.#act(action, { isFirst }) : Promise.resolve())
        .catch((error) => this.#actionFailed(id, action, error));
    }));
    await this.#context.syncRoutes();
  }

  #actionFailed(id: string, action: Action, error: unknown): void {
    if (this.#context.closing.signal.aborted) return;
    this.#context.options.log.error("cannot bring a workload in line", {
      id,
      action: action.kind,
      error: reasonOf(error),
    });
  }

  async #act(action: Action, pass: { isFirst: boolean }): Promise<void> {
    const context = this.#context;
    const { engine, log, nowMs } = context.options;
    switch (action.kind) {
      case "report":
        return log.error("a container is left alone", { id: action.id, reason: action.reason });
      case "remove":
        log.info("removing what an unfinished spawn left", { id: action.id });
        return await engine.remove(action.id, { graceMs: 0, signal: context.closing.signal });
      case "forget": {
        const workload = context.workloads.get(action.id)!;
        log.warn("a workload's container is gone", { id: action.id });
        context.forget(workload);
        return context.emit("stopped", action.id, "its container was removed by somebody else");
      }
      case "stop": {
        const workload = this.#know(action.container, action.record);
        // It waits for its turn in the queue, behind this very work.
        context.background("cannot stop a workload yet", workload.id, () => stopWorkload(context, workload));
        return;
      }
      case "run": {
        // What is unknown, and not from before this agent, may have been stopped since the list was made.
        if (!pass.isFirst && !(await this.#exists(action.container.id))) return;
        const workload = this.#know(action.container, action.record);
        workload.run(action.container, action.record);
        return log.info("workload adopted", { id: workload.id, pid: action.container.pid });
      }
      case "ended": {
        if (!pass.isFirst && !(await this.#exists(action.container.id))) return;
        const { exitCode, exitedAtMs } = action.container;
        const workload = this.#know(action.container, action.record);
        return await this.#ended(workload, { exitCode, atMs: exitedAtMs ?? nowMs() });
      }
    }
  }

  /** The workload of this container, entered in the books when it was not known. */
  #know(container: ContainerInfo, record: WorkloadRecord): Workload {
    const context = this.#context;
    const known = context.workloads.get(container.id);
    if (known !== undefined) return known;
    // Limits may have been tightened since it was spawned, and the node renamed; what runs is not judged again.
    const lenient = { reservedPorts: new Set<number>(), nodeName: record.request.node };
    const spec = parseSpawn(record.request, lenient);
    const workload = new Workload(container.id, spec, record, context.options.onChange);
    workload.container = container;
    context.workloads.set(container.id, workload);
    context.ledger.adopt(container.id, spec);
    return workload;
  }

  #pause(): Promise<void> {
    const { closing, options } = this.#context;
    return new Promise((resolve) => {
      const end = () => {
        cancel();
        closing.signal.removeEventListener("abort", end);
        resolve();
      };
      const cancel = options.setTimer(end, RETRY_MS);
      closing.signal.addEventListener("abort", end);
    });
  }
}
