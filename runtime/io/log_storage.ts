import { RuntimeError } from "../errors.ts";
import { errorFromIo } from "./io_error.ts";
import { decodeBase, encodeBase } from "./log_window.ts";

/** Holes are made from a multiple of this on, so that no half block stays behind. */
const HOLE_ALIGNMENT_BYTES = 64 << 10;

/** The deadline of one hole, in milliseconds. */
const PUNCH_TIMEOUT_MS = 30_000;

/** What a log does to the disk besides being appended to: the seam where tests put failures. */
export interface LogStorage {
  /** Undefined when there is none, or none that makes sense. */
  readBase(): Promise<number | undefined>;
  /** Durable when it returns. */
  writeBase(base: number): Promise<void>;
  /** Frees `[from, to)`, which reads as zeros from then on; the size stays. Doing it again is harmless. */
  punch(from: number, to: number): Promise<void>;
}

/**
 * The log at `path` and the file beside it that remembers where its window begins. That file is overwritten in place
 * with the same number of bytes, so it needs no space: a full disk cannot keep a log from being trimmed.
 */
export class FileLogStorage implements LogStorage {
  readonly #path: string;
  readonly #basePath: string;

  constructor(path: string, basePath: string) {
    this.#path = path;
    this.#basePath = basePath;
  }

  async readBase(): Promise<number | undefined> {
    try {
      return decodeBase(await Deno.readFile(this.#basePath));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw errorFromIo(error, `read "${this.#basePath}"`);
    }
  }

  async writeBase(base: number): Promise<void> {
    try {
      using file = await Deno.open(this.#basePath, { write: true, create: true, mode: 0o600 });
      await file.write(encodeBase(base));
      await file.syncData();
    } catch (error) {
      throw errorFromIo(error, `write "${this.#basePath}"`);
    }
  }

  punch(from: number, to: number): Promise<void> {
    return punchHole(this.#path, from - from % HOLE_ALIGNMENT_BYTES, to);
  }
}

/**
 * Frees a range of a file in place by `fallocate(1)` of util-linux, which every Debian has.
 * Throws RuntimeError `precondition` when the file system cannot do that.
 */
export async function punchHole(path: string, from: number, to: number): Promise<void> {
  if (to <= from) return;
  const args = ["--punch-hole", "--offset", String(from), "--length", String(to - from), "--", path];
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command("fallocate", {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      env: { LC_ALL: "C" },
      signal: AbortSignal.timeout(PUNCH_TIMEOUT_MS),
    }).output();
  } catch (error) {
    throw errorFromIo(error, `trim log "${path}"`);
  }
  if (output.success) return;
  const reason = new TextDecoder().decode(output.stderr).trim() || `fallocate ended with ${output.code}`;
  const code = /not supported|unsupported/i.test(reason) ? "precondition" : "failed";
  throw new RuntimeError(code, `Cannot trim log "${path}": ${reason}`);
}
