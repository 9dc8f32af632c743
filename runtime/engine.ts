import type { RuntimeSelection } from "./catalog/mod.ts";
import type { PullProgress } from "./image/mod.ts";
import type { NetworkRules } from "./network/rules.ts";

/**
 * The container engine as the agent sees it: one container per workload, driven through containerd and CNI.
 * Every method throws {@linkcode RuntimeError}. The containerd records and labels are the durable store; an
 * engine holds no state that a restart could lose.
 */
export interface ContainerEngine extends AsyncDisposable {
  /**
   * Creates and starts a container: image, snapshot, netns, CNI, container, task, in this order. A failure at
   * any step undoes the earlier ones in reverse. The image is pulled when it is not present.
   */
  create(spec: ContainerSpec, options?: CreateOptions): Promise<ContainerInfo>;
  /**
   * Starts a container whose task is gone or stopped again under the same id, on a fresh writable layer, with
   * `labels` merged into its labels first. Log file and network identity survive where they can.
   */
  restart(id: string, options?: CreateOptions & { labels?: Record<string, string> }): Promise<ContainerInfo>;
  /**
   * Stops the container (its stop signal, after `graceMs` SIGKILL) and removes every trace of it but its log, which
   * can be read for another day. Idempotent; works at every half-made state, also when there is no task or no record.
   */
  remove(id: string, options?: { graceMs?: number; signal?: AbortSignal }): Promise<void>;
  list(): Promise<ContainerInfo[]>;
  /** Throws `not-found`. */
  get(id: string): Promise<ContainerInfo>;
  /** The OCI runtime spec as stored in containerd. Throws `not-found`. */
  spec(id: string): Promise<Record<string, unknown>>;
  /**
   * What the container's task has used up to now; when the task is gone, the last that is known, which is read when a
   * task is deleted (also after `remove`). Throws `not-found` when nothing is known.
   */
  metrics(id: string, options?: { signal?: AbortSignal }): Promise<ContainerMetrics>;
  setLabels(id: string, labels: Record<string, string>): Promise<void>;
  /** Changes what narrows a container's network, at once and for its restarts; absent means nothing. */
  setNetworkRules(id: string, rules: NetworkRules | undefined): Promise<void>;
  /** Whether {@linkcode logs} has something to give: of a container that is there, or of one removed lately. */
  hasLog(id: string): Promise<boolean>;
  /**
   * Raw log bytes, whole lines except at the very end; ends at the end of the log, or with `signal` on follow. The log of a
   * removed container stays for a while.
   */
  logs(id: string, options?: LogOptions): AsyncIterable<Uint8Array>;
  exec(id: string, options: ExecOptions): Promise<ProcessSession>;
  attach(id: string, options: AttachOptions): Promise<ProcessSession>;
  /**
   * What happens to containers, from containerd's events. Yields `resync` first and whenever events may have been
   * missed (containerd restarted): the consumer compares `list()` with what it believes. Ends with `signal`.
   */
  watch(signal: AbortSignal): AsyncIterable<ContainerEvent>;
  /** Removes leases, netns, veths, snapshots, rules and logs whose container is gone. Safe at any moment. */
  collectGarbage(): Promise<GarbageReport>;
  /** Names of the runtimes that work on this machine: all they need is there, and their programs run. */
  runtimes(): Promise<string[]>;
  /** Whether containerd answers, and its version. Throws `unavailable`. */
  health(): Promise<{ version: string; socket: string; isPrivate: boolean }>;
}

export interface ContainerSpec {
  id: string;
  image: string;
  /** Thousandths of a CPU. */
  milliCpus: number;
  memoryBytes: number;
  pidsLimit: number;
  /** `KEY=value`, over the image's own. */
  env: readonly string[];
  /** Replaces the image's Cmd; empty keeps it. */
  args: readonly string[];
  tty: boolean;
  /** Keep stdin open for attach. */
  stdin: boolean;
  hostname: string;
  runtime: RuntimeSelection;
  /** What narrows its network; absent means nothing. */
  networkRules?: NetworkRules;
  /** The engine adds its own under the prefix `hypercore.engine/`. */
  labels: Record<string, string>;
}

