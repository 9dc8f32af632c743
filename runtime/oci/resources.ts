import type { CgroupFacts } from "./cgroup.ts";
import type { SpecResources } from "./spec_types.ts";

/** Length of the CPU quota's period in microseconds; the kernel's default. */
export const CPU_PERIOD_US = 100_000;

/** Least quota the kernel takes, in microseconds. */
export const MIN_CPU_QUOTA_US = 1_000;

/** Bounds of cpu.shares in the kernel. */
export const MIN_CPU_SHARES = 2;
export const MAX_CPU_SHARES = 262_144;

/** Limits as cgroup settings: quota caps the CPU time, shares weigh it under contention. */
export function resources(
  limits: { milliCpus: number; memoryBytes: number; pidsLimit: number },
  cgroup: CgroupFacts,
): SpecResources {
  const shares = Math.round(limits.milliCpus * 1024 / 1000);
  const quota = Math.round(limits.milliCpus * CPU_PERIOD_US / 1000);
  const memory: SpecResources["memory"] = { limit: limits.memoryBytes };
  // Memory and swap together; the same number means no swap.
  if (cgroup.hasSwapAccounting) memory.swap = limits.memoryBytes;
  return {
    devices: DEVICES.map((device) => ({ ...device })),
    memory,
    cpu: {
      shares: Math.min(Math.max(shares, MIN_CPU_SHARES), MAX_CPU_SHARES),
      quota: Math.max(quota, MIN_CPU_QUOTA_US),
      period: CPU_PERIOD_US,
    },
    pids: { limit: limits.pidsLimit },
  };
}

/** null, zero, full, random, urandom, tty, console, ptmx, pts/*: what the runtime puts into /dev, and nothing else. */
const DEVICES: SpecResources["devices"] = [
  { allow: false, access: "rwm" },
  ...[[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 1], [5, 2]].map(([major, minor]) => ({
    allow: true,
    type: "c",
    major,
    minor,
    access: "rwm",
  })),
  { allow: true, type: "c", major: 136, access: "rwm" },
];
