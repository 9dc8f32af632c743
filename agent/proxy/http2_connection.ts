import type { ClientInfo, WorkerContext } from "./context.ts";
import type { Watched } from "./deadlines.ts";
import { type Http2Server, openHttp2Server } from "./http2_server.ts";
import { Http2Stream } from "./http2_stream.ts";
import { closeQuietly } from "./sink.ts";
import { Source } from "./source.ts";
import { tunnel } from "./tunnel.ts";

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

/**
 * One HTTP/2 client connection. Its bytes go as they are to an HTTP server of Deno's own that serves just this connection
 * and calls back for each stream, which {@linkcode Http2Stream} relays: Deno.serve takes no connection that has been
 * accepted already, and node:http2 of Deno 2.9 can take the whole process down.
 */
export class Http2Connection implements Watched {
  deadlineMs: number;
  readonly #context: WorkerContext;
  readonly #client: ClientInfo;
  readonly #streams = new Set<Http2Stream>();
  readonly #closing = new AbortController();
  #server?: Http2Server;
  #served = false;
  #draining = false;
  #resets = 0;
  #resetsSinceMs = 0;

  constructor(
    private readonly conn: Deno.Conn,
    private readonly source: Source,
    options: { context: WorkerContext; client: ClientInfo },
  ) {
    this.#context = options.context;
    this.#client = options.client;
    this.deadlineMs = this.#context.deadlines.nowMs + this.#context.limits.headTimeoutMs;
  }

  get isIdle(): boolean {
    return this.#streams.size === 0;
  }

  /** Serves until either side ends the connection. */
  async run(): Promise<void> {
    const { deadlines, buffers } = this.#context;
    deadlines.add(this);
    try {
      const server = await this.#open();
      if (!server) return;
      const inner = new Source(server.conn, buffers);
      if (this.#draining) this.#shutdown(server);
      await tunnel(
        { conn: this.conn, source: this.source },
        { conn: server.conn, source: inner },
        (_bytes, direction) => {
          // What a client sends outside of a stream does not keep its connection alive.
          if (direction === "out" && this.#served && this.isIdle) this.deadlineMs = this.#idleDeadline();
        },
      );
      // Not after a failure: then one direction may still be writing from its buffer.
      inner.release();
      this.source.release();
    } finally {
      this.#end();
      await this.#server?.close();
    }
  }

  /** Ends the connection after the streams in hand; the client is told to open no others. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    if (this.#server) this.#shutdown(this.#server);
  }

  /** Closes at once, but for answers that have been written. */
  close(): void {
    if (this.isIdle) this.#end();
    else if (this.#leave()) this.#context.closer.cut(this.conn);
  }

  /** Closes when what was written is with the system. */
  #end(): void {
    if (this.#leave()) this.#context.closer.end(this.conn);
  }

  /** Lets go of all but the connection; false when that has been done. */
  #leave(): boolean {
    if (this.#closing.signal.aborted) return false;
    this.#closing.abort(new Deno.errors.Interrupted("the connection has been closed"));
    this.#context.deadlines.remove(this);
    for (const stream of this.#streams) stream.abort();
    if (this.#server) closeQuietly(this.#server.conn);
    return true;
  }

  onDeadline(): void {
    this.close();
  }

  async #open(): Promise<Http2Server | undefined> {
    const { signal } = this.#closing;
    try {
      return this.#server = await openHttp2Server((request) => this.#serve(request), signal);
    } catch (error) {
      if (!signal.aborted) {
        console.error(`proxy: Cannot serve HTTP/2 to "${this.#client.address}": ${describe(error)}`);
      }
      return undefined;
    }
  }

  #shutdown(server: Http2Server): void {
    server.shutdown().catch(reportError);
    if (this.isIdle) this.deadlineMs = this.#context.deadlines.nowMs + this.#context.limits.lingerTimeoutMs;
  }

  #serve(request: Request): Promise<Response> {
    this.#served = true;
    const stream = new Http2Stream(request, {
      context: this.#context,
      client: this.#client,
      isCrowded: this.#streams.size >= this.#context.limits.maxStreams,
      onEnd: ({ isReset }) => {
        this.#streams.delete(stream);
        if (this.isIdle) this.deadlineMs = this.#idleDeadline();
        if (isReset) this.#countReset();
      },
    });
    this.#streams.add(stream);
    this.deadlineMs = Infinity;
    return stream.respond();
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
    const { deadlines, limits } = this.#context;
    return deadlines.nowMs + (this.#draining ? limits.lingerTimeoutMs : limits.keepAliveTimeoutMs);
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
