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
  const hasSwapAccounting = mode === "v2"
    ? await unifiedSwapAccounting(memoryRoot, () => kernelCountsSwap())
    : await exists(`${memoryRoot}/memory.memsw.limit_in_bytes`);
  return { mode, hasSwapAccounting };
}

/**
 * Whether swap can be limited in the v2 hierarchy at `root`. The root cgroup itself has no files of memory: a cgroup
 * below it tells that has them, and where there is none, as without systemd before the first container, `kernel` does.
 */
export async function unifiedSwapAccounting(root: string, kernel: () => Promise<boolean>): Promise<boolean> {
  for await (const { name, isDirectory } of Deno.readDir(root)) {
    if (!isDirectory || !await exists(`${root}/${name}/memory.max`)) continue;
    return await exists(`${root}/${name}/memory.swap.max`);
  }
  return await kernel();
}

/** A kernel that has swap counts it, unless it was started with the word not to. */
async function kernelCountsSwap(): Promise<boolean> {
  const isOff = /(^|\s)swapaccount=(0|n|off)(\s|$)/i.test(await Deno.readTextFile("/proc/cmdline"));
  return !isOff && await exists("/proc/swaps");
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
