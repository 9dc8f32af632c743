/** The part of the OCI runtime specification (1.0.2) that is written here; JSON names. */
export interface RuntimeSpec {
  ociVersion: string;
  process: SpecProcess;
  root: { path: string; readonly: boolean };
  hostname: string;
  mounts: SpecMount[];
  linux: SpecLinux;
}

/** The init process. */
export interface SpecProcess {
  terminal: boolean;
  user: SpecUser;
  args: string[];
  env: string[];
  cwd: string;
  capabilities: Record<"bounding" | "effective" | "permitted", string[]>;
  rlimits: { type: string; hard: number; soft: number }[];
  noNewPrivileges: boolean;
}

/** Who the process runs as. */
export interface SpecUser {
  uid: number;
  gid: number;
  additionalGids: number[];
}

/** A mount inside the container. */
export interface SpecMount {
  destination: string;
  type: string;
  source: string;
  options: string[];
}

/** What is particular to Linux. */
export interface SpecLinux {
  resources: SpecResources;
  cgroupsPath: string;
  namespaces: { type: string; path?: string }[];
  seccomp: SpecSeccomp;
  sysctl: Record<string, string>;
  maskedPaths: string[];
  readonlyPaths: string[];
}

/** Cgroup limits. */
export interface SpecResources {
  devices: { allow: boolean; type?: string; major?: number; minor?: number; access: string }[];
  memory: { limit: number; swap?: number };
  cpu: { shares: number; quota: number; period: number };
  pids: { limit: number };
}

/** A system call filter. */
export interface SpecSeccomp {
  defaultAction: string;
  defaultErrnoRet: number;
  architectures: string[];
  syscalls: SpecSyscall[];
}

/** One rule of a filter. */
export interface SpecSyscall {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: { index: number; value: number; valueTwo?: number; op: string }[];
}
