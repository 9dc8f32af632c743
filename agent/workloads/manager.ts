import { RuntimeError } from "../../runtime/errors.ts";
import type { CreateOptions } from "../../runtime/engine.ts";
import type { VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Capacity, Usage } from "./admission.ts";
import { Caretaker } from "./caretaker.ts";
import { WorkloadContext, type WorkloadManagerOptions } from "./context.ts";
import type { WorkloadEvent } from "./events.ts";
import { MAX_GRACE_MS } from "./limits.ts";
import { applyNetworkPolicies } from "./network_policy.ts";
import { parseIdOrName } from "./parse_spawn.ts";
import { workloadUrl } from "./routes.ts";
import { dryRun, type Placement, spawnWorkload } from "./spawner.ts";
import { stopWorkload } from "./stopper.ts";
import type { Workload } from "./workload.ts";

/**
 * The workloads of this node: spawns, stops, restarts and routes them. containerd's records and labels are the only
 * durable store; an agent that starts again goes on where the last one stopped.
 */
export class WorkloadManager implements AsyncDisposable {
  readonly #context: WorkloadContext;
  #caring?: Promise<void>;

  constructor(options: WorkloadManagerOptions) {
    this.#context = new WorkloadContext(options);
  }

  /** Adopts what runs and starts watching; resolves when belief and containerd agree for the first time. */
  async start(signal: AbortSignal): Promise<void> {
    const ready = Promise.withResolvers<void>();
    const onAbort = () => ready.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#caring = new Caretaker(this.#context).run(ready.resolve);
    try {
      signal.throwIfAborted();
      await ready.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Answers whether this node would take it; creates nothing. Throws the reason when not. */
  dryRun(request: VmSpawnRequest): Promise<void> {
    return dryRun(this.#context, request);
  }

  /** Resolves when it runs and its routes are open. Throws {@linkcode RuntimeError}; nothing is left then. */
  spawn(request: VmSpawnRequest, options: CreateOptions & Placement = {}): Promise<Workload> {
    return spawnWorkload(this.#context, request, options);
  }

  /** Brings the network rules of what runs in line with the policies, after these have changed. */
  applyNetworkPolicies(): void {
    applyNetworkPolicies(this.#context);
  }

  /** Stops and removes it. Throws `not-found` for what does not run here. */
  stop(idOrName: string, options: { graceMs?: number } = {}): Promise<void> {
    const { graceMs } = options;
    if (graceMs !== undefined && graceMs > MAX_GRACE_MS) {
      throw new RuntimeError("invalid", `Cannot accept grace_ms "${graceMs}": at most ${MAX_GRACE_MS}`);
    }
    return stopWorkload(this.#context, this.get(idOrName), { graceMs });
  }

  /** By id or name. Throws `invalid` for what can be neither, `not-found` for what does not run here. */
  get(idOrName: string): Workload {
    const key = parseIdOrName(idOrName);
    const { workloads } = this.#context;
    const workload = workloads.get(key) ?? [...workloads.values()].find((each) => each.spec.name === key);
    if (workload !== undefined) return workload;
    throw new RuntimeError("not-found", `Cannot find workload "${key}": no such id or name on this node`);
  }

  /** By id; nothing when it is not here. */
  find(id: string): Workload | undefined {
    return this.#context.workloads.get(id);
  }

  /** Oldest first. */
  list(): Workload[] {
    const all = [...this.#context.workloads.values()];
    return all.sort((a, b) => a.record.createdAtMs - b.record.createdAtMs || (a.id < b.id ? -1 : 1));
  }

  /** Where it answers; empty when it exposes no port. */
  url({ id, spec: { ports } }: Workload): string {
    return workloadUrl({ id, ports }, this.#context.options.node);
  }

  /** Brings the proxy's routes up to date after those to other nodes changed. */
  syncRoutes(): Promise<void> {
    return this.#context.syncRoutes();
  }

  /** Events from now on. */
  watch(signal: AbortSignal): AsyncIterable<WorkloadEvent> {
    return this.#context.events.watch(AbortSignal.any([signal, this.#context.closing.signal]));
  }

  /** Readers of events that did not keep up, since the start. */
  get readersCutOff(): number {
    return this.#context.events.cutOff;
  }

  get capacity(): Capacity {
    return this.#context.ledger.capacity;
  }

  get usage(): Usage {
    return this.#context.ledger.usage;
  }

  /** Ends the agent's own work. Containers run on; the next agent adopts them. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { closing, workloads, queue, routes } = this.#context;
    closing.abort(new RuntimeError("canceled", "Cannot go on: the agent is stopping"));
    for (const workload of workloads.values()) workload.setTimer(undefined);
    await this.#caring;
    await queue.settled();
    await routes[Symbol.asyncDispose]();
    for (const workload of workloads.values()) workload.setTimer(undefined);
  }
}
