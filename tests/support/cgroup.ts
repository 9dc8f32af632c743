const ROOT = "/sys/fs/cgroup";

/** A container's cgroup. */
export interface CgroupOf {
  /** containerd's namespace. */
  namespace: string;
  id: string;
}

/** What the kernel holds a container to. */
export interface CgroupLimits {
  cpuQuotaUs: number;
  cpuPeriodUs: number;
  /** Its share under contention, as v2 counts it, or v1. */
  cpuWeight?: number;
  cpuShares?: number;
  memoryBytes: number;
  /** Beyond the memory; absent where the kernel does not count swap. */
  swapBytes?: number;
  pids: number;
}

/** Whether this machine has cgroup v2 alone. */
export function isUnified(): boolean {
  return readIfThere(`${ROOT}/cgroup.controllers`) !== undefined;
}

/** A file of a container's cgroup, under v1 the one of this controller; `undefined` where there is none. */
export function readCgroup(of: CgroupOf, place: { controller: string; file: string }): string | undefined {
  const hierarchy = isUnified() ? ROOT : `${ROOT}/${place.controller}`;
  return readIfThere(`${hierarchy}/${of.namespace}/${of.id}/${place.file}`)?.trim();
}

/** Reads the limits of a container from the kernel. Throws when there is no such cgroup. */
export function readCgroupLimits(of: CgroupOf): CgroupLimits {
  const read = (controller: string, file: string): string => {
    const text = readCgroup(of, { controller, file });
    if (text === undefined) throw new Error(`cgroup of "${of.id}": there is no ${file}`);
    return text;
  };
  const pids = Number(read("pids", "pids.max"));
  if (isUnified()) {
    const [cpuQuotaUs, cpuPeriodUs] = read("cpu", "cpu.max").split(" ").map(Number);
    const swap = readCgroup(of, { controller: "memory", file: "memory.swap.max" });
    const memoryBytes = Number(read("memory", "memory.max"));
    const cpuWeight = Number(read("cpu", "cpu.weight"));
    return { cpuQuotaUs, cpuPeriodUs, cpuWeight, memoryBytes, ...swap && { swapBytes: Number(swap) }, pids };
  }
  const memoryBytes = Number(read("memory", "memory.limit_in_bytes"));
  const both = readCgroup(of, { controller: "memory", file: "memory.memsw.limit_in_bytes" });
  return {
    cpuQuotaUs: Number(read("cpu", "cpu.cfs_quota_us")),
    cpuPeriodUs: Number(read("cpu", "cpu.cfs_period_us")),
    cpuShares: Number(read("cpu", "cpu.shares")),
    memoryBytes,
    ...both && { swapBytes: Number(both) - memoryBytes },
    pids,
  };
}

function readIfThere(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
