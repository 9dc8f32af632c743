import type {
  AttachOptions,
  ContainerEngine,
  ContainerEvent,
  ContainerInfo,
  ContainerMetrics,
  ContainerSpec,
  CreateOptions,
  ExecOptions,
  GarbageReport,
  LogOptions,
  ProcessSession,
} from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { NetworkRules } from "../network/mod.ts";
import { memoryMetrics } from "./memory_metrics.ts";

/** What a {@linkcode MemoryEngine} is made of. */
export interface MemoryEngineOptions {
  /** Milliseconds since the epoch; `Date.now` by default. */
  nowMs?: () => number;
}

/** Answers an exec in a {@linkcode MemoryEngine}. */
export type ExecHandler = (id: string, options: ExecOptions) => { output: string; exitCode: number };

/** Exit codes of a process that SIGKILL and SIGTERM end. */
const [EXIT_KILLED, EXIT_TERMINATED] = [137, 143];
const FIRST_PID = 1000;
/** As the real engine has them. */
const MAX_ID_LENGTH = 76;
const ID = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

interface Entry {
  spec: ContainerSpec;
  info: ContainerInfo;
  log: Uint8Array[];
  startedAtMs: number;
}

/**
 * A {@linkcode ContainerEngine} that keeps everything in memory and runs nothing: what the agent's tests drive. It
 * keeps the contract of the real one (see `engine_contract.ts`); the methods below {@linkcode exit} make things
 * happen that otherwise only a real container does.
 *
 * @example
 * ```ts
 * import { MemoryEngine } from "./memory_engine.ts";
 * await using engine = new MemoryEngine();
 * engine.failNext("create", new Error("disk full"));
 * ```
 */
export class MemoryEngine implements ContainerEngine {
  /** Images that `create` finds; absent means any. */
  images?: Set<string>;
  runtimes = () => Promise.resolve(["runc"]);
  /** What `exec` does; by default prints its arguments and exits 0. */
  onExec: ExecHandler = (_id, options) => ({ output: `${options.args.join(" ")}\n`, exitCode: 0 });
  /** Called at each step of create and restart; a promise holds the operation there. */
  onStep?: (id: string, step: string) => Promise<void> | void;
  /** Whether containerd "answers"; every call fails with `unavailable` while not. */
  #reachable = true;
  readonly #entries = new Map<string, Entry>();
  readonly #busy = new Map<string, Promise<unknown>>();
  readonly #failures = new Map<string, Error[]>();
  readonly #last = new Map<string, ContainerMetrics>();
  readonly #used = new Map<string, Partial<ContainerMetrics>>();
  readonly #watchers = new Set<(event: ContainerEvent) => void>();
  readonly #changed = new Set<() => void>();
  readonly #nowMs: () => number;
  #nextPid = FIRST_PID;
  #nextAddress = 2;

  constructor(options: MemoryEngineOptions = {}) {
    this.#nowMs = options.nowMs ?? Date.now;
  }

