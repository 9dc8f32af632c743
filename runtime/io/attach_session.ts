import type { ProcessSession, WindowSize } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { FifoWriter } from "./fifo.ts";
import type { LogFile } from "./log_file.ts";
import { readLog } from "./log_reader.ts";
import type { OutputChunk } from "./output_queue.ts";
import type { TaskProcess } from "./task_process.ts";

/** What a session over a container's init process is made of. */
export interface AttachParts {
  process: TaskProcess;
  pid: number;
  tty: boolean;
  /** Absent when stdin is not wanted, or was not kept open. */
  stdin?: FifoWriter;
  logFile: LogFile;
  /** Where the log ended when the session was asked for. */
  logEnd: number;
  /** Lines of the log before that to begin with. */
  tail: number;
  /** Detaches. */
  signal?: AbortSignal;
  onGap: (bytes: number) => void;
}

/**
 * A container's init process, watched: its log as it grows, its stdin. Any number may be open at once. Disposing
 * detaches and leaves the container as it is; `exitCode` then rejects with `canceled` if it is still pending.
 */
export class AttachSession implements ProcessSession {
  readonly pid: number;
  readonly tty: boolean;
  readonly exitCode: Promise<number>;
  readonly output: AsyncIterable<OutputChunk>;
  readonly #parts: AttachParts;
  readonly #detach = new AbortController();
  readonly #ended = new AbortController();
  readonly #onAbort = () => this.#close();

  constructor(parts: AttachParts) {
    this.#parts = parts;
    this.pid = parts.pid;
    this.tty = parts.tty;
    this.output = this.#read();
    this.exitCode = parts.process.wait(this.#detach.signal).finally(() => {
      this.#ended.abort();
      parts.stdin?.[Symbol.dispose]();
    });
    // Detaching without anyone waiting for the exit code is no error.
    this.exitCode.catch(() => {});
    if (parts.signal?.aborted) this.#close();
    else parts.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  write(data: Uint8Array): Promise<void> {
    if (this.#parts.stdin) return this.#parts.stdin.write(data);
    return Promise.reject(
      new RuntimeError(
        "precondition",
        `Cannot write to "${this.#parts.process.containerId}": stdin is not open`,
      ),
    );
  }

  async closeStdin(): Promise<void> {
    if (!this.#parts.stdin) return;
    await this.#parts.process.closeStdin();
    await this.#parts.stdin.end();
  }

  async resize(window: WindowSize): Promise<void> {
    if (!this.tty) {
      const { containerId } = this.#parts.process;
      throw new RuntimeError("precondition", `Cannot resize "${containerId}": it has no terminal`);
    }
    await this.#parts.process.resize(window);
  }

  kill(signal: number): Promise<void> {
    return this.#parts.process.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
    await this.exitCode.catch(() => {});
  }

  #close(): void {
    this.#parts.signal?.removeEventListener("abort", this.#onAbort);
    this.#detach.abort();
    this.#parts.stdin?.[Symbol.dispose]();
  }

  async *#read(): AsyncGenerator<OutputChunk> {
    const chunks = readLog(this.#parts.logFile, {
      tail: this.#parts.tail,
      endedAt: this.#parts.logEnd,
      follow: true,
      partialLines: true,
      signal: this.#detach.signal,
      writerEnded: this.#ended.signal,
      onGap: this.#parts.onGap,
    });
    for await (const data of chunks) yield { stream: "stdout", data };
  }
}
