import type { Capacity } from "./workloads/admission.ts";

/** vCPUs handed out on a machine with fewer CPUs, as in the original. */
export const DEFAULT_VCPU_LIMIT = 225;

/** What /proc/meminfo says, bytes. */
export interface MemoryFacts {
  totalBytes: number;
  availableBytes: number;
}

/** Reads the text of /proc/meminfo. Throws an Error when it is not one. */
export function parseMeminfo(text: string): MemoryFacts {
  const field = (name: string) => {
    const kibibytes = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
    if (kibibytes === undefined) throw new Error(`Cannot read "/proc/meminfo": it has no ${name}`);
    return Number(kibibytes) * 1024;
  };
  return { totalBytes: field("MemTotal"), availableBytes: field("MemAvailable") };
}

/**
 * What this node gives away: max(CPUs, 225) vCPUs unless limited, and the memory that is available plus what was
 * granted before (it is not available any more where it is used), at most all there is.
 */
export function nodeCapacity(facts: {
  cpus: number;
  memory: MemoryFacts;
  grantedBytes: number;
  vcpuLimit?: number;
}): Capacity {
  const { cpus, memory, grantedBytes, vcpuLimit } = facts;
  return {
    milliCpus: (vcpuLimit ?? Math.max(cpus, DEFAULT_VCPU_LIMIT)) * 1000,
    memoryBytes: Math.min(memory.totalBytes, memory.availableBytes + grantedBytes),
  };
}
