import type { RuntimeSelection } from "./mod.ts";
import { checkOptions, invalidRuntime } from "./plans.ts";

/** gVisor's ways to catch a guest's system calls, the preferred first. kvm only on request: not every CPU has it. */
export const GVISOR_PLATFORMS = ["systrap", "ptrace", "kvm"] as const;

/** What the runsc that is installed can do. */
export interface GvisorFacts {
  /** Its own shim is on PATH, besides the program. */
  hasShim: boolean;
  platforms: readonly string[];
}

/** How runsc is to be called. */
export interface GvisorPlan {
  via: "own-shim" | "runc-shim";
  platform: string;
  network: string;
}

/**
 * Reads the platforms out of `runsc flags`: builds differ in what they know.
 *
 * @example
 * ```ts
 * import { parsePlatforms } from "./gvisor.ts";
 * parsePlatforms("-platform string\n  specifies which platform to use: ptrace (default), kvm."); // ["ptrace", "kvm"]
 * ```
 */
export function parsePlatforms(flags: string): string[] {
  const list = /which platform to use: ([^\n]*)/.exec(flags)?.[1] ?? "";
  return GVISOR_PLATFORMS.filter((platform) => new RegExp(`\\b${platform}\\b`).test(list));
}

/**
 * Decides how runsc is called. Options: `platform` (systrap, ptrace, kvm) and `network` (host: the stack of the
 * container's netns, the default; sandbox: gVisor's own; none). Throws `invalid`.
 */
export function planGvisor(selection: RuntimeSelection, facts: GvisorFacts): GvisorPlan {
  checkOptions(selection, ["platform", "network"]);
  const { platform, network = "host" } = selection.options;
  if (!["host", "sandbox", "none"].includes(network)) {
    throw invalidRuntime(selection.name, `network "${network.slice(0, 64)}" is not host, sandbox or none`);
  }
  if (platform !== undefined && !facts.platforms.includes(platform)) {
    const known = facts.platforms.join(", ") || "none";
    throw invalidRuntime(
      selection.name,
      `this runsc has no platform "${platform.slice(0, 64)}"; it has ${known}`,
    );
  }
  const chosen = platform ?? facts.platforms.find((known) => known !== "kvm");
  if (chosen === undefined) {
    throw invalidRuntime(selection.name, "this runsc names no platform that works everywhere");
  }
  return { via: facts.hasShim ? "own-shim" : "runc-shim", platform: chosen, network };
}
