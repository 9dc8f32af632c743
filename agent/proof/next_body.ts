import type { ContainerMetrics } from "../../runtime/engine.ts";
import { type ProofBody, type ProofKind, ZERO_HASH } from "./body.ts";

/** What a run is, as far as it does not change while it lasts. */
export interface RunFacts {
  workload: string;
  node: string;
  generation: number;
  startedAtMs: number;
  restarts: number;
  image: string;
  imageDigest: string;
  specHash: string;
  hypervisorType: string;
  milliCpus: number;
  memoryLimitBytes: number;
  /** Of the run's init process; figures of another one are not its. */
  pid: number;
}

/** What is known at the moment of a proof. */
export interface Moment {
  kind: ProofKind;
  /** Since the epoch; may have been set back. */
  nowMs: number;
  /** Milliseconds since the last proof of this workload by a clock that cannot be set; absent after a new start. */
  sinceLastMs?: number;
  /** When the run ended, where that is known. */
  endedAtMs?: number;
  exitCode?: number;
  metrics?: ContainerMetrics;
}

/** The newest proof. */
export interface ProofTail {
  body: ProofBody;
  hash: string;
}

/**
 * The proof that comes next. What can only grow never shrinks in it, also when the time of day was set back or the last
 * figures of a run could not be had.
 */
export function nextBody(facts: RunFacts, moment: Moment, tail?: ProofTail): ProofBody {
  const { kind, nowMs, exitCode } = moment;
  const previous = tail?.body;
  // One that was stopped and has come back, from another node, may be of another image by now.
  const spawned = previous?.kind === "stop" ? undefined : previous;
  const before = previous?.generation === facts.generation ? previous : undefined;
  const metrics = moment.metrics?.pid === facts.pid || facts.pid === 0 ? moment.metrics : undefined;
  const grown = (field: GrowingField, value: number | undefined) =>
    Math.max(before?.[field] ?? 0, value ?? 0);
  const memoryBytes = metrics?.memoryBytes ?? 0;
  const code = exitCode ?? metrics?.exitCode;
  const isEnd = kind === "exit" || kind === "stop" || kind === "gone";
  return {
    v: 1,
    kind,
    workload: facts.workload,
    node: facts.node,
    generation: Math.max(previous?.generation ?? 0, facts.generation),
    seq: (previous?.seq ?? 0) + 1,
    prev: tail?.hash ?? ZERO_HASH,
    at_ms: Math.max(previous?.at_ms ?? 0, nowMs),
    started_at_ms: before?.started_at_ms ?? facts.startedAtMs,
    wall_ms: wallMs(facts, moment, { before, ageMs: metrics?.ageMs }),
    cpu_us: grown("cpu_us", metrics?.cpuUs),
    cpu_user_us: grown("cpu_user_us", metrics?.cpuUserUs),
    cpu_kernel_us: grown("cpu_kernel_us", metrics?.cpuKernelUs),
    memory_bytes: memoryBytes,
    memory_peak_bytes: Math.max(grown("memory_peak_bytes", metrics?.memoryPeakBytes), memoryBytes),
    io_read_bytes: grown("io_read_bytes", metrics?.ioReadBytes),
    io_write_bytes: grown("io_write_bytes", metrics?.ioWriteBytes),
    pids: metrics?.pids ?? 0,
    oom_kills: grown("oom_kills", metrics?.oomKills),
    restarts: Math.max(previous?.restarts ?? 0, facts.restarts),
    ...(isEnd && code !== undefined && { exit_code: code }),
    // As the workload was spawned: what a later agent makes of the same labels changes nothing.
    image: spawned?.image ?? facts.image,
    image_digest: spawned?.image_digest ?? facts.imageDigest,
    spec_hash: spawned?.spec_hash ?? facts.specHash,
    hypervisor_type: spawned?.hypervisor_type ?? facts.hypervisorType,
    milli_cpus: spawned?.milli_cpus ?? facts.milliCpus,
    memory_limit_bytes: spawned?.memory_limit_bytes ?? facts.memoryLimitBytes,
    measured: metrics === undefined ? "none" : metrics.isLast ? "last" : "live",
  };
}

type GrowingField =
  | "cpu_us"
  | "cpu_user_us"
  | "cpu_kernel_us"
  | "memory_peak_bytes"
  | "io_read_bytes"
  | "io_write_bytes"
  | "oom_kills";

/** By the kernel's count of the process's age; once it has ended, by what has passed since the last proof. */
function wallMs(
  facts: RunFacts,
  moment: Moment,
  known: { before: ProofBody | undefined; ageMs: number | undefined },
): number {
  const { before, ageMs } = known;
  const { kind, nowMs, sinceLastMs, endedAtMs } = moment;
  if (ageMs !== undefined) return Math.max(before?.wall_ms ?? 0, ageMs);
  if (kind === "gone") return before?.wall_ms ?? 0;
  // It may have been dead for a while before the stop was asked for, waiting for its restart.
  if (before?.kind === "exit") return before.wall_ms;
  if (before !== undefined && sinceLastMs !== undefined) {
    return before.wall_ms + Math.max(0, Math.round(sinceLastMs));
  }
  const fromMs = before?.at_ms ?? facts.startedAtMs;
  return (before?.wall_ms ?? 0) + Math.max(0, (endedAtMs ?? nowMs) - fromMs);
}
