import type { SerfEvent } from "../serf/events.ts";
import {
  MAX_SNAPSHOT_BYTES,
  type Replay,
  replaySnapshot,
  type SnapshotClocks,
  SnapshotLog,
} from "../serf/snapshot.ts";
import type { Log } from "../log.ts";
import type { Clock } from "./transport.ts";

const FLUSH_MS = 500;

/** Keeps a snapshot on disk: appends at most every 500 ms, rewrites it when it has grown. */
export class SnapshotFile implements AsyncDisposable {
  readonly #path: string;
  readonly #lines: SnapshotLog;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #readClocks: () => SnapshotClocks;
  #pending = "";
  #cancel: (() => void) | undefined;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(
    options: {
      path: string;
      lines: SnapshotLog;
      clock: Clock;
      log: Log;
      readClocks: () => SnapshotClocks;
    },
  ) {
    this.#path = options.path;
    this.#lines = options.lines;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#readClocks = options.readClocks;
  }

  /** What the file says; nothing where there is none. Throws where it cannot be read. */
  static async read(
    path: string,
    options: { rejoinAfterLeave?: boolean },
  ): Promise<{ replay: Replay; bytes: number }> {
    try {
      const { size } = await Deno.stat(path);
      if (size > MAX_SNAPSHOT_BYTES) {
        throw new Error(`it has ${size} bytes, the limit is ${MAX_SNAPSHOT_BYTES}`);
      }
      const text = await Deno.readTextFile(path);
      return { replay: replaySnapshot(text, options), bytes: text.length };
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) return { replay: replaySnapshot(""), bytes: 0 };
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`Cannot read snapshot "${path}": ${reason}`, { cause });
    }
  }

  /** Goes on with a snapshot that was read. */
  static open(
    options: {
      path: string;
      replay: Replay;
      bytes: number;
      clock: Clock;
      log: Log;
      readClocks: () => SnapshotClocks;
    },
  ): SnapshotFile {
    const file = new SnapshotFile({ ...options, lines: new SnapshotLog(options.replay, options.bytes) });
    file.#arm();
    return file;
  }

  /** Notes what happened. */
  event(event: SerfEvent): void {
    if (!this.#closed) this.#pending += this.#lines.event(event);
  }

  /** Notes that this node left, on disk when the promise resolves. */
  async leave(): Promise<void> {
    this.#pending += this.#lines.leave();
    this.#flush();
    await this.#writing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#cancel?.();
    this.#flush();
    this.#closed = true;
    await this.#writing;
  }

  #arm(): void {
    this.#cancel = this.#clock.after(FLUSH_MS, () => {
      this.#flush();
      this.#arm();
    });
  }

  #flush(): void {
    this.#pending += this.#lines.clocks(this.#readClocks());
    const text = this.#pending;
    this.#pending = "";
    if (text === "") return;
    const compacted = this.#lines.wantsCompaction ? this.#lines.compact() : undefined;
    this.#writing = this.#writing.then(() => this.#write(text, compacted));
  }

  async #write(text: string, compacted: string | undefined): Promise<void> {
    try {
      if (compacted === undefined) {
        await Deno.writeTextFile(this.#path, text, { append: true, mode: 0o600 });
      } else {
        await Deno.writeTextFile(`${this.#path}.compact`, compacted, { mode: 0o600 });
        await Deno.rename(`${this.#path}.compact`, this.#path);
      }
    } catch (error) {
      this.#log.error("cannot write gossip snapshot", {
        path: this.#path,
        reason: error instanceof Error ? error.message : String(error),
      });
    }
  }
}