  create(spec: ContainerSpec, options: CreateOptions = {}): Promise<ContainerInfo> {
    return this.#exclusive(spec.id, async () => {
      await this.#begin("create", spec.id, options.signal);
      if (this.#entries.has(spec.id)) {
        throw new RuntimeError("already-exists", `Cannot create container "${spec.id}": it exists already`);
      }
      if (this.images !== undefined && !this.images.has(spec.image)) {
        throw new RuntimeError("not-found", `Cannot pull image "${spec.image}": not found`);
      }
      await this.#steps("create", spec.id, options);
      const info: ContainerInfo = {
        id: spec.id,
        image: spec.image,
        imageDigest: `sha256:${"0".repeat(64)}`,
        runtime: spec.runtime.name,
        labels: { ...spec.labels },
        status: "running",
        pid: this.#nextPid++,
        address: `192.168.127.${this.#nextAddress++}`,
        createdAtMs: this.#nowMs(),
        tty: spec.tty,
        ...(spec.networkRules !== undefined && { networkRules: spec.networkRules }),
        logPath: `/memory/${spec.id}.log`,
      };
      this.#entries.set(spec.id, { spec, info, log: [], startedAtMs: this.#nowMs() });
      return copy(info);
    });
  }

  restart(
    id: string,
    options: CreateOptions & { labels?: Record<string, string> } = {},
  ): Promise<ContainerInfo> {
    return this.#exclusive(id, async () => {
      await this.#begin("restart", id, options.signal);
      const entry = this.#entry("restart", id);
      const { info } = entry;
      if (info.status === "running" || info.status === "paused") {
        throw new RuntimeError("precondition", `Cannot restart container "${id}": it is ${info.status}`);
      }
      Object.assign(info.labels, options.labels);
      await this.#steps("restart", id, options);
      Object.assign(info, { status: "running", pid: this.#nextPid++ });
      entry.startedAtMs = this.#nowMs();
      delete info.exitCode;
      delete info.exitedAtMs;
      return copy(info);
    });
  }

  remove(id: string, options: { graceMs?: number; signal?: AbortSignal } = {}): Promise<void> {
    return this.#exclusive(id, async () => {
      await this.#begin("remove", id, options.signal);
      if (this.#entries.get(id)?.info.status === "running") this.exit(id, EXIT_TERMINATED);
      this.#keepLast(id);
      this.#entries.delete(id);
      this.#notifyChange();
    });
  }

  async list(): Promise<ContainerInfo[]> {
    await this.#begin("list");
    return [...this.#entries.values()].map((entry) => copy(entry.info));
  }

  async get(id: string): Promise<ContainerInfo> {
    await this.#begin("get", id);
    return copy(this.#entry("get", id).info);
  }

  async spec(id: string): Promise<Record<string, unknown>> {
    await this.#begin("spec", id);
    const { spec } = this.#entry("get", id);
    return {
      ociVersion: "1.0.2",
      hostname: spec.hostname,
      process: { args: [...spec.args], env: [...spec.env] },
    };
  }

  async metrics(id: string, options: { signal?: AbortSignal } = {}): Promise<ContainerMetrics> {
    await this.#begin("metrics", id, options.signal);
    this.#keepLast(id);
    const metrics = this.#last.get(id);
    if (metrics !== undefined) return { ...metrics };
    throw new RuntimeError("not-found", `Cannot measure container "${id}": it has no task`);
  }

  async setNetworkRules(id: string, rules: NetworkRules | undefined): Promise<void> {
    await this.#begin("setNetworkRules", id);
    const { info } = this.#entry("set network rules of", id);
    if (rules === undefined) delete info.networkRules;
    else info.networkRules = rules;
  }

  async setLabels(id: string, labels: Record<string, string>): Promise<void> {
    await this.#begin("setLabels", id);
    Object.assign(this.#entry("label", id).info.labels, labels);
  }

  hasLog(id: string): Promise<boolean> {
    return Promise.resolve(this.#entries.has(id));
  }

  async *logs(id: string, options: LogOptions = {}): AsyncIterable<Uint8Array> {
    await this.#begin("logs", id, undefined);
    const entry = this.#entry("read the log of", id);
    let next = options.tail === undefined ? 0 : Math.max(0, entry.log.length - options.tail);
    for (;;) {
      while (next < entry.log.length) yield entry.log[next++];
      if (!options.follow || options.signal?.aborted || this.#entries.get(id) !== entry) return;
      await this.#change(options.signal);
    }
  }

  async exec(id: string, options: ExecOptions): Promise<ProcessSession> {
    await this.#begin("exec", id, options.signal);
    const { info } = this.#entry("exec in", id);
    if (info.status !== "running") {
      throw new RuntimeError("precondition", `Cannot exec in container "${id}": it is not running`);
    }
    const { output, exitCode } = this.onExec(id, options);
    return session({
      pid: this.#nextPid++,
      tty: options.tty ?? false,
      stdin: options.stdin ?? false,
      output: (async function* () {
        yield await Promise.resolve({ stream: "stdout" as const, data: new TextEncoder().encode(output) });
      })(),
      exitCode: Promise.resolve(exitCode),
    });
  }

  async attach(id: string, options: AttachOptions): Promise<ProcessSession> {
    await this.#begin("attach", id, options.signal);
    const { info, spec } = this.#entry("attach to", id);
    if (info.status !== "running") {
      throw new RuntimeError("precondition", `Cannot attach to container "${id}": it is not running`);
    }
    const end = new AbortController();
    const exitCode = this.#exitOf(id);
    exitCode.then(() => end.abort());
    const lines = this.logs(id, { follow: true, tail: options.tail ?? 0, signal: end.signal });
    return session({
      pid: info.pid,
      tty: spec.tty,
      stdin: (options.stdin ?? false) && spec.stdin,
      output: (async function* () {
        for await (const data of lines) yield { stream: "stdout" as const, data };
      })(),
      exitCode,
      kill: (signal) => this.exit(id, 128 + signal),
      detach: () => end.abort(),
    });
  }

  async *watch(signal: AbortSignal): AsyncIterable<ContainerEvent> {
    const queue: ContainerEvent[] = [{ type: "resync" }];
    let wake = () => {};
    const push = (event: ContainerEvent) => {
      queue.push(event);
      wake();
    };
    const onAbort = () => wake();
    this.#watchers.add(push);
    signal.addEventListener("abort", onAbort);
    try {
      while (!signal.aborted) {
        const event = queue.shift();
        if (event !== undefined) yield event;
        else await new Promise<void>((resolve) => wake = resolve);
      }
    } finally {
      this.#watchers.delete(push);
      signal.removeEventListener("abort", onAbort);
    }
  }

  async collectGarbage(): Promise<GarbageReport> {
    await this.#begin("collectGarbage");
    return { netns: 0, addresses: 0, veths: 0, rules: 0, snapshots: 0, logs: 0 };
  }

  async health(): Promise<{ version: string; socket: string; isPrivate: boolean }> {
    await this.#begin("health");
    return { version: "memory", socket: "/memory/containerd.sock", isPrivate: true };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  // ---- What makes things happen.

  /** The container's init process ends; watchers hear of it. */
  exit(id: string, exitCode: number): void {
    const { info } = this.#entry("end", id);
    if (info.status !== "running" && info.status !== "paused") {
      throw new RuntimeError("precondition", `Cannot end container "${id}": it is not running`);
    }
    const { pid } = info;
    Object.assign(info, { status: "stopped", exitCode, exitedAtMs: this.#nowMs() });
    this.#emit({ type: "exit", id, pid, exitCode, atMs: info.exitedAtMs! });
  }

  /** What the task uses is from now on this, instead of half of a CPU. */
  use(id: string, metrics: Partial<ContainerMetrics>): void {
    this.#used.set(id, metrics);
  }

  /** The kernel kills the container for its memory: an `oom` event, then an exit with 137. */
  oom(id: string): void {
    this.#entry("end", id);
    this.#emit({ type: "oom", id });
    this.exit(id, EXIT_KILLED);
  }

  /** The container writes to its log. */
  writeLog(id: string, text: string): void {
    const entry = this.#entry("write the log of", id);
    for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) entry.log.push(new TextEncoder().encode(line));
    this.#notifyChange();
  }

  /** The task is lost (its shim was killed): the record stays, without a task; watchers hear an exit with 137. */
  loseTask(id: string): void {
    this.exit(id, EXIT_KILLED);
    this.#keepLast(id);
    const { info } = this.#entry("end", id);
    Object.assign(info, { status: "no-task", pid: 0 });
    delete info.exitCode;
    delete info.exitedAtMs;
  }

  /** The next call of this method fails so; calls queue up. */
  failNext(
    method: Exclude<keyof ContainerEngine, typeof Symbol.asyncDispose | "watch">,
    error: Error,
  ): void {
    const queue = this.#failures.get(method) ?? [];
    queue.push(error);
    this.#failures.set(method, queue);
  }

  /** containerd goes away or comes back; on coming back watchers get `resync`. Containers live on meanwhile. */
  setReachable(reachable: boolean): void {
    if (reachable && !this.#reachable) this.#emit({ type: "resync" });
    this.#reachable = reachable;
  }

  // ---- Helpers.

  #keepLast(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.info.status === "no-task") return;
    const { info, startedAtMs } = entry;
    this.#last.set(id, {
      ...memoryMetrics(info, { startedAtMs, nowMs: this.#nowMs() }),
      ...this.#used.get(id),
    });
  }

  #begin(method: string, id?: string, signal?: AbortSignal): Promise<void> {
    const what = id === undefined ? method : `${method} container "${id}"`;
    if (id !== undefined && (id.length > MAX_ID_LENGTH || !ID.test(id))) {
      return Promise.reject(new RuntimeError("invalid", `Cannot ${what}: it is no container id`));
    }
    if (signal?.aborted) {
      return Promise.reject(
        new RuntimeError("canceled", `Cannot ${what}: canceled`, { cause: signal.reason }),
      );
    }
    if (!this.#reachable) {
      return Promise.reject(new RuntimeError("unavailable", `Cannot ${what}: containerd does not answer`));
    }
    const failure = this.#failures.get(method)?.shift();
    return failure === undefined ? Promise.resolve() : Promise.reject(failure);
  }

  async #steps(verb: string, id: string, options: CreateOptions): Promise<void> {
    for (const step of ["unpacking", "network", "starting"]) {
      options.onStep?.(step);
      await this.onStep?.(id, step);
      if (options.signal?.aborted) {
        throw new RuntimeError("canceled", `Cannot ${verb} container "${id}": canceled`, {
          cause: options.signal.reason,
        });
      }
    }
  }

  #entry(verb: string, id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      throw new RuntimeError("not-found", `Cannot ${verb} container "${id}": not found`);
    }
    return entry;
  }

  /** One operation at a time per id, in order of arrival. */
  async #exclusive<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(id) ?? Promise.resolve();
    const run = before.then(work, work);
    this.#busy.set(id, run);
    try {
      return await run;
    } finally {
      if (this.#busy.get(id) === run) this.#busy.delete(id);
    }
  }

  async #exitOf(id: string): Promise<number> {
    const end = new AbortController();
    for await (const event of this.watch(end.signal)) {
      if (event.type === "exit" && event.id === id) return event.exitCode;
    }
    throw new RuntimeError("failed", `Cannot wait for container "${id}": the engine is closed`);
  }

  #emit(event: ContainerEvent): void {
    for (const push of this.#watchers) push(event);
    this.#notifyChange();
  }

  #notifyChange(): void {
    for (const wake of this.#changed) wake();
    this.#changed.clear();
  }

  #change(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#changed.add(resolve);
      signal?.addEventListener("abort", () => resolve(), { once: true });
    });
  }
}

function copy(info: ContainerInfo): ContainerInfo {
  return { ...info, labels: { ...info.labels } };
}

function session(options: {
  pid: number;
  tty: boolean;
  stdin: boolean;
  output: AsyncIterable<{ stream: "stdout" | "stderr"; data: Uint8Array }>;
  exitCode: Promise<number>;
  kill?: (signal: number) => void;
  detach?: () => void;
}): ProcessSession {
  const { pid, tty, output, exitCode } = options;
  return {
    pid,
    tty,
    output,
    exitCode,
    write: () =>
      options.stdin
        ? Promise.resolve()
        : Promise.reject(new RuntimeError("precondition", "Cannot write to the process: stdin is not open")),
    closeStdin: () => Promise.resolve(),
    resize: () => Promise.resolve(),
    kill(signal) {
      options.kill?.(signal);
      return Promise.resolve();
    },
    [Symbol.asyncDispose]() {
      options.detach?.();
      return Promise.resolve();
    },
  };
}
