import type { SpecMount } from "./spec_types.ts";

/** Size of a container's /dev/shm in KiB, as Docker has it. */
export const SHM_KIB = 65_536;

/** Files of the host that are mounted over the image's; paths on the host. */
export interface HostFiles {
  resolvConf: string;
  hosts: string;
  hostname: string;
}

/** The mounts of every container. */
export function containerMounts(hostFiles: HostFiles): SpecMount[] {
  const noExec = ["nosuid", "noexec", "nodev"];
  const mount = (destination: string, type: string, options: string[], source = type): SpecMount => ({
    destination,
    type,
    source,
    options,
  });
  const bind = (destination: string, source: string) =>
    mount(destination, "bind", ["bind", "rprivate", "nosuid", "nodev"], source);
  return [
    mount("/proc", "proc", noExec),
    mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    mount("/dev/shm", "tmpfs", [...noExec, "mode=1777", `size=${SHM_KIB}k`], "shm"),
    mount("/dev/mqueue", "mqueue", noExec),
    mount("/sys", "sysfs", [...noExec, "ro"]),
    mount("/sys/fs/cgroup", "cgroup", [...noExec, "relatime", "ro"]),
    bind("/etc/resolv.conf", hostFiles.resolvConf),
    bind("/etc/hosts", hostFiles.hosts),
    bind("/etc/hostname", hostFiles.hostname),
  ];
}

/** Parts of /proc and /sys that tell about, or reach into, the machine. */
export const MASKED_PATHS: readonly string[] = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];

/** Parts of /proc that may be read only. */
export const READONLY_PATHS: readonly string[] = [
  "/proc/bus",
  "/proc/fs",
  "/proc/irq",
  "/proc/sys",
  "/proc/sysrq-trigger",
];
