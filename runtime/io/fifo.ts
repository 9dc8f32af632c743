import net from "node:net";
import { RuntimeError } from "../errors.ts";
import type { Libc } from "./libc.ts";

/** Bytes that may wait in one writer, in total. */
export const MAX_PENDING_WRITE_BYTES = 4 << 20;

/** The reading end of a FIFO. Open it before the other side is told of the FIFO, read after that side has opened it. */
export class FifoReader implements Disposable {
  readonly #libc: Libc;
  readonly #fd: number;
  #socket: net.Socket | undefined;
  #closed = false;

  constructor(libc: Libc, path: string) {
    this.#libc = libc;
    this.#fd = libc.openFifo(path, "read");
  }

  /** What is written, until the last writer has closed or this is disposed. Reads no faster than it is asked to. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    if (this.#closed) return;
    const socket = this.#socket = new net.Socket({ fd: this.#fd, readable: true, writable: false });
    try {
      for await (const chunk of socket) yield chunk as Uint8Array;
    } catch (error) {
      if (!this.#closed) {
        throw new RuntimeError("failed", "Cannot read output: the FIFO broke", { cause: error });
      }
    } finally {
      this.#closed = true;
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#socket) this.#socket.destroy();
    else this.#libc.close(this.#fd);
  }
}

/** The writing end of a FIFO. */
export class FifoWriter implements Disposable {
  readonly #socket: net.Socket;
  #closed = false;
  #pendingBytes = 0;

  /** `reader: "absent"` is for a FIFO that is not read yet; otherwise throws `precondition` when nobody reads. */
  constructor(libc: Libc, path: string, options: { reader: "present" | "absent" }) {
    const fd = libc.openFifo(path, options.reader === "present" ? "write" : "both");
    this.#socket = new net.Socket({ fd, readable: false, writable: true });
    this.#socket.on("error", () => this.#closed = true);
  }

  /** Resolves when the FIFO has taken all of it. Throws `precondition` when it is closed before. */
  write(data: Uint8Array): Promise<void> {
    const closed = (cause?: Error) =>
      new RuntimeError("precondition", "Cannot write to stdin: it is closed", { cause });
    if (this.#closed) return Promise.reject(closed());
    if (this.#pendingBytes + data.length > MAX_PENDING_WRITE_BYTES) {
      return Promise.reject(
        new RuntimeError(
          "exhausted",
          `Cannot write to stdin: more than ${MAX_PENDING_WRITE_BYTES} bytes wait`,
        ),
      );
    }
    this.#pendingBytes += data.length;
    return new Promise((resolve, reject) => {
      this.#socket.write(data, (error) => {
        this.#pendingBytes -= data.length;
        if (error) reject(closed(error));
        else resolve();
      });
    });
  }

  /** Closes this end after what was written before. */
  end(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    return new Promise((resolve) => {
      this.#socket.once("close", () => resolve());
      this.#socket.end(() => this.#socket.destroy());
    });
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#socket.destroy();
  }
}
