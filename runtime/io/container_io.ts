import type { ContainerdClient } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import type { AttachOptions, ExecOptions, LogOptions, ProcessSession } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import { AttachSession } from "./attach_session.ts";
import { startExec } from "./exec.ts";
import type { ExecSession } from "./exec_session.ts";
import { FifoWriter } from "./fifo.ts";
import { EndedLogs } from "./ended_logs.ts";
import { errorFromIo } from "./io_error.ts";
import { KeyedLock } from "./keyed_lock.ts";
import { Libc } from "./libc.ts";
import { LogFile } from "./log_file.ts";
import { readLog } from "./log_reader.ts";
import { punchHole } from "./log_storage.ts";
import type { LogLimits } from "./log_window.ts";
import type { ContainerUser } from "./process_spec.ts";
import { LogRotator, type RotationStats } from "./rotator.ts";
import { type StdioOptions, type TaskStdio, taskStdio } from "./stdio.ts";
import { TaskProcess } from "./task_process.ts";

/** Most exec'd processes of one agent at once, unless told otherwise. */
export const MAX_EXECS = 256;

/** How long an exec'd process that an earlier agent left behind may take to go, in milliseconds. */
const LEFTOVER_TIMEOUT_MS = 5_000;

const ID_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?$/;
const LOG_SUFFIX = ".log";
const SIGKILL = 9;
const TASK_STOPPED = 3;

/** What {@linkcode ContainerIo} is given. */
export interface ContainerIoOptions {
  client: ContainerdClient;
  /** Where logs lie: `<logDir>/<id>.log`. Absolute. */
  logDir: string;
  /** Where the logs of removed containers lie for a while; absent means that a log goes with its container. Absolute. */
  endedLogDir?: string;
  /** Where FIFOs lie; need not survive a reboot. Absolute. */
  stateDir: string;
  limits: LogLimits;
  /** The numbers of `user[:group]` in a container, such as `resolveContainerUser` gives. Throws RuntimeError. */
  resolveUser: (containerId: string, user: string, signal?: AbortSignal) => Promise<ContainerUser>;
  log: Log;
  /** Most exec'd processes at once; {@linkcode MAX_EXECS} by default. */
  maxExecs?: number;
  /** How often logs are looked at; for tests. */
  rotationIntervalMs?: number;
}

/** Logs, exec and attach of all containers of a node. All durable state is files named after the container. */
export class ContainerIo implements AsyncDisposable {
  readonly #options: ContainerIoOptions;
  readonly #files = new Map<string, LogFile>();
  readonly #execs = new Set<ExecSession>();
  readonly #execDirectories = new Set<string>();
  readonly #execStarts = new KeyedLock();
  readonly #rotator: LogRotator;
  readonly #ended: EndedLogs | undefined;
  readonly #stopped = new AbortController();
  #libc: Libc | undefined;
  #rotating: Promise<void> | undefined;
  #pendingExecs = 0;

