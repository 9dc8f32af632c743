import { RuntimeError } from "../errors.ts";
import type { ExecOptions } from "../engine.ts";

/** A user of a container by number. */
export interface ContainerUser {
  uid: number;
  gid: number;
  /** Supplementary groups. */
  groups: readonly number[];
}

/** The part of the OCI runtime spec that is about the process; what is not named here is kept as it is. */
export interface ProcessSpec {
  terminal?: boolean;
  consoleSize?: { width: number; height: number };
  user?: { uid: number; gid: number; additionalGids?: number[] };
  args?: string[];
  env?: string[];
  cwd?: string;
  [field: string]: unknown;
}

/** The type URL containerd knows OCI process specs by. */
export const PROCESS_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/** Most bytes of arguments and environment one exec may bring; the kernel's own bound is 2 MiB. */
export const MAX_EXEC_BYTES = 1 << 20;

/**
 * The spec of a process exec'd in a container whose init process has `base`: same capabilities, limits and filters;
 * own arguments, terminal, environment over the container's, and user.
 */
export function execProcessSpec(base: ProcessSpec, options: ExecOptions, user?: ContainerUser): ProcessSpec {
  check(options);
  const spec: ProcessSpec = { ...base, terminal: options.tty ?? false, args: [...options.args] };
  delete spec.consoleSize;
  if (options.tty && options.window) {
    spec.consoleSize = { width: options.window.columns, height: options.window.rows };
  }
  const terminal = options.tty ? ["TERM=xterm"] : [];
  spec.env = mergeEnv([...terminal, ...base.env ?? []], options.env ?? []);
  if (options.workingDirectory) spec.cwd = options.workingDirectory;
  if (user) spec.user = { uid: user.uid, gid: user.gid, additionalGids: [...user.groups] };
  return spec;
}

/** `over` on top of `under`; of two with one key the last stays, at the place of the first. */
export function mergeEnv(under: readonly string[], over: readonly string[]): string[] {
  const byKey = new Map<string, string>();
  for (const entry of [...under, ...over]) byKey.set(entry.split("=", 1)[0], entry);
  return [...byKey.values()];
}

function check(options: ExecOptions): void {
  const refuse = (reason: string) => {
    throw new RuntimeError("invalid", `Cannot exec "${options.args[0] ?? ""}": ${reason}`);
  };
  if (options.args.length === 0 || options.args[0] === "") refuse("no command given");
  if (options.workingDirectory && !options.workingDirectory.startsWith("/")) {
    refuse(`working directory "${options.workingDirectory}" is not absolute`);
  }
  let bytes = 0;
  for (const text of [...options.args, ...options.env ?? []]) {
    if (text.includes("\0")) refuse("an argument or variable has a NUL character");
    bytes += text.length + 1;
  }
  if (bytes > MAX_EXEC_BYTES) refuse(`arguments and environment are over ${MAX_EXEC_BYTES} bytes`);
  for (const entry of options.env ?? []) {
    if (entry.indexOf("=") < 1) refuse(`"${entry.slice(0, 64)}" is not KEY=value`);
  }
}
