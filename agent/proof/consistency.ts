import type { ProofBody } from "./body.ts";

/** CPU time beyond `cores × wall` that is let pass, as a share: clocks tick in steps. */
export const CPU_TOLERANCE_SHARE = 0.02;
/**
 * And in microseconds, once for each whole core: quotas are enforced in periods of 100 ms, the two clocks are not read
 * at the same moment, and the runtime itself runs in the cgroup while it starts the container.
 */
export const CPU_TOLERANCE_US = 1_000_000;

const SAME_LOG = ["workload", "node"] as const;
/** What a workload is does not change until it is stopped. */
const CONSTANT = [
  "image",
  "image_digest",
  "spec_hash",
  "hypervisor_type",
  "milli_cpus",
  "memory_limit_bytes",
] as const;
/** What never gets less. */
const MONOTONIC = ["at_ms", "generation", "restarts"] as const;
/** What never gets less while a run lasts. */
const MONOTONIC_IN_RUN = [
  "wall_ms",
  "cpu_us",
  "cpu_user_us",
  "cpu_kernel_us",
  "memory_peak_bytes",
  "io_read_bytes",
  "io_write_bytes",
  "oom_kills",
] as const;

/** Why this cannot be, taken by itself; nothing when it can. */
export function contradiction(body: ProofBody): string | undefined {
  if (body.memory_bytes > body.memory_peak_bytes) return "memory_bytes is beyond its peak";
  if (body.cpu_us > cpuBound(body, body.wall_ms)) {
    return `cpu_us is more than ${body.milli_cpus / 1000} CPUs can give in ${body.wall_ms} ms`;
  }
  return undefined;
}

/** Why `next` cannot follow `previous`, which need not be the one right before it; nothing when it can. */
export function contradictionBetween(previous: ProofBody, next: ProofBody): string | undefined {
  const other = SAME_LOG.find((field) => previous[field] !== next[field]);
  if (other !== undefined) return `${other} is another one`;
  if (previous.kind === "stop") {
    // It may come back from another node, as a run of its own.
    if (next.generation <= previous.generation) return "it follows the end of the workload";
  } else {
    const changed = CONSTANT.find((field) => previous[field] !== next[field]);
    if (changed !== undefined) return `${changed} is not as the workload was spawned`;
  }
  const lower = MONOTONIC.find((field) => next[field] < previous[field]);
  if (lower !== undefined) return `${lower} is lower than before`;
  if (next.generation !== previous.generation) return undefined;
  if (next.started_at_ms !== previous.started_at_ms) return "another run has the same generation";
  const less = MONOTONIC_IN_RUN.find((field) => next[field] < previous[field]);
  if (less !== undefined) return `${less} is lower than before`;
  const wallMs = next.wall_ms - previous.wall_ms;
  if (next.cpu_us - previous.cpu_us > cpuBound(next, wallMs)) {
    return `cpu_us grew by more than ${next.milli_cpus / 1000} CPUs can give in ${wallMs} ms`;
  }
  return undefined;
}

function cpuBound({ milli_cpus }: ProofBody, wallMs: number): number {
  const cores = milli_cpus / 1000;
  return cores * wallMs * 1000 * (1 + CPU_TOLERANCE_SHARE) + Math.max(1, cores) * CPU_TOLERANCE_US;
}
