import type { NodeIdentity } from "../beacon/identity.ts";
import { compact, MAX_LOG_BYTES } from "./compact.ts";
import { entryLine, MAX_LINE_BYTES, peekLine, type ProofEntry } from "./entry.ts";
import type { ProofTail } from "./next_body.ts";

/** Ends the name of a log that is being compacted. */
export const DRAFT_SUFFIX = ".new";
/** Ends the name of a log that is too long and so damaged that it cannot be compacted. */
export const DAMAGED_SUFFIX = ".damaged";

const NEWLINE = 0x0a;
/** What is read of a log to find its end: two of the longest lines. */
const TAIL_BYTES = 2 * MAX_LINE_BYTES;

/**
 * The proofs of one workload in a file, one line each, only ever added to. A line counts once its line feed is there: what
 * a crash left of another is cut off when the log is opened, and the chain goes on. Each line is on the disk (fsync)
 * before {@linkcode ProofLog.append} resolves, so a proof that was shown to anybody is never lost. A file that
 * grows beyond its limit is compacted: written anew under another name, and renamed when it is on the disk.
 */
export class ProofLog {
  readonly path: string;
  readonly #limit: number;
  #size = 0;
  #tail?: ProofTail;
  #signature = "";

  private constructor(path: string, limit: number) {
    this.path = path;
    this.#limit = limit;
  }

  /** Opens it, or makes it with the first line. `onTorn` is told how many bytes were cut off. */
  static async open(
    path: string,
    options: { maxBytes?: number; onTorn?: (bytes: number) => void } = {},
  ): Promise<ProofLog> {
    const log = new ProofLog(path, options.maxBytes ?? MAX_LOG_BYTES);
    await log.#readTail(options.onTorn);
    return log;
  }

  /** The newest proof. */
  get tail(): ProofTail | undefined {
    return this.#tail;
  }

  /** The newest proof with its signature. */
  get newest(): Omit<ProofEntry, "spec" | "key"> | undefined {
    return this.#tail && { ...this.#tail, signature: this.#signature };
  }

  /** Bytes of the file. */
  get size(): number {
    return this.#size;
  }

  /** Adds a proof; resolves when it is on the disk. After a failure the log is as it was before. */
  async append(entry: ProofEntry, options: { identity: NodeIdentity; nowMs: number }): Promise<void> {
    const line = new TextEncoder().encode(`${entryLine(entry)}\n`);
    if (line.length > MAX_LINE_BYTES) {
      throw new Error(`Cannot append to "${this.path}": the proof is too long`);
    }
    if (this.#size + line.length > this.#limit) await this.#makeRoom(line.length, options);
    using file = await Deno.open(this.path, { write: true, create: true, mode: 0o600 });
    try {
      await file.seek(this.#size, Deno.SeekMode.Start);
      await writeAll(file, line);
      await file.syncData();
    } catch (error) {
      await file.truncate(this.#size).catch(() => {}); // what is left is cut off when the log is next opened
      throw error;
    }
    this.#size += line.length;
    this.#tail = { body: entry.body, hash: entry.hash };
    this.#signature = entry.signature;
  }

  /** All complete lines. */
  async lines(): Promise<string[]> {
    return await readLines(this.path);
  }

  /** Compacts it. What is left of a damaged log, which cannot be, is put aside; the new file is invalid as the old one. */
  async #makeRoom(bytes: number, options: { identity: NodeIdentity; nowMs: number }): Promise<void> {
    await this.#compact(options);
    if (this.#size + bytes <= this.#limit) return;
    await Deno.rename(this.path, `${this.path}${DAMAGED_SUFFIX}`);
    this.#size = 0;
  }

  async #compact({ identity, nowMs }: { identity: NodeIdentity; nowMs: number }): Promise<void> {
    const lines = compact(await this.lines(), { identity, nowMs, keptBytes: this.#limit / 2 });
    const bytes = new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
    const draft = `${this.path}${DRAFT_SUFFIX}`;
    {
      using file = await Deno.open(draft, { write: true, create: true, truncate: true, mode: 0o600 });
      await writeAll(file, bytes);
      await file.syncData();
    }
    await Deno.rename(draft, this.path);
    this.#size = bytes.length;
  }

  /** Finds the last line that is whole, and cuts off what is behind it. */
  async #readTail(onTorn?: (bytes: number) => void): Promise<void> {
    let bytes: Uint8Array;
    try {
      using file = await Deno.open(this.path, { read: true });
      this.#size = (await file.stat()).size;
      const fromByte = Math.max(0, this.#size - TAIL_BYTES);
      await file.seek(fromByte, Deno.SeekMode.Start);
      bytes = await readAll(file, this.#size - fromByte);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    const size = this.#size;
    while (bytes.length > 0) {
      const end = bytes.lastIndexOf(NEWLINE);
      const start = bytes.subarray(0, Math.max(0, end)).lastIndexOf(NEWLINE) + 1;
      const isLast = end === bytes.length - 1;
      const entry = isLast ? peekLine(decode(bytes.subarray(start, end))) : undefined;
      if (entry !== undefined && entry.body.kind !== "checkpoint") {
        this.#tail = { body: entry.body, hash: entry.hash };
        this.#signature = entry.signature;
        break;
      }
      // Not a line, or none that anything can follow.
      const kept = isLast ? start : end + 1;
      this.#size -= bytes.length - kept;
      bytes = bytes.subarray(0, kept);
    }
    if (this.#size === size) return;
    onTorn?.(size - this.#size);
    await Deno.truncate(this.path, this.#size);
  }
}

/** The complete lines of a log; none when there is no such file. */
export async function readLines(path: string): Promise<string[]> {
  let bytes: Uint8Array;
  try {
    bytes = await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  return decode(bytes.subarray(0, bytes.lastIndexOf(NEWLINE) + 1)).split("\n").slice(0, -1);
}

/** Bytes that are no UTF-8 become what no genuine line holds at that place, so nothing is lost by not failing here. */
function decode(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

async function readAll(file: Deno.FsFile, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const read = await file.read(bytes.subarray(at));
    if (read === null) break;
    at += read;
  }
  return bytes.subarray(0, at);
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) rest = rest.subarray(await file.write(rest));
}
