import http2 from "node:http2";
import type net from "node:net";
import type { Log } from "../../runtime/log.ts";
import { readSendQueues, type SendQueues } from "./send_queues.ts";

/** Looks within the time. */
const LOOKS = 4;

/** What {@linkcode StalledWrites} is given. */
export interface StalledWritesOptions {
  /** How long a peer may take nothing of what waits for it, milliseconds; up to a half more, by when it is looked at. */
  stallMs: number;
  /** Told of each connection, and each stream of HTTP/2, that is cut. */
  onCut?: () => void;
  log: Log;
}

/** A connection, as it was looked at last. */
interface SocketLook {
  taken: number;
  queued: number | undefined;
  /** Looks since then at which nothing had moved. */
  still: number;
}

/** A stream, as it was looked at last. */
interface StreamLook {
  waiting: number;
  isMoved: boolean;
  still: number;
}

/**
 * Cuts connections whose peers take nothing of what waits for them, and resets streams of HTTP/2 whose peers give them no
 * window. Where nothing waits, silence is no stall. One timer looks at all of them, and counts looks rather than time: an
 * agent that was itself held up has not given anybody less of it.
 *
 * Of a stream Deno tells only when a piece that was written has been put into frames; what is in frames waits at the
 * connection. A stream is therefore judged only while nothing waits there, and pieces have to be short.
 */
export class StalledWrites implements AsyncDisposable {
  readonly #options: StalledWritesOptions;
  readonly #sockets = new Map<net.Socket, SocketLook>();
  readonly #sessions = new Map<http2.ServerHttp2Session, Map<http2.ServerHttp2Stream, StreamLook>>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #looking: Promise<void> | undefined;
  #isDisposed = false;

  constructor(options: StalledWritesOptions) {
    this.#options = options;
    this.#wait();
  }

  /** Looks at a connection from now on; at the side of TLS that is not encrypted. */
  watch(socket: net.Socket): void {
    this.#sockets.set(socket, { taken: -1, queued: undefined, still: 0 });
    socket.once("close", () => this.#sockets.delete(socket));
  }

  /** Looks at the streams of an HTTP/2 connection from now on. */
  watchStreams(session: http2.ServerHttp2Session): void {
    const streams = new Map<http2.ServerHttp2Stream, StreamLook>();
    this.#sessions.set(session, streams);
    session.once("close", () => this.#sessions.delete(session));
    session.on("stream", (stream) => {
      const look = { waiting: 0, isMoved: false, still: 0 };
      streams.set(stream, look);
      // As much may wait at each look, and another part each time.
      stream.on("drain", () => look.isMoved = true);
      stream.once("close", () => streams.delete(stream));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #wait(): void {
    if (this.#isDisposed) return;
    this.#timer = setTimeout(() => {
      // One that cannot be looked at must not end the looks at all others.
      this.#looking = this.look().catch((error) => {
        this.#options.log.error("cannot look at what API connections take", { error: String(error) });
      }).then(() => this.#wait());
    }, this.#options.stallMs / LOOKS);
  }

  /** Looks once at all of them. */
  async look(): Promise<void> {
    const isAnyWaiting = this.#sockets.keys().some(({ writableLength }) => writableLength > 0);
    const queues = isAnyWaiting ? await readSendQueues() : () => undefined;
    if (this.#isDisposed) return;
    for (const [socket, look] of this.#sockets) {
      if (isStalled(socket, { look, queues })) this.#cut(() => socket.destroy());
    }
    for (const [session, streams] of this.#sessions) {
      // What streams wrote may still be on its way.
      if (session.destroyed || session.socket.writableLength > 0) continue;
      for (const [stream, look] of streams) {
        if (!isStreamStalled(stream, look)) continue;
        this.#cut(() => stream.close(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM));
      }
    }
  }

  #cut(cut: () => void): void {
    this.#options.onCut?.();
    cut();
  }
}

function isStalled(socket: net.Socket, { look, queues }: { look: SocketLook; queues: SendQueues }): boolean {
  const { writableLength, bytesWritten, destroyed } = socket;
  if (writableLength === 0 || destroyed) {
    look.taken = -1;
    return false;
  }
  const taken = bytesWritten - writableLength, queued = queues(socket);
  const isMoved = taken !== look.taken || queued !== look.queued;
  look.still = isMoved ? 0 : look.still + 1;
  look.taken = taken;
  look.queued = queued;
  return look.still >= LOOKS;
}

function isStreamStalled(stream: http2.ServerHttp2Stream, look: StreamLook): boolean {
  const { writableLength, closed, destroyed } = stream;
  const isMoved = look.isMoved || writableLength !== look.waiting || writableLength === 0;
  look.still = isMoved ? 0 : look.still + 1;
  look.waiting = writableLength;
  look.isMoved = false;
  return look.still >= LOOKS && !closed && !destroyed;
}
