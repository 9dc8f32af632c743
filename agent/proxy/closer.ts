import { type Conn, isSecure } from "./conn.ts";
import { MuxStream } from "./hop/mux/stream.ts";
import type { Counters } from "./counters.ts";
import type { Deadlines, Watched } from "./deadlines.ts";
import type { ProxyLimits } from "./limits.ts";
import { closeQuietly, writeAll } from "./sink.ts";
import { endpointsOf, SocketScan } from "./socket_scan.ts";

/** TLS connections of one worker that are coming to their end; beyond it the oldest is cut. */
export const MAX_ENDING = 1024;
/** TLS connections of one worker to be cut that are collected, so that one search finds all of them. */
export const MAX_COLLECTED = 256;
/** Descriptors looked at before the event loop goes on. */
const SCAN_STEP = 256;

export interface CloserOptions {
  deadlines: Deadlines;
  limits: Pick<ProxyLimits, "lingerTimeoutMs">;
  counters: Counters;
}

/**
 * Closes accepted connections. Deno keeps the socket of a TLS connection that is closed while its handshake, or what was
 * written to it, is on its way, until its client lets that come to an end: a silent client would hold a file descriptor for as
 * long as it likes. So what was written gets a moment, and then the socket is shut down, by `shutdown(2)`.
 */
export class Closer implements Watched {
  deadlineMs = Infinity;
  readonly #ending = new Set<Watched>();
  /** To be cut; open until then. */
  readonly #doomed = new Map<string, Deno.Conn>();
  /** Those that the search under way is for. */
  readonly #sought = new Map<string, Deno.Conn>();
  #scan?: SocketScan;
  #isBlind = false;
  #timer?: ReturnType<typeof setTimeout>;

  constructor(private readonly options: CloserOptions) {}

  /** Closes when all that was written, and `last`, is with the system, and after `lingerTimeoutMs` at the latest. */
  end(conn: Deno.Conn | MuxStream, last?: Uint8Array): void {
    if (conn instanceof MuxStream) return conn.end();
    if (!isSecure(conn) && last === undefined) return closeQuietly(conn);
    const { deadlines, limits } = this.options;
    if (this.#ending.size >= MAX_ENDING) this.#ending.values().next().value?.onDeadline();
    const ending: Watched = {
      deadlineMs: deadlines.nowMs + limits.lingerTimeoutMs,
      onDeadline: () => {
        this.#ended(ending);
        this.cut(conn);
      },
    };
    this.#ending.add(ending);
    deadlines.add(ending);
    finish(conn, last).finally(() => {
      if (this.#ended(ending)) closeQuietly(conn);
    });
  }

  /** Closes whatever the client does: plain ones at once, TLS within a sweep of the deadlines. */
  cut(conn: Deno.Conn | MuxStream): void {
    if (conn instanceof MuxStream || !isSecure(conn) || this.#isBlind) return closeQuietly(conn);
    this.options.counters.cut++;
    this.#doomed.set(endpointsOf(conn), conn);
    if (this.#doomed.size >= MAX_COLLECTED) return this.#cutAll();
    if (this.deadlineMs !== Infinity) return;
    // Behind all that are there, so that the sweep that dooms a connection cuts it.
    this.options.deadlines.remove(this);
    this.options.deadlines.add(this);
    this.deadlineMs = -Infinity;
  }

  onDeadline(): void {
    this.deadlineMs = Infinity;
    if (this.#sought.size > 0) return; // the search under way goes on with them
    this.#seek();
    this.#step();
  }

  /** Cuts all that is left. */
  stop(): void {
    for (const { onDeadline } of this.#ending) onDeadline();
    this.#cutAll();
    this.options.deadlines.remove(this);
    this.#scan?.[Symbol.dispose]();
    this.#scan = undefined;
    this.#isBlind = true;
  }

  /** Whether it was still coming to its end. */
  #ended(ending: Watched): boolean {
    this.options.deadlines.remove(ending);
    return this.#ending.delete(ending);
  }

  #cutAll(): void {
    clearTimeout(this.#timer);
    while (this.#sought.size > 0 || this.#doomed.size > 0) {
      if (this.#sought.size === 0) this.#seek();
      this.#look(Infinity);
      this.#giveUp();
    }
    this.deadlineMs = Infinity;
  }

  #step(): void {
    if (this.#sought.size > 0 && !this.#look(SCAN_STEP)) {
      this.#timer = setTimeout(() => this.#step(), 0);
      return;
    }
    this.#giveUp();
    if (this.#doomed.size === 0) return;
    this.#seek();
    this.#step();
  }

  /** Begins to search for all that are doomed. */
  #seek(): void {
    for (const [endpoints, conn] of this.#doomed) this.#sought.set(endpoints, conn);
    this.#doomed.clear();
    try {
      this.#scan ??= new SocketScan();
      this.#scan.begin(this.#sought);
    } catch (error) {
      this.#isBlind = true;
      const reason = error instanceof Error ? error.message : String(error);
      console.error(`proxy: TLS connections of silent clients stay until those close them: ${reason}`);
    }
  }

  /** Whether there is nothing left to look at. */
  #look(descriptors: number): boolean {
    if (this.#isBlind || this.#scan === undefined) return true;
    return this.#scan.step(descriptors, (endpoints) => {
      closeQuietly(this.#sought.get(endpoints)!);
      this.#sought.delete(endpoints);
    });
  }

  /** Those without a socket any more, whose clients have gone by themselves. */
  #giveUp(): void {
    for (const conn of this.#sought.values()) closeQuietly(conn);
    this.#sought.clear();
  }
}

async function finish(conn: Conn, last: Uint8Array | undefined): Promise<void> {
  try {
    if (last !== undefined) await writeAll(conn, last);
    await conn.closeWrite();
  } catch {
    // The client is gone.
  }
}
