import { RuntimeError } from "../errors.ts";
import { mergeEnv } from "../io/process_spec.ts";
import { CONTAINER_CAPABILITIES } from "./capabilities.ts";
import type { CgroupFacts } from "./cgroup.ts";
import type { ImageProcess } from "./image_config.ts";
import { containerMounts, type HostFiles, MASKED_PATHS, READONLY_PATHS } from "./mounts.ts";
import { OPEN_FILES_SOFT } from "./open_files.ts";
import { resources } from "./resources.ts";
import { type Architecture, defaultSeccomp } from "./seccomp.ts";
import type { RuntimeSpec } from "./spec_types.ts";
import type { ResolvedUser } from "./user.ts";

/** Least memory limit: below it runc's own init does not fit. */
export const MIN_MEMORY_BYTES = 6 << 20;

/** Most bytes of arguments and environment; the kernel's bound on both together is 2 MiB. */
export const MAX_ARGUMENT_BYTES = 1 << 20;

/** Search path of a container whose image has none. */
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** What the workload asks for. */
export interface SpecRequest {
  id: string;
  milliCpus: number;
  memoryBytes: number;
  pidsLimit: number;
  /** `KEY=value`, over the image's own. */
  env: readonly string[];
  /** Replaces the image's Cmd; empty keeps it. */
  args: readonly string[];
  tty: boolean;
  hostname: string;
}

/** What is known of the machine and of the steps done so far. */
export interface SpecFacts {
  architecture: Architecture;
  cgroup: CgroupFacts;
  containerdNamespace: string;
  /** Of `ImageProcess.user`, from `resolveUser`. */
  user: ResolvedUser;
  netnsPath: string;
  /** Hard limit of open files per process. */
  maxOpenFiles: number;
  hostFiles: HostFiles;
}

/**
 * The OCI runtime spec of a container: image configuration, what the workload asks for over it, and the machine's
 * facts. Throws `invalid` when image and workload together name no command, or a limit makes no sense.
 */
export function buildSpec(image: ImageProcess, request: SpecRequest, facts: SpecFacts): RuntimeSpec {
  check(request);
  const args = [...image.entrypoint, ...request.args.length > 0 ? request.args : image.cmd];
  if (args.length === 0 || args[0] === "") {
    throw invalid(request.id, "the image names no command, and none is given");
  }
  const { home, ...user } = facts.user;
  const env = mergeEnv(
    [
      `PATH=${DEFAULT_PATH}`,
      `HOSTNAME=${request.hostname}`,
      ...request.tty ? ["TERM=xterm"] : [],
      `HOME=${home}`,
    ],
    [...image.env.filter((entry) => entry.indexOf("=") > 0), ...request.env],
  );
  if (argumentBytes([...args, ...env]) > MAX_ARGUMENT_BYTES) {
    throw invalid(request.id, `arguments and environment are over ${MAX_ARGUMENT_BYTES} bytes`);
  }
  const capabilities = () => [...CONTAINER_CAPABILITIES];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: request.tty,
      user,
      args,
      env,
      cwd: image.workingDir.startsWith("/") ? image.workingDir : `/${image.workingDir}`,
      // No inheritable set: it would pass capabilities on to programs of users other than root.
      capabilities: { bounding: capabilities(), effective: capabilities(), permitted: capabilities() },
      rlimits: [{
        type: "RLIMIT_NOFILE",
        soft: Math.min(OPEN_FILES_SOFT, facts.maxOpenFiles),
        hard: facts.maxOpenFiles,
      }],
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: false },
    hostname: request.hostname,
    mounts: containerMounts(facts.hostFiles),
    linux: {
      resources: resources(request, facts.cgroup),
      cgroupsPath: `/${facts.containerdNamespace}/${request.id}`,
      namespaces: [
        { type: "pid" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "network", path: facts.netnsPath },
        // With v1 the controllers' mounts would show the container's path all the same.
        ...facts.cgroup.mode === "v2" ? [{ type: "cgroup" }] : [],
      ],
      seccomp: defaultSeccomp({ architecture: facts.architecture, capabilities: CONTAINER_CAPABILITIES }),
      // Users other than root may bind any port and ping, as there is neither a capability nor a raw socket for it.
      sysctl: { "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" },
      maskedPaths: [...MASKED_PATHS],
      readonlyPaths: [...READONLY_PATHS],
    },
  };
}

function check(request: SpecRequest): void {
  const refuse = (reason: string) => {
    throw invalid(request.id, reason);
  };
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(request.id)) refuse("the id is not a plain name");
  const isCount = (value: number) => Number.isSafeInteger(value) && value > 0;
  if (!isCount(request.milliCpus)) refuse(`${request.milliCpus} is not a number of CPU thousandths`);
  if (!isCount(request.pidsLimit)) refuse(`${request.pidsLimit} is not a limit of processes`);
  if (!isCount(request.memoryBytes) || request.memoryBytes < MIN_MEMORY_BYTES) {
    refuse(`a memory limit of ${request.memoryBytes} bytes is below the least, ${MIN_MEMORY_BYTES}`);
  }
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/.test(request.hostname)) {
    refuse(`"${request.hostname.slice(0, 64)}" is not a host name`);
  }
  for (const entry of request.env) {
    if (entry.indexOf("=") < 1) {
      refuse(`environment entry "${entry.split("=", 1)[0].slice(0, 64)}" is not KEY=value`);
    }
  }
  if ([...request.env, ...request.args].some((text) => text.includes("\0"))) {
    refuse("an argument or variable has a NUL character");
  }
}

function argumentBytes(texts: readonly string[]): number {
  const encoder = new TextEncoder();
  return texts.reduce((sum, text) => sum + encoder.encode(text).length + 1, 0);
}

function invalid(id: string, reason: string): RuntimeError {
  return new RuntimeError("invalid", `Cannot build the spec of "${id.slice(0, 64)}": ${reason}`);
}
