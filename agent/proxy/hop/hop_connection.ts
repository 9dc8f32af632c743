import { type Connection, isPeerFailure } from "../accepting.ts";
import type { Closer } from "../closer.ts";
import type { ClientInfo, WorkerContext } from "../context.ts";
import type { Watched } from "../deadlines.ts";
import { Http1Connection } from "../http1_connection.ts";
import { Source } from "../source.ts";
import { MuxSession } from "./mux/session.ts";
import type { MuxStream } from "./mux/stream.ts";
import type { WindowBudget } from "./mux/windows.ts";

/** What arrives within this time after the last stream has ended, or the other side knows of the end, is served yet. */
const SETTLE_MS = 10;

/** Streams of all sessions of a worker. */
export interface StreamCount {
  open: number;
  /** More are refused. */
  readonly most: number;
}

export interface HopConnectionOptions {
  context: WorkerContext;
  client: ClientInfo;
  /** What the windows of all sessions of the worker may grow by. */
  budget: WindowBudget;
  streams: StreamCount;
}

/** A connection of another node's proxy, which has proved membership: each stream of it is served as a connection of HTTP/1.1. */
export class HopConnection implements Connection, Watched {
  deadlineMs = Infinity;
  readonly #connections = new Set<Http1Connection>();
  readonly #session: MuxSession;
  #isDraining = false;
  /** Streams that are idle are ended by this side. */
  #isDue = false;
  #isClosed = false;
  #timer?: ReturnType<typeof setTimeout>;

  constructor(
    private readonly conn: Deno.Conn,
    source: Source,
    private readonly options: HopConnectionOptions,
  ) {
    const { context: { deadlines, limits, now }, budget } = options;
    this.#session = new MuxSession({
      conn,
      buffers: options.context.buffers,
      source,
      deadlines,
      now,
      silenceMs: limits.hopSilenceMs,
      budget,
      onStream: (stream) => this.#take(stream),
      onChange: () => this.#onChange(),
    });
  }

  get isIdle(): boolean {
    return this.#connections.size === 0;
  }

  /** Serves until either side ends the connection. */
  async run(): Promise<void> {
    this.options.context.deadlines.add(this);
    this.#touch();
    await this.#session.run();
  }

  /**
   * Takes no more streams but those that are on their way; ends with the last one. The other side ends those that it does not use:
   * it alone knows that no request is on its way.
   */
  drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#session.goAway();
    this.#touch();
  }

  /** Closes at once. */
  close(): void {
    this.#close((closer) => closer.cut(this.conn));
  }

  /** Idle for too long; or the end is due, and the other side has left something open. */
  onDeadline(): void {
    if (!this.#isDraining) return this.drain();
    this.#isDue = true;
    for (const connection of this.#connections) connection.drain();
    this.#touch();
    this.#endWhenOver();
  }

  #touch(): void {
    const { deadlines, limits } = this.options.context;
    if (this.#isDraining) this.deadlineMs = deadlines.nowMs + limits.firstRequestGraceMs;
    else this.deadlineMs = this.isIdle ? deadlines.nowMs + limits.keepAliveTimeoutMs : Infinity;
  }

  #onChange(): void {
    const { failure, isAcknowledged } = this.#session;
    if (failure) this.#end();
    else if (isAcknowledged) this.#endSoon();
  }

  #endSoon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#endWhenOver();
    }, SETTLE_MS);
  }

  #endWhenOver(): void {
    const { isAcknowledged, isQuiet } = this.#session;
    if ((isAcknowledged || this.#isDue) && this.isIdle && isQuiet) this.#end();
  }

  /** Closes when what was written is with the system. */
  #end(): void {
    this.#close((closer) => closer.end(this.conn));
  }

  /** Once. */
  #close(how: (closer: Closer) => void): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { closer, deadlines } = this.options.context;
    clearTimeout(this.#timer);
    deadlines.remove(this);
    how(closer);
    this.#session.fail(new Error("the connection has been closed"));
  }

  #take(stream: MuxStream): boolean {
    const { streams } = this.options;
    if (streams.open >= streams.most) {
      this.options.context.counters.hopsRefused++;
      return false;
    }
    streams.open++;
    if (!this.#isDraining) this.deadlineMs = Infinity;
    this.#serve(stream).finally(() => {
      streams.open--;
      if (this.#isClosed) return;
      if (this.#isDraining) this.#endSoon();
      else if (this.isIdle) this.#touch();
    });
    return true;
  }

  async #serve(stream: MuxStream): Promise<void> {
    const source = new Source(stream, this.options.context.buffers);
    const connection = new Http1Connection(stream, source, this.options);
    this.#connections.add(connection);
    if (this.#isDue) connection.drain();
    try {
      await connection.run();
    } catch (error) {
      if (!isPeerFailure(error)) reportError(error);
    } finally {
      this.#connections.delete(connection);
    }
  }
}
