import type { ContainerInfo, ContainerMetrics } from "../engine.ts";

/** What a container in memory is said to use. */
const MEMORY_BYTES = 1 << 20;

/** Figures of a task that uses half of a CPU and writes a byte each millisecond. */
export function memoryMetrics(
  { pid, exitCode, exitedAtMs }: ContainerInfo,
  times: { startedAtMs: number; nowMs: number },
): ContainerMetrics {
  const atMs = exitedAtMs ?? times.nowMs;
  const ageMs = atMs - times.startedAtMs;
  return {
    atMs,
    pid,
    ...(exitedAtMs === undefined ? { ageMs } : { exitCode }),
    isLast: exitedAtMs !== undefined,
    cgroupVersion: 1,
    cpuUs: ageMs * 500,
    cpuUserUs: ageMs * 400,
    cpuKernelUs: ageMs * 100,
    memoryBytes: MEMORY_BYTES,
    memoryPeakBytes: 2 * MEMORY_BYTES,
    ioReadBytes: 0,
    ioWriteBytes: ageMs,
    pids: 1,
    oomKills: 0,
  };
}
