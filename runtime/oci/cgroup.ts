/** How cgroups are mounted: all controllers in v1 hierarchies, those plus an empty v2 one, or v2 alone. */
export type CgroupMode = "v1" | "hybrid" | "v2";

/** What the cgroups of this machine can do. */
export interface CgroupFacts {
  mode: CgroupMode;
  /** Swap can be limited. */
  hasSwapAccounting: boolean;
}

/**
 * Reads the mode out of the text of `/proc/self/mountinfo`; `undefined` when no cgroup is mounted.
 *
 * @example
 * ```ts
 * import { cgroupMode } from "./cgroup.ts";
 * cgroupMode("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"); // mode "v2" at /sys/fs/cgroup
 * ```
 */
export function cgroupMode(mountinfo: string): { mode: CgroupMode; memoryRoot: string } | undefined {
  let v2: string | undefined;
  let hasV1 = false;
  let memory: string | undefined;
  for (const line of mountinfo.split("\n")) {
    const [before, after] = line.split(" - ");
    if (after === undefined) continue;
    const mountPoint = before.split(" ")[4];
    const [type, , superOptions = ""] = after.split(" ");
    if (type === "cgroup2") v2 ??= mountPoint;
    if (type !== "cgroup") continue;
    hasV1 = true;
    if (superOptions.split(",").includes("memory")) memory ??= mountPoint;
  }
  if (hasV1) return { mode: v2 ? "hybrid" : "v1", memoryRoot: memory ?? "" };
  return v2 ? { mode: "v2", memoryRoot: v2 } : undefined;
}

/** Asks this machine. `undefined` when it has no cgroups. */
export async function readCgroupFacts(): Promise<CgroupFacts | undefined> {
  const found = cgroupMode(await Deno.readTextFile("/proc/self/mountinfo"));
  if (found === undefined) return undefined;
  const { mode, memoryRoot } = found;
  // The root cgroup of v2 has no such file; the kernel without swap accounting has no swap files in any other.
  const hasSwapAccounting = mode === "v2"
    ? await hasFileBelow(memoryRoot, "memory.swap.max")
    : await exists(`${memoryRoot}/memory.memsw.limit_in_bytes`);
  return { mode, hasSwapAccounting };
}

async function hasFileBelow(root: string, file: string): Promise<boolean> {
  for await (const entry of Deno.readDir(root)) {
    if (entry.isDirectory && await exists(`${root}/${entry.name}/${file}`)) return true;
  }
  return false;
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
