import { RuntimeError } from "../errors.ts";
import type { RunCommand } from "./command.ts";

/** Where named network namespaces are, as for `ip netns`. */
export const NETNS_DIR = "/run/netns";

/** Marks the namespaces made for containers. */
export const NETNS_PREFIX = "hc-";

const IP_TIMEOUT_MS = 30_000;

/** Named network namespaces under {@linkcode NETNS_DIR}, made and removed with `ip netns`. */
export class NetnsDriver {
  constructor(readonly options: { run: RunCommand }) {}

  /** Path of a container's namespace, whether it is there or not. */
  path(id: string): string {
    return `${NETNS_DIR}/${NETNS_PREFIX}${id}`;
  }

  /** Makes an empty namespace; what a killed attempt has left under the name goes first. */
  async create(id: string, signal?: AbortSignal): Promise<string> {
    if (await this.exists(id)) await this.remove(id);
    await this.#ip(["netns", "add", NETNS_PREFIX + id], { id, signal });
    return this.path(id);
  }

  /** Removes the name; the namespace goes with its last process. False when there was none. */
  async remove(id: string): Promise<boolean> {
    if (!await this.exists(id)) return false;
    try {
      await this.#ip(["netns", "delete", NETNS_PREFIX + id], { id });
    } catch (error) {
      // Half-made ones (a plain file) are deleted as well; gone in between is as good.
      if (await this.exists(id)) throw error;
    }
    return true;
  }

  /** Whether the name is there, usable or half-made. */
  async exists(id: string): Promise<boolean> {
    try {
      await Deno.lstat(this.path(id));
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }

  /** Whether the name leads into a namespace: not so for a plain file left by a crash or a reboot. */
  async isUsable(id: string): Promise<boolean> {
    if (!await this.exists(id)) return false;
    const [inside, around] = await Promise.all([Deno.stat(this.path(id)), Deno.stat(NETNS_DIR)]);
    return inside.dev !== around.dev;
  }

  async #ip(args: string[], context: { id: string; signal?: AbortSignal }): Promise<void> {
    const { signal } = context;
    const { code, stderr } = await this.options.run({
      program: "ip",
      args,
      timeoutMs: IP_TIMEOUT_MS,
      signal,
    });
    if (code === 0) return;
    throw new RuntimeError(
      "failed",
      `Cannot ${args[1]} network namespace "${context.id}": ${stderr.trim() || `ip exits with ${code}`}`,
    );
  }
}
