import { create } from "@bufbuild/protobuf";
import {
  type Offer,
  OfferSchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { planRestart } from "../../agent/workloads/backoff.ts";
import type { Random } from "../../gossip/random.ts";

/** What a node starts, and all that its labels would say. */
export interface Record {
  id: string;
  request: VmSpawnRequest;
  generation: bigint;
  restarts: number;
  createdAtMs: bigint;
}

/** One container of the simulated runtime. */
export interface SimWorkload extends Record {
  status: "starting" | "running" | "backing-off" | "stopping";
  startedAtMs: number;
  failures: number;
  /** Counts its changes: what was set off before is void. */
  version: number;
  /** Known as started once: it survives the agent. */
  isComplete: boolean;
  onRunning?: (error?: Error) => void;
  stateOf?: { version: number; state: WorkloadState };
}

/** What {@linkcode SimRuntime} stands on. */
export interface SimRuntimeOptions {
  memoryMiB: number;
  random: Random;
  /** World time, milliseconds. */
  nowMs: () => number;
  after: (delayMs: number, run: () => void) => void;
  /** Wall time of this node. */
  wallMs: () => number;
  /** Something changed that states tell. */
  onChange: () => void;
  /** Restarts keep the generation: a broken build. */
  keepsGeneration?: boolean;
}

const STOP_MS = 300;

/** containerd and the one-node manager in one, in memory: containers that start, die, are started again and stop. */
export class SimRuntime {
  readonly workloads = new Map<string, SimWorkload>();
  /** No start succeeds before this time. */
  brokenUntilMs = 0;
  /** When each id ran last here. */
  readonly ranMs = new Map<string, number>();
  readonly #options: SimRuntimeOptions;
  #isSupervised = false;

  constructor(options: SimRuntimeOptions) {
    this.#options = options;
  }

  get memoryMiB(): number {
    return this.#options.memoryMiB;
  }

  get usedMiB(): number {
    let used = 0;
    for (const { request } of this.workloads.values()) used += request.memory;
    return used;
  }

  /** Whether a container of this id runs. */
  isRunning(id: string): boolean {
    return this.workloads.get(id)?.status === "running";
  }

  /** The agent is there: it takes up what is there. */
  supervise(): void {
    this.#isSupervised = true;
    for (const workload of [...this.workloads.values()]) {
      if (!workload.isComplete) this.workloads.delete(workload.id);
      else if (workload.status === "stopping") this.#finishStop(workload);
      else if (workload.status !== "running") this.#backOff(workload);
    }
  }

  /** The agent is gone; containers run on. */
  abandon(): void {
    this.#isSupervised = false;
    for (const workload of this.workloads.values()) {
      if (workload.status === "starting" && workload.isComplete) workload.status = "backing-off";
      workload.onRunning = undefined;
      workload.version++;
    }
  }

  /** The machine went down: nothing runs any more, the records stay. */
  halt(): void {
    this.abandon();
    for (const workload of this.workloads.values()) {
      if (workload.status === "running") workload.status = "backing-off";
    }
  }

  offer(request: VmSpawnRequest): Offer | string {
    const freeMiB = this.memoryMiB - this.usedMiB;
    if (request.memory > freeMiB) return `${request.memory} MiB are asked for, ${freeMiB} are left`;
    let sameImage = 0;
    for (const each of this.workloads.values()) if (each.request.imageRef === request.imageRef) sameImage++;
    return create(OfferSchema, {
      freeMemoryBytes: BigInt(freeMiB) << 20n,
      sameImage,
      workloads: this.workloads.size,
    });
  }

  /** One that runs already. */
  adopt(record: Record): void {
    const rest = { startedAtMs: 1, failures: 0, version: 0, isComplete: true };
    this.workloads.set(record.id, { ...record, ...rest, status: "running" });
  }

  /** Starts it; `done` says when it runs, or why not. */
  place(record: Record, done: (error?: Error) => void): void {
    const offer = this.offer(record.request);
    if (typeof offer === "string") return done(new Error(offer));
    if (this.workloads.has(record.id)) return done(new Error("it has this id already"));
    const workload: SimWorkload = {
      ...record,
      status: "starting",
      startedAtMs: 0,
      failures: 0,
      version: 0,
      isComplete: false,
      onRunning: done,
    };
    this.workloads.set(record.id, workload);
    this.#changed(workload);
    this.#start(workload);
  }

  /** Ends it; `done` when it is gone. Nothing happens where it is not there. */
  stop(id: string, done: () => void = () => {}): void {
    const workload = this.workloads.get(id);
    if (workload === undefined) return done();
    if (workload.status !== "stopping") {
      workload.status = "stopping";
      workload.onRunning?.(new Error("it was stopped while it started"));
      workload.onRunning = undefined;
      workload.version++;
      this.#changed(workload);
      this.#finishStop(workload);
    }
    this.#options.after(STOP_MS + 50, done);
  }

  /** A container ends by itself. */
  die(id: string): void {
    const workload = this.workloads.get(id);
    if (workload?.status !== "running") return;
    this.ranMs.set(id, this.#options.nowMs());
    if (this.#isSupervised) this.#backOff(workload);
    else workload.status = "backing-off";
  }

  /** What the node tells of its workloads; unchanged ones are the same objects. */
  states(): WorkloadState[] {
    return Array.from(this.workloads.values(), (workload) => {
      if (workload.stateOf?.version === workload.version) return workload.stateOf.state;
      const { id, request, generation, restarts, createdAtMs, status } = workload;
      const state = create(WorkloadStateSchema, {
        id,
        sourceRequest: create(VmSpawnRequestSchema, { ...request, env: request.env.map(redact) }),
        status,
        generation,
        restarts,
        createdAtMs,
        startedAtMs: BigInt(workload.startedAtMs),
        url: `http://${id}.example`,
      });
      workload.stateOf = { version: workload.version, state };
      return state;
    });
  }

  #start(workload: SimWorkload): void {
    const { random, after } = this.#options;
    const { version } = workload;
    after(50 + random.float() * 1_500, () => {
      if (workload.version !== version || this.workloads.get(workload.id) !== workload) return;
      if (this.#options.nowMs() < this.brokenUntilMs) return this.#startFailed(workload);
      workload.status = "running";
      workload.isComplete = true;
      workload.startedAtMs = Math.round(this.#options.wallMs());
      this.#changed(workload);
      workload.onRunning?.();
      workload.onRunning = undefined;
    });
  }

  #startFailed(workload: SimWorkload): void {
    if (workload.isComplete) return this.#backOff(workload);
    this.workloads.delete(workload.id);
    this.#changed(workload);
    workload.onRunning?.(new Error("containerd does not start anything"));
  }

  #backOff(workload: SimWorkload): void {
    const { after, wallMs } = this.#options;
    const plan = planRestart({
      failures: workload.failures,
      startedAtMs: workload.startedAtMs || undefined,
      endedAtMs: wallMs(),
    });
    workload.failures = plan.failures;
    workload.status = "backing-off";
    this.#changed(workload);
    const { version } = workload;
    after(Math.min(plan.delayMs, 20_000), () => {
      if (workload.version !== version || this.workloads.get(workload.id) !== workload) return;
      workload.status = "starting";
      if (!this.#options.keepsGeneration) workload.generation++;
      workload.restarts++;
      this.#changed(workload);
      this.#start(workload);
    });
  }

  #finishStop(workload: SimWorkload): void {
    const { version } = workload;
    this.#options.after(STOP_MS, () => {
      if (workload.version !== version || this.workloads.get(workload.id) !== workload) return;
      this.workloads.delete(workload.id);
      this.#changed(workload);
    });
  }

  #changed(workload: SimWorkload): void {
    workload.version++;
    this.ranMs.set(workload.id, this.#options.nowMs());
    this.#options.onChange();
  }
}

function redact(entry: string): string {
  return `${entry.split("=", 1)[0]}=***`;
}
