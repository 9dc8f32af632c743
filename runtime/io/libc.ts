import { RuntimeError } from "../errors.ts";

/** What the kernel is asked for when a FIFO is opened: never waits for the other end, not inherited by children. */
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const ACCESS = { read: 0o0, write: 0o1, both: 0o2 } as const;

const SYMBOLS = {
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  mkfifo: { parameters: ["buffer", "u32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

const ENXIO = 6;
const ENFILE = 23;
const EMFILE = 24;
const ENOSPC = 28;

/**
 * The three calls of the C library without which FIFOs cannot be used from an event loop: Deno.open waits for the
 * other end on a thread of its pool, and reads there too; a descriptor opened with O_NONBLOCK goes to `net.Socket`,
 * which polls it. None of these calls waits.
 */
export class Libc implements Disposable {
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;

  /** Throws RuntimeError `precondition` when there is no glibc, or no right to call it. */
  constructor() {
    try {
      this.#library = Deno.dlopen("libc.so.6", SYMBOLS);
    } catch (error) {
      throw new RuntimeError("precondition", `Cannot load "libc.so.6": ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** Makes a FIFO only its owner can use. */
  makeFifo(path: string): void {
    if (this.#library.symbols.mkfifo(cString(path), 0o600) !== 0) throw this.#error(`make FIFO "${path}"`);
  }

  /**
   * A descriptor of a FIFO. For reading it reads as ended until someone opens it for writing. For writing it throws
   * `precondition` while nobody reads. For both it always succeeds. Close it, or give it to a socket that will.
   */
  openFifo(path: string, access: keyof typeof ACCESS): number {
    const fd = this.#library.symbols.open(cString(path), ACCESS[access] | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0) throw this.#error(`open FIFO "${path}"`);
    return fd;
  }

  /** Closes a descriptor from {@linkcode openFifo}. */
  close(fd: number): void {
    this.#library.symbols.close(fd);
  }

  [Symbol.dispose](): void {
    this.#library.close();
  }

  #error(action: string): RuntimeError {
    const location = this.#library.symbols.__errno_location();
    const errno = location === null ? 0 : new Deno.UnsafePointerView(location).getInt32();
    if (errno === ENXIO) return new RuntimeError("precondition", `Cannot ${action}: nobody reads it`);
    const exhausted = errno === EMFILE || errno === ENFILE || errno === ENOSPC;
    return new RuntimeError(
      exhausted ? "exhausted" : "failed",
      `Cannot ${action}: error ${errno} of the kernel`,
    );
  }
}

function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new RuntimeError("invalid", `Cannot use path "${text}": it has a NUL character`);
  }
  return new TextEncoder().encode(`${text}\0`);
}
