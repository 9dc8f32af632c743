import type { BufferPool } from "./buffers.ts";
import type { Conn } from "./conn.ts";
import type { Deadlines, Watched } from "./deadlines.ts";
import { HttpError } from "./http_error.ts";
import { ClaimRefused } from "./hop/dialer.ts";
import { type HopSessions, keyOfPeer } from "./hop/sessions.ts";
import { MuxStream, SessionLost } from "./hop/mux/stream.ts";
import type { ProxyLimits } from "./limits.ts";
import type { PeerUpstream, Upstream } from "./mod.ts";
import { Source } from "./source.ts";

export interface UpstreamPoolOptions {
  limits: ProxyLimits;
  buffers: BufferPool;
  deadlines: Deadlines;
  hops: HopSessions;
}

/** Everything known of one upstream address. */
interface Target {
  /** Last in, first out, so that surplus connections grow old. */
  readonly idle: UpstreamConnection[];
  open: number;
  retired: boolean;
}

/** A connection to an upstream: one exchange at a time. */
export class UpstreamConnection implements Watched {
  deadlineMs = Infinity;
  readonly source: Source;
  /** It has served a request before, so it may turn out stale. */
  reused = false;
  closed = false;

  constructor(
    readonly conn: Conn,
    readonly target: Target,
    private readonly pool: UpstreamPool,
    buffers: BufferPool,
  ) {
    this.source = new Source(conn, buffers);
  }

  /** Idle for too long. */
  onDeadline(): void {
    this.close();
  }

  /** The read that was begun while it was parked has ended. */
  readonly onIdleRead = (): void => {
    if (this.deadlineMs !== Infinity) this.close();
  };

  /** Whether it is good for another request, as far as is known. */
  get isReusable(): boolean {
    return !(this.conn instanceof MuxStream) || this.conn.isReusable;
  }

  /** Whether this failure may be but that of a connection that had been of use, and went while nobody looked. */
  isStale(failure: unknown): boolean {
    return this.reused || (failure instanceof SessionLost && failure.wasKept);
  }

  /**
   * Closes at once; a pending read or write of the connection rejects. What has been read stays, for an exchange that may be
   * looking at it, or writing it to its client.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    const isIdle = this.deadlineMs !== Infinity;
    this.pool.forget(this);
    try {
      this.conn.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    if (isIdle) this.source.release();
  }

  /** Lets the next request have it, unless something is wrong with it. */
  release(): void {
    this.pool.park(this);
  }
}

/** Connections to upstreams, kept and used again; bounded per upstream. */
export class UpstreamPool {
  readonly #targets = new Map<string, Target>();
  readonly #byUpstream = new WeakMap<Upstream, Target>();

  constructor(private readonly options: UpstreamPoolOptions) {
    options.hops.onGoingAway = () => this.#closeUseless();
  }

  /** A parked connection that is still alive, if there is one. */
  takeIdle(upstream: Upstream): UpstreamConnection | undefined {
    const { idle } = this.#target(upstream);
    while (idle.length > 0 && !idle[idle.length - 1].isReusable) idle[idle.length - 1].close();
    const conn = idle.pop();
    if (conn) {
      if (conn.conn instanceof MuxStream) conn.conn.askIfSilent();
      conn.reused = true;
      conn.deadlineMs = Infinity;
    }
    return conn;
  }

  /**
   * Opens a connection. Throws {@linkcode HttpError}, `unsent`: 502 when the upstream cannot be reached, 503 when it has as
   * many connections as it may, 504 when it takes too long. Rejects with the reason of `signal` when that fires first.
   */
  async connect(upstream: Upstream, signal?: AbortSignal): Promise<UpstreamConnection> {
    const target = this.#target(upstream);
    const { limits } = this.options;
    if (target.open >= limits.maxUpstreamConnections) {
      throw new HttpError(503, "the workload has as many connections as it may", { unsent: true });
    }
    target.open++;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), limits.connectTimeoutMs);
    const stop = () => timeout.abort();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const conn = await this.#dial(upstream, timeout.signal);
      const upstreamConn = new UpstreamConnection(conn, target, this, this.options.buffers);
      this.options.deadlines.add(upstreamConn);
      return upstreamConn;
    } catch (error) {
      target.open--;
      signal?.throwIfAborted();
      const options = { unsent: true, cause: error };
      const isPeer = upstream.kind === "peer";
      if (timeout.signal.aborted) {
        const who = isPeer ? "the workload's node" : "the workload";
        throw new HttpError(504, `${who} did not accept the connection in time`, options);
      }
      if (error instanceof ClaimRefused) {
        throw new HttpError(502, "the workload's node refuses this one", options);
      }
      throw new HttpError(502, `the workload${isPeer ? "'s node" : ""} cannot be reached`, options);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Forgets every upstream but these: idle connections are closed, busy ones close when they are done. */
  retain(upstreams: Iterable<Upstream>): void {
    const kept = new Set<Target>(), peers: PeerUpstream[] = [];
    for (const upstream of upstreams) {
      kept.add(this.#target(upstream));
      if (upstream.kind === "peer") peers.push(upstream);
    }
    for (const [key, target] of this.#targets) {
      if (kept.has(target)) continue;
      target.retired = true;
      this.#targets.delete(key);
      for (const conn of target.idle.slice()) conn.close();
    }
    this.options.hops.retain(peers);
  }

  /** Takes a connection back. One with unread bytes, of a retired upstream, or one too many is closed. */
  park(conn: UpstreamConnection): void {
    const { target, source } = conn;
    const { limits, deadlines } = this.options;
    if (conn.closed) return;
    if (
      target.retired || !conn.isReusable || source.buffered > 0 || source.ended || source.isReading ||
      target.idle.length >= limits.maxIdleUpstreamConnections
    ) return conn.close();
    conn.deadlineMs = deadlines.nowMs + limits.upstreamIdleTimeoutMs;
    target.idle.push(conn);
    // The read that will bring the next response also tells when the upstream hangs up.
    source.fill().then(conn.onIdleRead, conn.onIdleRead);
  }

  forget(conn: UpstreamConnection): void {
    this.options.deadlines.remove(conn);
    conn.target.open--;
    const at = conn.target.idle.indexOf(conn);
    if (at >= 0) conn.target.idle.splice(at, 1);
  }

  #closeUseless(): void {
    for (const { idle } of this.#targets.values()) {
      for (const conn of idle.slice()) if (!conn.isReusable) conn.close();
    }
  }

  async #dial(upstream: Upstream, signal: AbortSignal): Promise<Conn> {
    if (upstream.kind === "peer") return await this.options.hops.open(upstream, signal);
    const { hostname, port } = upstream;
    const conn = await Deno.connect({ hostname, port, autoSelectFamily: false, signal });
    conn.setNoDelay(true);
    return conn;
  }

  #target(upstream: Upstream): Target {
    const known = this.#byUpstream.get(upstream);
    if (known && !known.retired) return known;
    const key = keyOf(upstream);
    let target = this.#targets.get(key);
    if (!target) this.#targets.set(key, target = { idle: [], open: 0, retired: false });
    this.#byUpstream.set(upstream, target);
    return target;
  }
}

/** Which upstreams are the same; one node's workloads share its connections. */
export function keyOf(upstream: Upstream): string {
  return upstream.kind === "peer" ? keyOfPeer(upstream) : `${upstream.hostname} ${upstream.port}`;
}