export interface CreateOptions {
  signal?: AbortSignal;
  onPull?: (progress: PullProgress) => void;
  /** "unpacking", "network", "starting". */
  onStep?: (step: string) => void;
}

export type ContainerStatus = "created" | "running" | "paused" | "stopped" | "no-task";

export interface ContainerInfo {
  id: string;
  image: string;
  imageDigest: string;
  runtime: string;
  labels: Record<string, string>;
  status: ContainerStatus;
  /** Zero when there is no task. */
  pid: number;
  /** Of a stopped task. */
  exitCode?: number;
  exitedAtMs?: number;
  /** IPv4 address inside the guest subnet; absent while it has no network. */
  address?: string;
  /** What narrows its network; absent means nothing. */
  networkRules?: NetworkRules;
  createdAtMs: number;
  tty: boolean;
  logPath: string;
}

/** What a task has used since it was started, as its cgroup counts it. */
export interface ContainerMetrics {
  /** When it was read, milliseconds since the epoch. */
  atMs: number;
  /** The task's init process: another one is another run. */
  pid: number;
  /** How long the init process has run, milliseconds, whatever happened to the time of day; absent once it has ended. */
  ageMs?: number;
  /** Of a task that has ended. */
  exitCode?: number;
  /** The task has ended: these are its last figures. */
  isLast: boolean;
  cgroupVersion: 1 | 2;
  /** Microseconds of CPU, on all of them together. */
  cpuUs: number;
  cpuUserUs: number;
  cpuKernelUs: number;
  memoryBytes: number;
  /** Absent where the kernel does not tell. */
  memoryPeakBytes?: number;
  /** Of block devices. */
  ioReadBytes: number;
  ioWriteBytes: number;
  pids: number;
  /** Processes killed for want of memory. */
  oomKills: number;
}

export type ContainerEvent =
  | { type: "resync" }
  /** The init process ended. */
  | { type: "exit"; id: string; pid: number; exitCode: number; atMs: number }
  | { type: "oom"; id: string };

export interface LogOptions {
  follow?: boolean;
  /** Only the last lines. */
  tail?: number;
  signal?: AbortSignal;
}

export interface WindowSize {
  columns: number;
  rows: number;
}

export interface ExecOptions {
  args: readonly string[];
  env?: readonly string[];
  workingDirectory?: string;
  /** `user[:group]` by name or number. */
  user?: string;
  tty?: boolean;
  stdin?: boolean;
  window?: WindowSize;
  signal?: AbortSignal;
}

export interface AttachOptions {
  stdin?: boolean;
  window?: WindowSize;
  /** Replay this many last lines first. */
  tail?: number;
  signal?: AbortSignal;
}

/** A process whose streams are connected: an exec'd one, or a container's init. Dispose detaches (exec: kills). */
export interface ProcessSession extends AsyncDisposable {
  readonly pid: number;
  readonly tty: boolean;
  /** Output in arrival order; with a terminal, and for attach, everything is `stdout`. Ends when the process does. */
  readonly output: AsyncIterable<{ stream: "stdout" | "stderr"; data: Uint8Array }>;
  /** Throws `precondition` when stdin is not open. Waits while the process does not read. */
  write(data: Uint8Array): Promise<void>;
  closeStdin(): Promise<void>;
  resize(window: WindowSize): Promise<void>;
  kill(signal: number): Promise<void>;
  /** Resolves when the process has ended. */
  readonly exitCode: Promise<number>;
}

export interface GarbageReport {
  netns: number;
  addresses: number;
  veths: number;
  rules: number;
  snapshots: number;
  logs: number;
}
