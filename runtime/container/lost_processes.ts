import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { ContainerdClient } from "../containerd/client.ts";

/** Where shims of containerd 1.6 to 2.x listen, whatever containerd's own directories are. */
const SHIM_SOCKET_DIR = "/run/containerd/s";

const CGROUP_ROOT = "/sys/fs/cgroup";

/** How long killed processes may take to leave their cgroup, in milliseconds. */
const CGROUP_TIMEOUT_MS = 5_000;

const CGROUP_INTERVAL_MS = 10;

/** Whose processes are looked for. */
export interface ProcessOwner {
  client: Pick<ContainerdClient, "socket" | "namespace">;
  /** Where the runtimes keep their state, in a directory per containerd namespace. */
  runtimeStateRoot: string;
}

/**
 * Ids of containers that have a shim, a cgroup or a runtime's state in this containerd namespace. containerd loses a
 * shim when it is killed between starting it and noting so; such a shim lives for ever, and a later container of the
 * same id would talk to it, or be refused since runc knows the id already.
 */
export async function processOwners(owner: ProcessOwner): Promise<Set<string>> {
  const { namespace } = owner.client;
  const ids = (await findShims(owner)).map((shim) => shim.id);
  for (const hierarchy of await cgroupHierarchies()) {
    ids.push(...await directories(`${hierarchy}/${namespace}`));
  }
  ids.push(...await directories(`${owner.runtimeStateRoot}/${namespace}`));
  return new Set(ids);
}

/**
 * Ends all processes of a container that containerd does not know, and removes what the runtime left. A cgroup for
 * which there is neither a shim nor a runtime's state may be anybody's who uses that path (a namespace may well be
 * called "docker"): it is removed if it is empty, and nothing in it is killed. Idempotent.
 */
export async function endLostProcesses(owner: ProcessOwner, id: string): Promise<void> {
  const { namespace } = owner.client;
  const state = `${owner.runtimeStateRoot}/${namespace}/${id}`;
  const shims = (await findShims(owner)).filter((shim) => shim.id === id);
  for (const shim of shims) {
    // The runtime that the shim is just calling would go on to make a container.
    const pids = [shim.pid, ...await descendants(shim.pid)];
    for (const pid of pids) kill(pid);
  }
  await removeShimSocket(owner.client, id);
  const isOurs = shims.length > 0 || await isDirectory(state);
  for (const hierarchy of await cgroupHierarchies()) {
    const path = `${hierarchy}/${namespace}/${id}`;
    if (isOurs) await removeCgroup(path);
    else await removeEmptyCgroup(path);
  }
  await removeIfThere(state);
}

/** Removes the socket of a shim that is gone: one that was killed can't, and containerd does not. Idempotent. */
export async function removeShimSocket(owner: ProcessOwner["client"], id: string): Promise<void> {
  await removeIfThere(shimSocket(owner, id));
}

/** Where the shim of a container listens. */
export function shimSocket(owner: ProcessOwner["client"], id: string): string {
  const name = createHash("sha256").update(`${owner.socket}/${owner.namespace}/${id}`).digest("hex");
  return `${SHIM_SOCKET_DIR}/${name}`;
}

/** The container id in a shim's arguments (`-namespace NS -id ID -address SOCKET`, in any order). */
export function shimId(
  args: readonly string[],
  owner: { socket: string; namespace: string },
): string | undefined {
  if (!/(^|\/)containerd-shim-[\w-]+$/.test(args[0] ?? "")) return undefined;
  const value = (flag: string) => {
    const index = args.indexOf(flag);
    return index < 0 ? undefined : args[index + 1];
  };
  const isOurs = value("-address") === owner.socket && value("-namespace") === owner.namespace;
  return isOurs ? value("-id") : undefined;
}

async function findShims({ client }: ProcessOwner): Promise<{ pid: number; id: string }[]> {
  const shims: { pid: number; id: string }[] = [];
  for (const pid of await processes()) {
    const id = shimId((await readIfThere(`/proc/${pid}/cmdline`)).split("\0"), client);
    if (id !== undefined) shims.push({ pid, id });
  }
  return shims;
}

async function descendants(ancestor: number): Promise<number[]> {
  const childrenOf = new Map<number, number[]>();
  for (const pid of await processes()) {
    const parent = Number(/\) \S (\d+)/.exec(await readIfThere(`/proc/${pid}/stat`))?.[1]);
    childrenOf.set(parent, [...childrenOf.get(parent) ?? [], pid]);
  }
  const collect = (pid: number): number[] =>
    (childrenOf.get(pid) ?? []).flatMap((child) => [child, ...collect(child)]);
  return collect(ancestor);
}

async function removeEmptyCgroup(path: string): Promise<void> {
  try {
    if (await isDirectory(path)) await Deno.remove(path);
  } catch (error) {
    const isBusy = error instanceof Error && /os error (16|39)\b/.test(error.message);
    if (!isBusy && !(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function removeCgroup(path: string): Promise<void> {
  const endMs = performance.now() + CGROUP_TIMEOUT_MS;
  for (;;) {
    const groups = await bottomUp(path);
    if (groups.length === 0) return;
    let failure: unknown;
    for (const group of groups) {
      for (const pid of (await readIfThere(`${group}/cgroup.procs`)).split("\n")) {
        if (pid !== "") kill(Number(pid));
      }
      try {
        await Deno.remove(group);
      } catch (error) {
        // Busy until the kernel has let go of the processes.
        if (!(error instanceof Deno.errors.NotFound)) failure = error;
      }
    }
    if (failure !== undefined && performance.now() > endMs) throw failure;
    await delay(CGROUP_INTERVAL_MS);
  }
}

async function bottomUp(path: string): Promise<string[]> {
  const groups: string[] = [];
  for (const name of await directories(path)) groups.push(...await bottomUp(`${path}/${name}`));
  return await isDirectory(path) ? [...groups, path] : groups;
}

/**
 * Where cgroups of any path begin: the mount points of the v1 controllers and of the v2 hierarchy beside them. With v2
 * alone that is the root: what lies right below it are cgroups, of which one may well be another's of the same path.
 */
export async function cgroupHierarchies(root = CGROUP_ROOT): Promise<string[]> {
  if (await readIfThere(`${root}/cgroup.controllers`) !== "") return [root];
  return [root, ...(await directories(root)).map((name) => `${root}/${name}`)];
}

async function processes(): Promise<number[]> {
  return (await directories("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
}

async function directories(path: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(path)) if (entry.isDirectory) names.push(entry.name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names;
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Of a process or cgroup that may end at any moment: whatever the error, there is nothing more to know about it. */
async function readIfThere(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch {
    return "";
  }
}

function kill(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
