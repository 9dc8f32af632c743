import { MAX_LOG_BYTES } from "./compact.ts";
import { DAMAGED_SUFFIX, DRAFT_SUFFIX, ProofLog, readLines } from "./log_file.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";

/** The proofs' folder in the data dir. */
export const PROOFS_DIR = "proofs";
/** How long the log of a stopped workload is kept, milliseconds: a day, as its tombstone. */
export const STOPPED_LOG_RETENTION_MS = 24 * 3_600_000;
/** Most bytes of all logs of stopped workloads together; the oldest go first. */
export const MAX_STOPPED_LOG_BYTES = 256 << 20;

const SUFFIX = ".jsonl";
const ID = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const MAX_ID_LENGTH = 76;

/** The logs of all workloads of this node, each in a file of its own. */
export class ProofLogs {
  readonly dir: string;
  readonly #log: Log;
  readonly #maxLogBytes: number;

  constructor(options: { dir: string; log: Log; maxLogBytes?: number }) {
    this.dir = options.dir;
    this.#log = options.log;
    this.#maxLogBytes = options.maxLogBytes ?? MAX_LOG_BYTES;
  }

  /** Opens the log of a workload, which may be empty yet. Throws `invalid` for what is no id. */
  async open(id: string): Promise<ProofLog> {
    const path = this.#path(id);
    await Deno.mkdir(this.dir, { recursive: true, mode: 0o700 });
    return await ProofLog.open(path, {
      maxBytes: this.#maxLogBytes,
      onTorn: (bytes) => this.#log.warn("the end of a proof log was torn and is cut off", { path, bytes }),
    });
  }

  /** All complete lines of a workload's log; none when there is no log. Leaves what a crash tore as it is. */
  async lines(id: string): Promise<string[]> {
    return await readLines(this.#path(id));
  }

  /** Ids that have a log. */
  async ids(): Promise<string[]> {
    return [...new Set((await this.#list()).map(({ id }) => id))];
  }

  /** Removes logs of workloads that are not `live`: those past their time, and the oldest beyond the limit of bytes. */
  async sweep(
    live: ReadonlySet<string>,
    options: { nowMs: number; retentionMs?: number; maxBytes?: number },
  ): Promise<number> {
    const { nowMs, retentionMs = STOPPED_LOG_RETENTION_MS, maxBytes = MAX_STOPPED_LOG_BYTES } = options;
    const stopped = (await this.#list()).filter(({ id }) => !live.has(id)).sort((a, b) =>
      b.changedMs - a.changedMs
    );
    let bytes = 0;
    let removed = 0;
    for (const { path, size, changedMs } of stopped) {
      bytes += size;
      if (bytes <= maxBytes && nowMs - changedMs <= retentionMs) continue;
      await Deno.remove(path).catch((error) => {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
      removed++;
    }
    return removed;
  }

  async #list() {
    const found: { id: string; path: string; size: number; changedMs: number }[] = [];
    try {
      for await (const { name, isFile } of Deno.readDir(this.dir)) {
        // A draft is what a crash left of a compaction.
        const base = [DRAFT_SUFFIX, DAMAGED_SUFFIX].find((end) => name.endsWith(`${SUFFIX}${end}`)) ?? "";
        const id = name.slice(0, name.length - base.length - SUFFIX.length);
        if (!isFile || name !== `${id}${SUFFIX}${base}` || !isId(id)) continue;
        const path = `${this.dir}/${name}`;
        const { size, mtime } = await Deno.stat(path);
        found.push({ id, path, size, changedMs: mtime?.getTime() ?? 0 });
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return found;
  }

  #path(id: string): string {
    if (isId(id)) return `${this.dir}/${id}${SUFFIX}`;
    throw new RuntimeError(
      "invalid",
      `Cannot find proofs of "${id.slice(0, MAX_ID_LENGTH)}": it is no workload id`,
    );
  }
}

function isId(id: string): boolean {
  return id.length <= MAX_ID_LENGTH && ID.test(id);
}
