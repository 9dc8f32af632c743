import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { LogFile } from "./log_file.ts";
import { pause } from "./task_process.ts";

/**
 * How often all logs are looked at, in milliseconds. One stat a log each time: with inotify every line of every
 * container would wake the agent instead. A log overshoots its limit by what is written in this time.
 */
export const ROTATION_INTERVAL_MS = 2_000;

/** What rotation has done since the start. */
export interface RotationStats {
  /** Windows moved. */
  trims: number;
  /** Bytes given up. */
  trimmedBytes: number;
  failures: number;
}

/** Keeps all logs of a node within their limits: one loop, one log at a time. */
export class LogRotator {
  readonly stats: RotationStats = { trims: 0, trimmedBytes: 0, failures: 0 };
  readonly #files: () => Iterable<LogFile>;
  readonly #log: Log;
  readonly #intervalMs: number;
  readonly #failing = new WeakSet<LogFile>();

  constructor(options: { files: () => Iterable<LogFile>; log: Log; intervalMs?: number }) {
    this.#files = options.files;
    this.#log = options.log;
    this.#intervalMs = options.intervalMs ?? ROTATION_INTERVAL_MS;
  }

  /** Runs until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.rotate(signal);
      await pause(this.#intervalMs, signal).catch(() => {});
    }
  }

  /** Looks at every log once. A failure concerns one log only, and is logged when it begins. */
  async rotate(signal?: AbortSignal): Promise<void> {
    for (const file of [...this.#files()]) {
      if (signal?.aborted) return;
      if (file.removed) continue;
      try {
        const bytes = await file.trim();
        this.#failing.delete(file);
        if (bytes === 0) continue;
        this.stats.trims++;
        this.stats.trimmedBytes += bytes;
        this.#log.debug("trimmed a log", { path: file.path, bytes });
      } catch (error) {
        // Removed, by us or from outside, between the two looks.
        if (file.removed || (error instanceof RuntimeError && error.code === "not-found")) continue;
        this.stats.failures++;
        if (this.#failing.has(file)) continue;
        this.#failing.add(file);
        this.#log.error("cannot trim a log", { path: file.path, error: String(error) });
      }
    }
  }
}
