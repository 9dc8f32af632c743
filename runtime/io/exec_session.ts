import type { ProcessSession, WindowSize } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { FifoReader, FifoWriter } from "./fifo.ts";
import { OutputQueue } from "./output_queue.ts";
import { pause, type TaskProcess } from "./task_process.ts";

/** Bytes of each stream read after the process has ended: more than all pipes on the way can hold together. */
export const MAX_DRAIN_BYTES = 1 << 20;

/** Silence after which an ended process's output is complete although a child of it keeps the pipe open. */
const DRAIN_IDLE_MS = 1_000;

/** How long a killed process may take to be reported as ended, in milliseconds. */
const KILL_TIMEOUT_MS = 10_000;

/** How long containerd is asked to forget an ended process, in milliseconds. */
const DELETE_TIMEOUT_MS = 5_000;

const SIGKILL = 9;

/** What a session over an exec'd process is made of; the session owns and disposes all of it. */
export interface ExecParts {
  process: TaskProcess;
  pid: number;
  tty: boolean;
  stdin?: FifoWriter;
  stdout: FifoReader;
  /** Absent with a terminal. */
  stderr?: FifoReader;
  /** The exit code, from containerd. */
  exited: Promise<number>;
  /** Ends the waiting for `exited`. */
  stopWaiting: () => void;
  /** Removes what the session had on disk. */
  cleanUp: () => Promise<void>;
  log: Log;
}

/** A running exec'd process. It does not outlive the session: disposing kills it. */
export class ExecSession implements ProcessSession {
  readonly pid: number;
  readonly tty: boolean;
  readonly exitCode: Promise<number>;
  readonly #parts: ExecParts;
  readonly #queue = new OutputQueue();
  readonly #finished: Promise<void>;
  #ended = false;
  #activity = 0;

  constructor(parts: ExecParts) {
    this.#parts = parts;
    this.pid = parts.pid;
    this.tty = parts.tty;
    const pumps = [this.#pump("stdout", parts.stdout)];
    if (parts.stderr) pumps.push(this.#pump("stderr", parts.stderr));
    this.exitCode = this.#run(Promise.all(pumps));
    this.#finished = this.exitCode.then(() => {}, () => {}).then(() => this.#release());
  }

  get output(): OutputQueue {
    return this.#queue;
  }

  /** Resolves when nothing of the session is left, in containerd, in the kernel or on disk. */
  get finished(): Promise<void> {
    return this.#finished;
  }

  write(data: Uint8Array): Promise<void> {
    if (this.#parts.stdin) return this.#parts.stdin.write(data);
    return Promise.reject(
      new RuntimeError("precondition", `Cannot write to process ${this.pid}: its stdin is not open`),
    );
  }

  async closeStdin(): Promise<void> {
    if (!this.#parts.stdin) return;
    await this.#parts.process.closeStdin();
    await this.#parts.stdin.end();
  }

  async resize(window: WindowSize): Promise<void> {
    if (!this.tty) {
      throw new RuntimeError("precondition", `Cannot resize process ${this.pid}: it has no terminal`);
    }
    if (!this.#ended) await this.#parts.process.resize(window);
  }

  async kill(signal: number): Promise<void> {
    if (!this.#ended) await this.#parts.process.kill(signal);
  }

  /** Kills the process if it runs, and waits until nothing of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#queue.discard();
    if (!this.#ended) {
      try {
        await this.#parts.process.kill(SIGKILL);
      } catch (error) {
        this.#parts.log.warn("cannot kill an exec'd process", this.#fields(error));
      }
    }
    const timer = setTimeout(() => this.#parts.stopWaiting(), KILL_TIMEOUT_MS);
    await this.#finished;
    clearTimeout(timer);
  }

  async #run(pumps: Promise<unknown>): Promise<number> {
    let failure: unknown;
    try {
      const exitCode = await this.#parts.exited;
      this.#ended = true;
      this.#queue.lift();
      await this.#drained(pumps);
      return exitCode;
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      this.#ended = true;
      this.#closeStreams();
      this.#queue.close(failure);
    }
  }

  async #pump(stream: "stdout" | "stderr", fifo: FifoReader): Promise<void> {
    let bytesAfterEnd = 0;
    for await (const data of fifo.chunks()) {
      this.#activity++;
      await this.#queue.push({ stream, data });
      if (this.#ended) bytesAfterEnd += data.length;
      if (bytesAfterEnd >= MAX_DRAIN_BYTES) return;
    }
  }

  /** All that the process wrote is in the queue: its pipes ended, or only children of it still hold them. */
  async #drained(pumps: Promise<unknown>): Promise<void> {
    const idle = new AbortController();
    const watchIdle = async () => {
      for (let seen = -1; seen !== this.#activity;) {
        seen = this.#activity;
        await pause(DRAIN_IDLE_MS, idle.signal);
      }
    };
    try {
      await Promise.race([pumps, watchIdle().catch(() => {})]);
    } finally {
      idle.abort();
    }
  }

  #closeStreams(): void {
    this.#parts.stdin?.[Symbol.dispose]();
    this.#parts.stdout[Symbol.dispose]();
    this.#parts.stderr?.[Symbol.dispose]();
  }

  async #release(): Promise<void> {
    this.#parts.stopWaiting();
    try {
      await this.#parts.process.delete(DELETE_TIMEOUT_MS);
    } catch (error) {
      const level = error instanceof RuntimeError && error.code === "timeout" ? "debug" : "warn";
      this.#parts.log[level]("cannot remove an exec'd process", this.#fields(error));
    }
    await this.#parts.cleanUp();
  }

  #fields(error: unknown): Record<string, unknown> {
    const { containerId, execId } = this.#parts.process;
    return { containerId, execId, error: error instanceof Error ? error.message : String(error) };
  }
}
