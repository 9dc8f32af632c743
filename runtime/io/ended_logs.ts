import { errorFromIo } from "./io_error.ts";
import { basePathOf, LogFile } from "./log_file.ts";
import type { LogLimits } from "./log_window.ts";

/** Time that the log of a removed container stays, milliseconds: as long as the cluster remembers that it was stopped. */
export const ENDED_LOG_MS = 24 * 3_600_000;
/** Bytes that all of them may take on the disk; the oldest go first. */
export const MAX_ENDED_LOG_BYTES = 256 << 20;
/** Logs kept at once. */
export const MAX_ENDED_LOGS = 4_096;

const SUFFIX = ".log";
const BLOCK_BYTES = 512;

/** Bounds of {@linkcode EndedLogs}; tests set others. */
export interface EndedLogLimits {
  maxAgeMs: number;
  maxBytes: number;
  maxLogs: number;
}

/** The logs of containers that are gone, one for each id, each kept for a while within bounds. */
export class EndedLogs {
  readonly #dir: string;
  readonly #logLimits: LogLimits;
  readonly #limits: EndedLogLimits;

  constructor(dir: string, options: { logLimits: LogLimits; limits?: Partial<EndedLogLimits> }) {
    this.#dir = dir;
    this.#logLimits = options.logLimits;
    this.#limits = {
      maxAgeMs: ENDED_LOG_MS,
      maxBytes: MAX_ENDED_LOG_BYTES,
      maxLogs: MAX_ENDED_LOGS,
      ...options.limits,
    };
  }

  /** Makes the folder. Throws RuntimeError. */
  async start(): Promise<void> {
    try {
      await Deno.mkdir(this.#dir, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw errorFromIo(error, `make directory "${this.#dir}"`);
    }
  }

  /** Takes over the log at `path`; an empty one is not worth it. One of an earlier container of this id gives way. */
  async keep(id: string, path: string): Promise<void> {
    const kept = this.#path(id);
    try {
      if ((await Deno.stat(path)).size === 0) return;
      await Deno.rename(basePathOf(path), basePathOf(kept)).catch(ignoreNotFound);
      await Deno.rename(path, kept);
      const now = new Date();
      await Deno.utime(kept, now, now);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw errorFromIo(error, `keep log "${path}"`);
    }
  }

  /** The log of a container that is gone; undefined where none is kept. */
  async find(id: string): Promise<LogFile | undefined> {
    const path = this.#path(id);
    try {
      await Deno.stat(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw errorFromIo(error, `read log "${path}"`);
    }
    const file = new LogFile(path, { limits: this.#logLimits });
    await file.open();
    return file;
  }

  /** Removes what is too old, or too much. The number of logs removed. */
  async sweep(nowMs: number): Promise<number> {
    const logs: { name: string; endedMs: number; bytes: number }[] = [];
    for await (const { name } of Deno.readDir(this.#dir)) {
      if (!name.endsWith(SUFFIX)) continue;
      const stat = await Deno.stat(`${this.#dir}/${name}`).catch(ignoreNotFound);
      if (stat === undefined) continue;
      // Logs have holes: what counts is what the disk gives for them.
      const bytes = stat.blocks === null ? stat.size : stat.blocks * BLOCK_BYTES;
      logs.push({ name, endedMs: stat.mtime?.getTime() ?? 0, bytes });
    }
    logs.sort((a, b) => b.endedMs - a.endedMs);
    let [count, bytes, removed] = [0, 0, 0];
    for (const log of logs) {
      count++;
      bytes += log.bytes;
      const { maxAgeMs, maxBytes, maxLogs } = this.#limits;
      if (nowMs - log.endedMs <= maxAgeMs && bytes <= maxBytes && count <= maxLogs) continue;
      const path = `${this.#dir}/${log.name}`;
      for (const each of [path, basePathOf(path)]) await Deno.remove(each).catch(ignoreNotFound);
      removed++;
    }
    return removed;
  }

  #path(id: string): string {
    return `${this.#dir}/${id}${SUFFIX}`;
  }
}

function ignoreNotFound(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
