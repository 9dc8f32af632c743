import { fromBinary } from "@bufbuild/protobuf";
import { type Any, timestampMs } from "@bufbuild/protobuf/wkt";
import * as v1 from "../../proto/gen/containerd/cgroups/v1/metrics_pb.ts";
import * as v2 from "../../proto/gen/containerd/cgroups/v2/metrics_pb.ts";
import { isNotFound } from "../containerd/errors.ts";
import type { ContainerMetrics } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { type EngineContext, findTask } from "./context.ts";
import { processAgeMs } from "./process_age.ts";

/** Ended tasks whose last figures are remembered. */
export const MAX_LAST_METRICS = 4_096;
/** Deadline of one reading, milliseconds: a shim that hangs must not hold up the others. */
export const METRICS_TIMEOUT_MS = 5_000;

type Figures = Omit<ContainerMetrics, "atMs" | "pid" | "exitCode" | "isLast" | "ageMs">;

/** The figures of tasks: as of now, and the last ones of those that have ended. */
export class TaskMetrics {
  readonly #context: Pick<EngineContext, "client" | "log">;
  readonly #last = new Map<string, ContainerMetrics>();

  constructor(context: Pick<EngineContext, "client" | "log">) {
    this.#context = context;
  }

  /** Reads them from containerd, or gives the last known ones. Throws `not-found` when there never were any. */
  async read(id: string, signal?: AbortSignal): Promise<ContainerMetrics> {
    const fresh = await this.#readFresh(id, signal).catch((error) => {
      // Between the end of a process and the removal of its cgroup shims answer all kinds of errors.
      const last = this.#last.get(id);
      if (last === undefined || signal?.aborted) throw error;
      return last;
    });
    const metrics = fresh ?? this.#last.get(id);
    if (metrics !== undefined) return metrics;
    throw new RuntimeError("not-found", `Cannot measure container "${id}": it has no task`);
  }

  /** Remembers the last figures of a task that is about to be deleted; a failure costs no more than the figures. */
  async keepLast(id: string): Promise<void> {
    try {
      await this.#readFresh(id);
    } catch (error) {
      this.#context.log.debug("cannot read the last figures of a task", { id, error: String(error) });
    }
    const last = this.#last.get(id);
    if (last !== undefined) this.#remember(id, { ...last, isLast: true });
  }

  async #readFresh(id: string, signal?: AbortSignal): Promise<ContainerMetrics | undefined> {
    const { client } = this.#context;
    const options = { signal, timeoutMs: METRICS_TIMEOUT_MS };
    // The id is the engine's, so it can break no filter.
    const [{ metrics }, task] = await Promise.all([
      client.tasks.metrics({ filters: [`id==${id}`] }, options).catch((error) => {
        if (isNotFound(error)) return { metrics: [] };
        throw error;
      }),
      findTask(this.#context, id, signal),
    ]);
    const metric = metrics.find((each) => each.id === id);
    if (task === undefined) return undefined;
    const figures = metric?.data === undefined ? undefined : parseFigures(metric.data);
    const isStopped = task.exitedAt !== undefined && timestampMs(task.exitedAt) > 0;
    if (figures === undefined) return undefined;
    const read: ContainerMetrics = {
      ...figures,
      atMs: metric?.timestamp ? timestampMs(metric.timestamp) : 0,
      pid: task.pid,
      ...(isStopped ? { exitCode: task.exitStatus } : { ageMs: await processAgeMs(task.pid) }),
      isLast: isStopped,
    };
    this.#remember(id, read);
    return read;
  }

  #remember(id: string, metrics: ContainerMetrics): void {
    this.#last.delete(id);
    this.#last.set(id, metrics);
    if (this.#last.size > MAX_LAST_METRICS) this.#last.delete(this.#last.keys().next().value!);
  }
}

/** The figures in a containerd metric; nothing for a type that is not known. Throws what protobuf throws. */
export function parseFigures(data: Any): Figures | undefined {
  switch (data.typeUrl.slice(data.typeUrl.lastIndexOf("/") + 1)) {
    case v1.MetricsSchema.typeName:
      return figuresV1(fromBinary(v1.MetricsSchema, data.value));
    case v2.MetricsSchema.typeName:
      return figuresV2(fromBinary(v2.MetricsSchema, data.value));
    default:
      return undefined;
  }
}

function figuresV1({ cpu, memory, blkio, pids, memoryOomControl }: v1.Metrics): Figures {
  const io = (op: string) =>
    sum((blkio?.ioServiceBytesRecursive ?? []).filter((entry) => entry.op === op).map(({ value }) => value));
  return {
    cgroupVersion: 1,
    cpuUs: nanosToMicros(cpu?.usage?.total),
    cpuUserUs: nanosToMicros(cpu?.usage?.user),
    cpuKernelUs: nanosToMicros(cpu?.usage?.kernel),
    memoryBytes: toNumber(memory?.usage?.usage),
    memoryPeakBytes: toNumber(memory?.usage?.max) || undefined,
    ioReadBytes: io("Read"),
    ioWriteBytes: io("Write"),
    pids: toNumber(pids?.current),
    oomKills: toNumber(memoryOomControl?.oomKill),
  };
}

function figuresV2({ cpu, memory, io, pids, memoryEvents }: v2.Metrics): Figures {
  return {
    cgroupVersion: 2,
    cpuUs: toNumber(cpu?.usageUsec),
    cpuUserUs: toNumber(cpu?.userUsec),
    cpuKernelUs: toNumber(cpu?.systemUsec),
    memoryBytes: toNumber(memory?.usage),
    memoryPeakBytes: toNumber(memory?.maxUsage) || undefined,
    ioReadBytes: sum((io?.usage ?? []).map(({ rbytes }) => rbytes)),
    ioWriteBytes: sum((io?.usage ?? []).map(({ wbytes }) => wbytes)),
    pids: toNumber(pids?.current),
    oomKills: toNumber(memoryEvents?.oomKill),
  };
}

function nanosToMicros(nanos: bigint | undefined): number {
  return toNumber((nanos ?? 0n) / 1_000n);
}

function sum(values: readonly bigint[]): number {
  return toNumber(values.reduce((total, value) => total + value, 0n));
}

/** Within what JavaScript counts exactly: nine petabytes, three centuries of microseconds. */
function toNumber(value: bigint | undefined): number {
  const number = Number(value ?? 0n);
  return Math.min(number, Number.MAX_SAFE_INTEGER);
}
