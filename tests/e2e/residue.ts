import { createHash } from "node:crypto";
import type { LiveAgent } from "./live_agent.ts";

/** What the machine holds on behalf of an agent: counts and names that must return to where they were. */
export type Residue = Record<string, number | string[]>;

const SHIM_SOCKETS = "/run/containerd/s";

/** Looks at an agent, its containerd and the machine. Only what carries the agent's own names is counted. */
export async function residueOf(agent: LiveAgent, ids: readonly string[]): Promise<Residue> {
  return {
    ...await agent.inventory(),
    agentFds: openFiles(agentPid(agent)),
    containerdFds: openFiles(agent.containerdPid),
    shims: shims(agent.namespace),
    cgroups: cgroups(agent.namespace),
    mounts: mounts([agent.dataDir, agent.stateDir]),
    shimSockets: shimSockets(agent, ids),
  };
}

/** Pid of the agent itself. */
export function agentPid(agent: LiveAgent): number {
  return pidsWith((args) =>
    args.includes("agent") && args.includes(agent.dataDir) && !args[0].endsWith("sh")
  )[0];
}

/** Resident memory of a process, in MiB. */
export function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1]) / 1024;
}

/** Processor time a process and its threads have had, in milliseconds. */
export function cpuMs(pid: number): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1].split(" ");
  // Fields 14 and 15 of proc(5), in ticks of 10 ms.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function openFiles(pid: number): number {
  return entries(`/proc/${pid}/fd`).length;
}

function shims(namespace: string): string[] {
  return pidsWith((args) => args[0].includes("containerd-shim") && args.includes(namespace)).map(String);
}

function pidsWith(matches: (args: string[]) => boolean): number[] {
  return entries("/proc").map(Number).filter((pid) => {
    if (!(pid > 1)) return false;
    try {
      const args = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      return args[0] !== "" && matches(args);
    } catch {
      return false; // it has ended meanwhile
    }
  });
}

/** Cgroups below the namespace's, in every hierarchy. */
function cgroups(namespace: string): string[] {
  const roots = ["/sys/fs/cgroup", ...entries("/sys/fs/cgroup").map((name) => `/sys/fs/cgroup/${name}`)];
  return roots.flatMap((root) =>
    [...directories(`${root}/${namespace}`)].map((name) => `${root}/${namespace}/${name}`)
  );
}

function mounts(dirs: readonly string[]): string[] {
  return Deno.readTextFileSync("/proc/mounts").split("\n").map((line) => line.split(" ")[1] ?? "")
    .filter((point) => dirs.some((dir) => point.startsWith(`${dir}/`)));
}

/** Sockets left behind by the shims of these containers; containerd names them so. */
function shimSockets(agent: LiveAgent, ids: readonly string[]): string[] {
  const there = new Set(entries(SHIM_SOCKETS));
  const socket = `${agent.dataDir}/containerd.sock`;
  return ids.filter((id) =>
    there.has(createHash("sha256").update(`${socket}/${agent.namespace}/${id}`).digest("hex"))
  );
}

function* directories(dir: string): Iterable<string> {
  for (const name of entries(dir)) {
    try {
      if (Deno.statSync(`${dir}/${name}`).isDirectory) yield name;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

function entries(dir: string): string[] {
  try {
    return [...Deno.readDirSync(dir)].map(({ name }) => name);
  } catch (error) {
    // A process, cgroup or folder that is gone; ESRCH and ENODEV have no class of their own.
    if (error instanceof Error) return [];
    throw error;
  }
}