  constructor(options: ContainerIoOptions) {
    this.#options = options;
    const { endedLogDir, limits: logLimits } = options;
    if (endedLogDir !== undefined) this.#ended = new EndedLogs(endedLogDir, { logLimits });
    this.#rotator = new LogRotator({
      files: () => this.#files.values(),
      log: options.log,
      intervalMs: options.rotationIntervalMs,
    });
  }

  /** Makes the directories and begins to keep logs within their limits. Throws RuntimeError. */
  async start(): Promise<void> {
    for (const path of [this.#options.logDir, this.#stdinRoot, this.#execRoot]) {
      try {
        await Deno.mkdir(path, { recursive: true, mode: 0o700 });
      } catch (error) {
        throw errorFromIo(error, `make directory "${path}"`);
      }
    }
    await this.#ended?.start();
    this.#libc = new Libc();
    if (await this.#canPunch()) this.#rotating = this.#rotator.run(this.#stopped.signal);
  }

  /** What rotation has done since the start. */
  get rotation(): Readonly<RotationStats> {
    return this.#rotator.stats;
  }

  /** Exec'd processes now. */
  get execCount(): number {
    return this.#execs.size + this.#pendingExecs;
  }

  /** Where the container's log lies. Throws `invalid` for what is no id. */
  logPath(id: string): string {
    return `${this.#options.logDir}/${checkedId(id)}${LOG_SUFFIX}`;
  }

  /**
   * Makes what a container's streams need and says what to tell `Tasks.Create`. A log that is there is appended to;
   * the stdin FIFO is a fresh one each time. Call before each creation of a task. Throws RuntimeError.
   */
  async prepare(id: string, options: StdioOptions): Promise<TaskStdio> {
    const file = await this.#file(id);
    const stdinPath = this.#stdinPath(id);
    await removeIfThere(stdinPath);
    if (options.stdin) this.#requireLibc().makeFifo(stdinPath);
    return taskStdio({ log: file.path, stdin: stdinPath }, options);
  }

  /**
   * Takes over the logs of containers that exist already, and ends exec'd processes that an earlier agent left
   * behind. Call at start, before anything is exec'd. One container's failure is logged and stops no other.
   */
  async adopt(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      try {
        await this.#file(id);
      } catch (error) {
        this.#options.log.error("cannot adopt a log", { id, error: String(error) });
      }
    }
    await this.#endLeftoverExecs();
  }

  /** See {@linkcode ContainerEngine.logs}. Throws `not-found` when there is no log. */
  async *logs(id: string, options: LogOptions = {}): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    checkCount(options.tail, "tail");
    const onGap = this.#reportGap(id);
    try {
      yield* readLog(await this.#existingFile(id), { ...options, onGap });
    } catch (error) {
      const isGone = error instanceof RuntimeError && error.code === "not-found";
      const ended = isGone ? await this.#ended?.find(id) : undefined;
      if (ended === undefined) throw error;
      yield* readLog(ended, { ...options, follow: false, onGap });
    }
  }

  /** Whether there is a log of this id, of a container that is there or of one that was. */
  async hasLog(id: string): Promise<boolean> {
    return await Deno.stat(this.logPath(id)).then(() => true, () => false) ||
      await this.#ended?.find(id) !== undefined;
  }

  /** See {@linkcode ContainerEngine.exec}. With `options.signal` the process is killed. */
  async exec(id: string, options: ExecOptions): Promise<ProcessSession> {
    checkedId(id);
    const limit = this.#options.maxExecs ?? MAX_EXECS;
    if (this.execCount >= limit) {
      throw new RuntimeError(
        "exhausted",
        `Cannot exec in "${id}": ${limit} exec'd processes run already`,
      );
    }
    const execId = `exec-${crypto.randomUUID()}`;
    const directory = `${this.#execRoot}/${id}/${execId}`;
    this.#pendingExecs++;
    this.#execDirectories.add(directory);
    try {
      const session = await startExec(id, options, {
        client: this.#options.client,
        libc: this.#requireLibc(),
        log: this.#options.log,
        resolveUser: this.#options.resolveUser,
        directory,
        execId,
        starts: this.#execStarts,
      });
      this.#track(session, directory, options.signal);
      return session;
    } catch (error) {
      this.#execDirectories.delete(directory);
      if (options.signal?.aborted && !(error instanceof RuntimeError)) {
        throw new RuntimeError("canceled", `Cannot exec in "${id}": canceled`, { cause: error });
      }
      throw error;
    } finally {
      this.#pendingExecs--;
    }
  }

  /** See {@linkcode ContainerEngine.attach}. Throws `precondition` when the container does not run. */
  async attach(id: string, options: AttachOptions): Promise<ProcessSession> {
    checkCount(options.tail, "tail");
    const logFile = await this.#existingFile(id);
    const { process } = await this.#options.client.tasks.get({ containerId: id }, { signal: options.signal })
      .catch((error) => {
        if (!isNotFound(error)) throw error;
        throw new RuntimeError("precondition", `Cannot attach to "${id}": it does not run`, { cause: error });
      });
    if (!process || process.status === TASK_STOPPED) {
      throw new RuntimeError("precondition", `Cannot attach to "${id}": it does not run`);
    }
    if (options.stdin && process.stdin === "") {
      throw new RuntimeError("precondition", `Cannot attach to "${id}": its stdin was not kept open`);
    }
    const task = new TaskProcess(this.#options.client, id);
    const logEnd = await logFile.size();
    if (process.terminal && options.window) await task.resize(options.window);
    const stdin = options.stdin ? this.#openStdin(id, process.stdin) : undefined;
    return new AttachSession({
      process: task,
      pid: process.pid,
      tty: process.terminal,
      stdin,
      logFile,
      logEnd,
      tail: options.tail ?? 0,
      signal: options.signal,
      onGap: this.#reportGap(id),
    });
  }

  /**
   * Removes the container's FIFOs and log; readers of the log end. With `keepLog` the log can still be read for a while.
   * Idempotent.
   */
  async release(id: string, options: { keepLog?: boolean } = {}): Promise<void> {
    const path = this.logPath(id);
    const file = this.#files.get(id) ?? new LogFile(path, { limits: this.#options.limits });
    this.#files.delete(id);
    if (options.keepLog) await this.#ended?.keep(id, path);
    await file.remove();
    await removeIfThere(this.#stdinPath(id));
    await removeIfThere(`${this.#execRoot}/${id}`);
  }

  /**
   * Removes logs and FIFOs of containers that are neither in `liveIds` nor known to this object, which are those of
   * an earlier agent. The number of logs removed.
   */
  async collectGarbage(liveIds: ReadonlySet<string>): Promise<number> {
    const isLive = (id: string) => liveIds.has(id) || this.#files.has(id);
    let logs = await this.#ended?.sweep(Date.now()) ?? 0;
    for (const name of await namesIn(this.#options.logDir)) {
      const id = name.replace(/\.log(\.base)?$/, "");
      if (id === name || !ID_PATTERN.test(id) || isLive(id)) continue;
      await removeIfThere(`${this.#options.logDir}/${name}`);
      if (name.endsWith(LOG_SUFFIX)) logs++;
    }
    for (const root of [this.#stdinRoot, this.#execRoot]) {
      for (const id of await namesIn(root)) {
        const used = [...this.#execDirectories].some((directory) => directory.startsWith(`${root}/${id}/`));
        if (!isLive(id) && !used) await removeIfThere(`${root}/${id}`);
      }
    }
    return logs;
  }

  /** Kills what was exec'd and ends rotation; containers and their logs go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    await this.#rotating;
    await Promise.all([...this.#execs].map((session) => session[Symbol.asyncDispose]()));
    this.#libc?.[Symbol.dispose]();
    this.#libc = undefined;
  }

  get #stdinRoot(): string {
    return `${this.#options.stateDir}/stdin`;
  }

  get #execRoot(): string {
    return `${this.#options.stateDir}/exec`;
  }

  #stdinPath(id: string): string {
    return `${this.#stdinRoot}/${checkedId(id)}`;
  }

  #requireLibc(): Libc {
    if (!this.#libc) throw new Error("ContainerIo is not started");
    return this.#libc;
  }

  async #file(id: string): Promise<LogFile> {
    const known = this.#files.get(id);
    const file = known ?? new LogFile(this.logPath(id), { limits: this.#options.limits });
    this.#files.set(id, file);
    try {
      await file.open();
    } catch (error) {
      if (!known) this.#files.delete(id);
      throw error;
    }
    return file;
  }

  async #existingFile(id: string): Promise<LogFile> {
    const known = this.#files.get(id);
    if (known) return known;
    const path = this.logPath(id);
    try {
      await Deno.stat(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        throw new RuntimeError("not-found", `Cannot read the log of "${id}": there is none`, {
          cause: error,
        });
      }
      throw errorFromIo(error, `read log "${path}"`);
    }
    return await this.#file(id);
  }

  #openStdin(id: string, path: string): FifoWriter {
    try {
      return new FifoWriter(this.#requireLibc(), path, { reader: "present" });
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.code !== "precondition") throw error;
      throw new RuntimeError("precondition", `Cannot attach to "${id}": its stdin is closed`, {
        cause: error,
      });
    }
  }

  #track(session: ExecSession, directory: string, signal?: AbortSignal): void {
    this.#execs.add(session);
    const kill = () => {
      session[Symbol.asyncDispose]().catch((error) =>
        this.#options.log.warn("cannot end an exec'd process", { error: String(error) })
      );
    };
    if (signal?.aborted) kill();
    else signal?.addEventListener("abort", kill, { once: true });
    void session.finished.then(() => {
      signal?.removeEventListener("abort", kill);
      this.#execs.delete(session);
      this.#execDirectories.delete(directory);
    });
  }

  #reportGap(id: string): (bytes: number) => void {
    return (bytes) =>
      this.#options.log.warn("a log was trimmed before a slow reader got there", { id, bytes });
  }

  async #endLeftoverExecs(): Promise<void> {
    for (const id of await namesIn(this.#execRoot)) {
      for (const execId of await namesIn(`${this.#execRoot}/${id}`)) {
        const directory = `${this.#execRoot}/${id}/${execId}`;
        if (this.#execDirectories.has(directory)) continue;
        const process = new TaskProcess(this.#options.client, id, execId);
        try {
          await process.kill(SIGKILL);
          await process.wait(AbortSignal.timeout(LEFTOVER_TIMEOUT_MS));
          await process.delete(LEFTOVER_TIMEOUT_MS);
        } catch (error) {
          this.#options.log.warn("cannot end a left over exec'd process", {
            id,
            execId,
            error: String(error),
          });
        }
        await removeIfThere(directory);
      }
    }
  }

  /** Whether the file system of the logs can free a part of a file. */
  async #canPunch(): Promise<boolean> {
    const probe = `${this.#options.logDir}/.probe-${crypto.randomUUID()}`;
    try {
      await Deno.writeFile(probe, new Uint8Array(8192), { mode: 0o600 });
      await punchHole(probe, 0, 4096);
      return true;
    } catch (error) {
      this.#options.log.error("logs are kept without limit: the file system cannot free a part of a file", {
        logDir: this.#options.logDir,
        error: String(error),
      });
      return false;
    } finally {
      await removeIfThere(probe);
    }
  }
}

function checkedId(id: string): string {
  if (ID_PATTERN.test(id)) return id;
  throw new RuntimeError("invalid", `Cannot use "${id.slice(0, 64)}": it is no container id`);
}

function checkCount(value: number | undefined, name: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) return;
  throw new RuntimeError("invalid", `Cannot read logs: ${name} ${value} is no count`);
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(path))).map((entry) => entry.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return [];
    throw errorFromIo(error, `list directory "${path}"`);
  }
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw errorFromIo(error, `remove "${path}"`);
  }
}
