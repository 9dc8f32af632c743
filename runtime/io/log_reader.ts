import { errorFromIo } from "./io_error.ts";
import type { LogFile } from "./log_file.ts";

/** Bytes a reader holds at most; a longer line comes in pieces of this size. */
export const READ_BUFFER_BYTES = 128 << 10;

/** A log that has not grown for this long after its writer ended is complete, in milliseconds. */
export const QUIET_MS = 150;

const NEWLINE = 10;

/** What of a log is read, and when that ends. */
export interface ReadLogOptions {
  /** Only the last lines; a last line without newline counts. All that is kept when absent. */
  tail?: number;
  /** With `follow`: where the log counted as ended when the reader was made; its end when reading begins otherwise. */
  endedAt?: number;
  /** Goes on with what is appended, until the log is removed. */
  follow?: boolean;
  /** Gives out what is there without waiting for the end of a line. */
  partialLines?: boolean;
  /** Ends the reading quietly. */
  signal?: AbortSignal;
  /** When aborted, a reader that follows ends as soon as the log has stopped growing. */
  writerEnded?: AbortSignal;
  /** So many bytes were given up before this reader came to them, because it was slower than the log. */
  onGap?: (bytes: number) => void;
}

/**
 * Reads a log in chunks of whole lines (except at the very end, and for lines longer than
 * {@linkcode READ_BUFFER_BYTES}). Holds one buffer however large the log, reads only when asked for more, and never
 * sees a byte twice: positions do not change when the log is trimmed. Throws RuntimeError.
 */
export async function* readLog(
  log: LogFile,
  options: ReadLogOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { follow = false, signal } = options;
  const wakeUp = firstOf(signal, options.writerEnded);
  using changes = follow ? log.changes.subscribe() : undefined;
  using file = await openForReading(log.path);
  const end = options.endedAt ?? (await file.stat()).size;
  let position = await startOf(log, file, end, options.tail);
  await file.seek(position, Deno.SeekMode.Start);
  const buffer = new Uint8Array(READ_BUFFER_BYTES);
  let filled = 0;
  let quietSince: number | undefined;
  while (!signal?.aborted) {
    const version = changes?.version ?? 0;
    const room = follow ? buffer.length : Math.min(buffer.length, filled + end - position);
    const read = room > filled ? await file.read(buffer.subarray(filled, room)) : null;
    if (position < log.base) {
      // What was just read may be the hole.
      options.onGap?.(log.base - position);
      filled = 0;
      position = await file.seek(log.base, Deno.SeekMode.Start);
      if (!follow && position >= end) return;
      continue;
    }
    if (read !== null) {
      quietSince = undefined;
      position += read;
      filled += read;
      const complete = completeUpTo(buffer, filled, read, options.partialLines ?? false);
      if (complete > 0) {
        yield buffer.slice(0, complete);
        buffer.copyWithin(0, complete, filled);
        filled -= complete;
      }
      continue;
    }
    if (changes === undefined || log.removed) break;
    if ((await file.stat()).size < position) {
      // Somebody emptied the file.
      filled = 0;
      position = await file.seek(0, Deno.SeekMode.Start);
      continue;
    }
    if (options.writerEnded?.aborted) {
      const now = performance.now();
      quietSince ??= now;
      if (now - quietSince >= QUIET_MS) break;
      await changes.next(version, firstOf(signal, AbortSignal.timeout(QUIET_MS)));
      continue;
    }
    await changes.next(version, wakeUp);
  }
  if (filled > 0 && !signal?.aborted) yield buffer.slice(0, filled);
}

/** A signal that aborts with the first of these. */
function firstOf(...all: (AbortSignal | undefined)[]): AbortSignal | undefined {
  const given = all.filter((signal) => signal !== undefined);
  return given.length > 1 ? AbortSignal.any(given) : given[0];
}

async function openForReading(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path, { read: true });
  } catch (error) {
    throw errorFromIo(error, `read log "${path}"`);
  }
}

/** How many of the `filled` bytes can be given out now, when the last `fresh` of them are new. */
function completeUpTo(buffer: Uint8Array, filled: number, fresh: number, partialLines: boolean): number {
  if (partialLines) return filled;
  const newline = buffer.subarray(filled - fresh, filled).lastIndexOf(NEWLINE);
  if (newline >= 0) return filled - fresh + newline + 1;
  return filled === buffer.length ? filled : 0;
}

/** Where the last `lines` lines begin: looks backwards from the end, block by block. */
async function startOf(log: LogFile, file: Deno.FsFile, end: number, lines?: number): Promise<number> {
  if (lines === undefined) return Math.min(log.base, end);
  if (lines === 0) return end;
  const block = new Uint8Array(READ_BUFFER_BYTES);
  let missing = lines;
  let blockEnd = end;
  while (blockEnd > log.base) {
    const blockStart = Math.max(log.base, blockEnd - block.length);
    await file.seek(blockStart, Deno.SeekMode.Start);
    const bytes = block.subarray(0, blockEnd - blockStart);
    if (!await readFully(file, bytes)) break;
    let at = bytes.length;
    // The newline that ends the last line begins no other one.
    if (blockEnd === end && bytes[at - 1] === NEWLINE) at--;
    while ((at = at > 0 ? bytes.lastIndexOf(NEWLINE, at - 1) : -1) >= 0) {
      if (--missing === 0) return Math.max(log.base, blockStart + at + 1);
    }
    blockEnd = blockStart;
  }
  return Math.min(log.base, end);
}

async function readFully(file: Deno.FsFile, into: Uint8Array): Promise<boolean> {
  for (let filled = 0; filled < into.length;) {
    const read = await file.read(into.subarray(filled));
    if (read === null) return false;
    filled += read;
  }
  return true;
}
