import { createHash } from "node:crypto";
import type { ContainerdClient } from "../containerd/client.ts";

/** Where shims of containerd 1.6 to 2.x listen, whatever containerd's own directories are. */
const SHIM_SOCKET_DIR = "/run/containerd/s";

/** A running shim of the client's containerd and namespace. */
export interface Shim {
  pid: number;
  /** Of its container. */
  id: string;
}

type ShimOwner = Pick<ContainerdClient, "socket" | "namespace">;

/**
 * The shims that were started for this containerd and namespace, known by their arguments. containerd itself loses
 * one when it is killed between starting it and noting so; such a shim lives for ever, and a later container of the
 * same id would talk to it.
 */
export async function findShims(owner: ShimOwner): Promise<Shim[]> {
  const shims: Shim[] = [];
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const id = shimId(await commandLine(Number(name)), owner);
    if (id !== undefined) shims.push({ pid: Number(name), id });
  }
  return shims;
}

/** Kills the shim and removes its socket; looks again first, lest the pid be another's by now. */
export async function endShim(shim: Shim, owner: ShimOwner): Promise<void> {
  if (shimId(await commandLine(shim.pid), owner) !== shim.id) return;
  const { socket, namespace } = owner;
  Deno.kill(shim.pid, "SIGKILL");
  const name = createHash("sha256").update(`${socket}/${namespace}/${shim.id}`).digest("hex");
  try {
    await Deno.remove(`${SHIM_SOCKET_DIR}/${name}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** The container id in a shim's arguments (`-namespace NS -id ID -address SOCKET`, in any order). */
export function shimId(args: readonly string[], owner: ShimOwner): string | undefined {
  if (!/(^|\/)containerd-shim-[\w-]+$/.test(args[0] ?? "")) return undefined;
  const value = (flag: string) => {
    const index = args.indexOf(flag);
    return index < 0 ? undefined : args[index + 1];
  };
  return value("-address") === owner.socket && value("-namespace") === owner.namespace
    ? value("-id")
    : undefined;
}

async function commandLine(pid: number): Promise<string[]> {
  try {
    return (await Deno.readTextFile(`/proc/${pid}/cmdline`)).split("\0");
  } catch {
    // It ended in between; whatever the error, there is nothing to know about it any more.
    return [];
  }
}
