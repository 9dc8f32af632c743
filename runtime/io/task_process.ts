import type { ContainerdClient } from "../containerd/client.ts";
import { NO_TIMEOUT } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import type { WindowSize } from "../engine.ts";
import { RuntimeError } from "../errors.ts";

/** How long to pause before asking a containerd again that has gone away, in milliseconds. */
const RETRY_MS = 200;

/** The exit code of a process whose shim died with it: as if by SIGKILL. */
const LOST_EXIT_CODE = 137;

/** One process of a task by name: its init, or an exec'd one. */
export class TaskProcess {
  readonly #client: ContainerdClient;
  readonly containerId: string;
  /** Empty for the init process. */
  readonly execId: string;

  constructor(client: ContainerdClient, containerId: string, execId = "") {
    this.#client = client;
    this.containerId = containerId;
    this.execId = execId;
  }

  /** The exit code, once the process has ended, however often containerd goes away meanwhile. Throws `canceled`. */
  async wait(signal: AbortSignal): Promise<number> {
    for (;;) {
      try {
        const reply = await this.#client.tasks.wait(this.#name(), { signal, timeoutMs: NO_TIMEOUT });
        return reply.exitStatus;
      } catch (error) {
        if (isNotFound(error)) return LOST_EXIT_CODE;
        const passing = error instanceof RuntimeError &&
          (error.code === "unavailable" || error.code === "timeout");
        if (!passing || signal.aborted) throw error;
      }
      await pause(RETRY_MS, signal);
    }
  }

  /** Sends a signal; nothing happens to a process that has ended. Throws RuntimeError. */
  async kill(signalNumber: number): Promise<void> {
    if (!Number.isInteger(signalNumber) || signalNumber < 1 || signalNumber > 64) {
      throw new RuntimeError(
        "invalid",
        `Cannot signal "${this.containerId}": no signal has number ${signalNumber}`,
      );
    }
    try {
      await this.#client.tasks.kill({ ...this.#name(), signal: signalNumber });
    } catch (error) {
      if (!isNotFound(error) && !hasEnded(error)) throw error;
    }
  }

  /** Sets the size of its terminal. Throws RuntimeError. */
  async resize(window: WindowSize): Promise<void> {
    for (const value of [window.columns, window.rows]) {
      if (!Number.isInteger(value) || value < 1 || value > 0xffff) {
        throw new RuntimeError(
          "invalid",
          `Cannot resize the terminal of "${this.containerId}": ${window.columns}x${window.rows} is no size`,
        );
      }
    }
    try {
      await this.#client.tasks.resizePty({ ...this.#name(), width: window.columns, height: window.rows });
    } catch (error) {
      if (!isNotFound(error) && !hasEnded(error)) throw error;
    }
  }

  /** Tells the shim to give up its own writing end of stdin: the process reads the end when all others have too. */
  async closeStdin(): Promise<void> {
    try {
      await this.#client.tasks.closeIO({ ...this.#name(), stdin: true });
    } catch (error) {
      if (!isNotFound(error) && !hasEnded(error)) throw error;
    }
  }

  /**
   * Removes an exec'd process that has ended, or never started, from its task. Retries until `deadlineMs` is over.
   * Throws `timeout` while a child of it holds its streams: the shim waits for that, and ends with the container.
   */
  async delete(deadlineMs: number): Promise<void> {
    const signal = AbortSignal.timeout(deadlineMs);
    for (;;) {
      try {
        await this.#client.tasks.deleteProcess(this.#name(), { timeoutMs: deadlineMs });
        return;
      } catch (error) {
        if (isNotFound(error)) return;
        if (signal.aborted || (error instanceof RuntimeError && error.code === "timeout")) throw error;
      }
      await pause(RETRY_MS, signal).catch(() => {});
    }
  }

  #name(): { containerId: string; execId: string } {
    return { containerId: this.containerId, execId: this.execId };
  }
}

/** Resolves after a while; throws `canceled` when aborted before. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  const canceled = () => new RuntimeError("canceled", "Cannot wait: canceled", { cause: signal.reason });
  if (signal.aborted) return Promise.reject(canceled());
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(canceled());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal.addEventListener("abort", abort, { once: true });
  });
}

function hasEnded(error: unknown): boolean {
  return error instanceof RuntimeError &&
    /process already finished|process not created|not running|stopped|already exited|closed console|is already closed/
      .test(
        error.message,
      );
}
