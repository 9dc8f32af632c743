import http2 from "node:http2";
import { Duplex } from "node:stream";
import type { ClientInfo, WorkerContext } from "./context.ts";
import { Http2Stream, resetStream } from "./http2_stream.ts";
import { closeQuietly, writeAll } from "./sink.ts";
import type { Source } from "./source.ts";

const PREFACE = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const RESET_WINDOW_MS = 10_000;

/** Whether what has been read is HTTP/2's connection preface (RFC 9113 §3.4); undefined while it may still be. */
export function isHttp2Preface(source: Source): boolean | undefined {
  const count = Math.min(source.buffered, PREFACE.length);
  for (let i = 0; i < count; i++) {
    if (source.buffer[source.start + i] !== PREFACE[i]) return false;
  }
  return count === PREFACE.length ? true : undefined;
}

/** One HTTP/2 client connection: the frames are node:http2's work, each stream is relayed by {@linkcode Http2Stream}. */
export class Http2Connection {
  deadlineMs: number;
  readonly #context: WorkerContext;
  readonly #client: ClientInfo;
  readonly #streams = new Set<Http2Stream>();
  readonly #done = Promise.withResolvers<void>();
  #socket?: Duplex;
  #draining = false;
  #resets = 0;
  #resetsSinceMs = 0;
  #closed = false;

  constructor(
    private readonly conn: Deno.Conn,
    private readonly source: Source,
    options: { context: WorkerContext; client: ClientInfo },
  ) {
    this.#context = options.context;
    this.#client = options.client;
    this.deadlineMs = this.#idleDeadline();
  }

  get isIdle(): boolean {
    return this.#streams.size === 0;
  }

  /** Serves until either side ends the connection. */
  async run(): Promise<void> {
    const { limits, deadlines } = this.#context;
    deadlines.add(this);
    const server = http2.createServer({
      maxHeaderListPairs: limits.maxHeaders,
      maxSessionMemory: 16,
      settings: {
        enableConnectProtocol: true,
        maxConcurrentStreams: limits.maxStreams,
        maxHeaderListSize: limits.maxHeadBytes,
        initialWindowSize: 256 * 1024,
      },
    });
    server.on("session", (session) => {
      session.on("close", () => this.close());
      session.on("error", () => this.close());
    });
    server.on("sessionError", () => this.close());
    server.on("stream", (stream, headers) => this.#serve(stream, headers));
    this.#socket = duplex(this.conn, this.source, () => this.close());
    server.emit("connection", this.#socket);
    try {
      await this.#done.promise;
    } finally {
      this.close();
    }
  }

  /** Ends the connection after the streams in hand. */
  drain(): void {
    this.#draining = true;
    if (this.isIdle) this.close();
  }

  /**
   * Closes at once, by taking the session's socket away, a turn later: `destroy()` of a session within one of its own
   * callbacks frees memory twice (Deno 2.9) and takes the whole process down.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#context.deadlines.remove(this);
    for (const stream of this.#streams) stream.abort();
    setTimeout(() => {
      this.#socket?.destroy();
      closeQuietly(this.conn);
      this.source.release();
      this.#done.resolve();
    });
  }

  onDeadline(): void {
    this.close();
  }

  #serve(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
    if (this.#draining || this.#closed) {
      stream.on("error", () => {}); // "closed with error code", which we ask for here
      return resetStream(stream, http2.constants.NGHTTP2_REFUSED_STREAM);
    }
    this.deadlineMs = Infinity;
    const relay = new Http2Stream(stream, { context: this.#context, client: this.#client });
    this.#streams.add(relay);
    stream.on("aborted", () => this.#countReset());
    relay.run(headers).finally(() => {
      this.#streams.delete(relay);
      if (!this.isIdle) return;
      if (this.#draining) this.#socket?.end();
      this.deadlineMs = this.#idleDeadline();
    });
  }

  /** Streams opened only to be reset cost more than they should (CVE-2023-44487). */
  #countReset(): void {
    const now = this.#context.now();
    if (now - this.#resetsSinceMs > RESET_WINDOW_MS) {
      this.#resetsSinceMs = now;
      this.#resets = 0;
    }
    if (++this.#resets > this.#context.limits.maxStreamResets) this.close();
  }

  #idleDeadline(): number {
    return this.#context.deadlines.nowMs + this.#context.limits.keepAliveTimeoutMs;
  }
}

/** What node:http2 asks of a socket, on a Deno connection of which some bytes have been read already. */
function duplex(conn: Deno.Conn, source: Source, onClose: () => void): Duplex {
  const stream: Duplex = new Duplex({
    read() {
      const read = source.buffered > 0 ? Promise.resolve(source.buffered) : source.fill();
      read.then(() => {
        // A copy: the session keeps what it is given, the buffer is read into again.
        const bytes = source.buffer.slice(source.start, source.end);
        source.start = source.end;
        stream.push(bytes.length === 0 ? null : bytes);
      }).catch((error) => stream.destroy(error));
    },
    write(chunk: Uint8Array, _encoding, done) {
      writeAll(conn, chunk).then(() => done(), done);
    },
    final(done) {
      conn.closeWrite().then(() => done(), () => done());
    },
    destroy(error, done) {
      closeQuietly(conn);
      onClose();
      done(error);
    },
  });
  stream.on("error", () => onClose());
  return stream;
}
