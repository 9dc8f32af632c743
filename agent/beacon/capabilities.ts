import { hasVirtualization } from "../../runtime/catalog/catalog.ts";
import { hostPlatform } from "../../runtime/image/manifest.ts";

/** What is known of a machine. */
export interface MachineFacts {
  /** As containers call it: "amd64". */
  arch: string;
  /** Absent while containerd does not answer. */
  containerdVersion?: string;
  /** Names of the runtimes that work. */
  runtimes: readonly string[];
  hasKvm: boolean;
  cgroupVersion: 1 | 2;
  /** Makers of the GPUs: "nvidia", "amd", "intel". */
  gpus: readonly string[];
}

/** Capabilities a beacon lists at most. */
export const MAX_CAPABILITIES = 32;
/** Longest capability, in characters. */
export const MAX_CAPABILITY_LENGTH = 64;

/** A machine's capabilities as beacons list them and policies require them; sorted. */
export function capabilityList(facts: MachineFacts): string[] {
  const { arch, containerdVersion, runtimes, hasKvm, cgroupVersion, gpus } = facts;
  const capabilities = [
    `arch:${arch}`,
    `cgroup:v${cgroupVersion}`,
    ...containerdVersion === undefined ? [] : [`containerd:${containerdVersion}`],
    ...runtimes.map((name) => `runtime:${name}`),
    ...hasKvm ? ["kvm"] : [],
    ...gpus.length > 0 ? ["gpu"] : [],
    ...gpus.map((maker) => `gpu:${maker}`),
  ];
  return [...new Set(capabilities)].filter((each) => each.length <= MAX_CAPABILITY_LENGTH).sort()
    .slice(0, MAX_CAPABILITIES);
}

/** What the engine says for {@linkcode detectCapabilities}. */
export interface DetectingEngine {
  runtimes(): Promise<string[]>;
  health(): Promise<{ version: string }>;
}

/** Looks at this machine. Never throws: what cannot be found out is not there. */
export async function detectCapabilities(engine: DetectingEngine): Promise<string[]> {
  const [runtimes, version, hasKvm, isUnified, gpus] = await Promise.all([
    engine.runtimes().catch(() => []),
    engine.health().then((health) => health.version, () => undefined),
    canUseKvm(),
    exists("/sys/fs/cgroup/cgroup.controllers"),
    findGpus(),
  ]);
  return capabilityList({
    arch: hostPlatform().architecture,
    ...(version !== undefined && { containerdVersion: version }),
    runtimes,
    hasKvm,
    cgroupVersion: isUnified ? 2 : 1,
    gpus,
  });
}

/** PCI ids of makers of GPUs. */
const GPU_MAKERS: Readonly<Record<string, string>> = {
  "0x10de": "nvidia",
  "0x1002": "amd",
  "0x8086": "intel",
};

/** By their device files: the render nodes of the kernel's own drivers, and those of NVIDIA's. */
async function findGpus(): Promise<string[]> {
  const makers = new Set<string>();
  if (await exists("/dev/nvidia0")) makers.add("nvidia");
  if (await exists("/dev/kfd")) makers.add("amd");
  try {
    for await (const { name } of Deno.readDir("/dev/dri")) {
      if (!/^renderD[0-9]+$/.test(name)) continue;
      const vendor = await Deno.readTextFile(`/sys/class/drm/${name}/device/vendor`).catch(() => "");
      const maker = GPU_MAKERS[vendor.trim()];
      if (maker !== undefined) makers.add(maker);
    }
  } catch {
    // No such directory: no kernel driver of a GPU.
  }
  return [...makers].sort();
}

/** The device alone proves nothing: a kernel without support for this CPU has it too. */
async function canUseKvm(): Promise<boolean> {
  try {
    (await Deno.open("/dev/kvm", { read: true, write: true })).close();
    return hasVirtualization(await Deno.readTextFile("/proc/cpuinfo"));
  } catch {
    return false;
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
