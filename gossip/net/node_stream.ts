import type { Socket } from "node:net";
import type { ByteStream } from "./transport.ts";

/**
 * A socket of `node:net` as a {@linkcode ByteStream}, for {@linkcode SocketTransport.accept}: another listener owns
 * the TCP port, looks at the first byte, puts it back (`unshift`) and hands over what is memberlist's.
 *
 * Bytes are pulled, so that a peer cannot fill this side's memory, and a write is done when the system took it. A
 * peer may close its half after the request and still gets the answer. From here on the socket is this object's.
 */
export function nodeStream(socket: Socket): ByteStream {
  return new NodeStream(socket);
}

class NodeStream implements ByteStream {
  readonly #socket: Socket;
  #error: Error | undefined;
  #ended = false;
  #closed = false;
  /** Wakes the read that waits. */
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    // The default would end our half as soon as the peer ended its own.
    socket.allowHalfOpen = true;
    socket.setNoDelay(true);
    const wake = () => this.#wake?.();
    socket.on("readable", wake);
    socket.on("end", () => {
      this.#ended = true;
      wake();
    });
    // Stays for good: an error that nobody listens to would end the process.
    socket.on("error", (error) => {
      this.#error ??= error;
      wake();
    });
    socket.on("close", wake);
  }

  async read(into: Uint8Array): Promise<number | null> {
    if (into.length === 0) return 0;
    if (this.#wake !== undefined) throw new Error("Cannot read stream: another read waits");
    for (;;) {
      this.#check("read");
      const socket = this.#socket;
      // Even with nothing there: only a read that finds nothing brings the end to light.
      const bytes: Uint8Array | null = socket.read(Math.min(into.length, socket.readableLength) || undefined);
      if (bytes !== null) {
        into.set(bytes);
        return bytes.length;
      }
      if (this.#ended || socket.readableEnded) return null;
      if (socket.destroyed) throw new Error("Cannot read stream: it was cut off");
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#wake = undefined;
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.#check("write");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = this.#socket;
    const gone = () => reject(this.#error ?? new Error("Cannot write stream: it was cut off"));
    socket.once("close", gone);
    try {
      if (socket.destroyed) gone();
      else socket.write(bytes, (error) => error ? reject(error) : resolve());
      await promise;
    } catch (error) {
      this.#check("write");
      throw error;
    } finally {
      socket.off("close", gone);
    }
    return bytes.length;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const socket = this.#socket;
    // What was written is with the system; what is still on its way belongs to a peer that does not read.
    if (socket.writableLength > 0) socket.destroy();
    else socket.destroySoon();
    this.#wake?.();
  }

  #check(action: string): void {
    if (this.#closed) throw new Error(`Cannot ${action} stream: it is closed`);
    if (this.#error !== undefined) throw this.#error;
  }
}
