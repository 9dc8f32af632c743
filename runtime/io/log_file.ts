import { errorFromIo } from "./io_error.ts";
import { FileChanges } from "./file_changes.ts";
import { FileLogStorage, type LogStorage } from "./log_storage.ts";
import { capacityOf, type LogLimits, MAX_UNCUT_LINE_BYTES, trimTarget } from "./log_window.ts";

const SCAN_BLOCK_BYTES = 64 << 10;
const NEWLINE = 10;

/**
 * One container's log: a file that the shim appends to, of which `[base, size)` is kept. Positions in it are for
 * life. Trimming first remembers the new base, then frees what lies before it; an agent that dies in between frees
 * it at its next start. Nothing that is kept is ever copied, so nothing can be lost or doubled.
 */
export class LogFile {
  readonly path: string;
  readonly basePath: string;
  readonly changes: FileChanges;
  readonly #limits: LogLimits;
  readonly #storage: LogStorage;
  #base = 0;
  #freed = 0;
  #removed = false;

  constructor(path: string, options: { limits: LogLimits; storage?: LogStorage }) {
    this.path = path;
    this.basePath = basePathOf(path);
    this.changes = new FileChanges(path);
    this.#limits = options.limits;
    this.#storage = options.storage ?? new FileLogStorage(path, this.basePath);
  }

  /** The first position that can be read. */
  get base(): number {
    return this.#base;
  }

  /** Whether {@linkcode remove} was called: nothing will be appended any more. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Makes the files where they are missing, and learns where the window begins. Throws RuntimeError. */
  async open(): Promise<void> {
    try {
      using file = await Deno.open(this.path, { write: true, create: true, mode: 0o600 });
      const { size } = await file.stat();
      const stored = await this.#storage.readBase();
      this.#base = stored !== undefined && stored <= size ? stored : await this.#findBase(size);
      if (stored !== this.#base) await this.#storage.writeBase(this.#base);
    } catch (error) {
      throw errorFromIo(error, `open log "${this.path}"`);
    }
    // A trim that was cut off after its first step is finished here.
    if (this.#base > 0) await this.#storage.punch(0, this.#base);
    this.#freed = this.#base;
  }

  /** Where the log ends now. */
  async size(): Promise<number> {
    try {
      return (await Deno.stat(this.path)).size;
    } catch (error) {
      throw errorFromIo(error, `read log "${this.path}"`);
    }
  }

  /** Moves the window when the log is over its limits; the number of bytes given up. */
  async trim(): Promise<number> {
    const size = await this.size();
    if (size < this.#base) {
      // Somebody emptied the file: its positions begin anew.
      await this.#storage.writeBase(0);
      this.#base = this.#freed = 0;
      return 0;
    }
    const before = this.#base;
    const target = trimTarget(before, size, this.#limits);
    if (target !== undefined) {
      const cut = await this.#lineStart(target, size);
      await this.#storage.writeBase(cut);
      // Readers look at `base` after each read, so it must change before the bytes do.
      this.#base = cut;
    }
    if (this.#freed < this.#base) {
      await this.#storage.punch(this.#freed, this.#base);
      this.#freed = this.#base;
    }
    return this.#base - before;
  }

  /** Deletes the files; readers that follow end. */
  async remove(): Promise<void> {
    this.#removed = true;
    this.changes.notify();
    for (const path of [this.path, this.basePath]) {
      try {
        await Deno.remove(path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw errorFromIo(error, `remove log "${path}"`);
      }
    }
  }

  /** The start of the first line at or after `target`, or `target` itself when none starts soon. */
  async #lineStart(target: number, size: number): Promise<number> {
    using file = await Deno.open(this.path, { read: true });
    await file.seek(target - 1, Deno.SeekMode.Start);
    const block = new Uint8Array(SCAN_BLOCK_BYTES);
    const end = Math.min(size, target + MAX_UNCUT_LINE_BYTES);
    for (let position = target - 1; position < end;) {
      const read = await file.read(block);
      if (read === null) break;
      const found = block.subarray(0, read).indexOf(NEWLINE);
      if (found >= 0 && position + found < end) return position + found + 1;
      position += read;
    }
    return target;
  }

  /** Where the window begins when the note of it is lost: behind the hole. */
  async #findBase(size: number): Promise<number> {
    using file = await Deno.open(this.path, { read: true });
    // The window is never larger than this but for what was appended since the last trim.
    let position = Math.max(0, size - capacityOf(this.#limits));
    await file.seek(position, Deno.SeekMode.Start);
    const block = new Uint8Array(SCAN_BLOCK_BYTES);
    const start = position;
    for (;;) {
      const read = await file.read(block);
      if (read === null) return size;
      const found = block.subarray(0, read).findIndex((byte) => byte !== 0);
      if (found < 0) {
        position += read;
        continue;
      }
      position += found;
      return position === start && start > 0 ? await this.#lineStart(start, size) : position;
    }
  }
}

/** Where the base of the log at `logPath` is remembered. */
export function basePathOf(logPath: string): string {
  return `${logPath}.base`;
}
