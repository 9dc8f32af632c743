import type { BufferPool } from "../buffers.ts";
import type { Conn } from "../conn.ts";
import type { Deadlines, Watched } from "../deadlines.ts";
import type { ProxyLimits } from "../limits.ts";
import { closeQuietly } from "../sink.ts";
import { Source } from "../source.ts";
import type { PeerUpstream } from "./contract.ts";
import type { HopDialer } from "./dialer.ts";
import { MAX_STREAMS, MuxSession } from "./mux/session.ts";
import type { MuxStream } from "./mux/stream.ts";
import type { WindowBudget } from "./mux/windows.ts";

/** Streams of each session with a node, times the sessions there are, before one more is made. */
export const STREAMS_BEFORE_NEXT = 64;

/** Sessions that are made for one stream, as each was of no use by then. */
const MAX_DIALS = 3;
/** After a session that was not needed yet could not be made. */
const AHEAD_RETRY_MS = 1_000;

/** What {@linkcode HopSessions} is made of. */
export interface HopSessionsOptions {
  dialer: HopDialer;
  limits: ProxyLimits;
  buffers: BufferPool;
  deadlines: Deadlines;
  budget: WindowBudget;
  /** Milliseconds, monotonic. */
  now: () => number;
}

/** One worker's sessions with other nodes' proxies: a request gets a stream of one, and only the first waits for a handshake. */
export class HopSessions {
  /** Told when a node takes no more streams of a session: those that nobody uses are to be closed. */
  onGoingAway = () => {};
  readonly #peers = new Map<string, Peer>();

  constructor(private readonly options: HopSessionsOptions) {}

  /**
   * A stream to that node's proxy, or a connection of its own where the node knows no streams. Throws what
   * {@linkcode HopDialer.dial} does, or the reason of `signal`.
   */
  async open(upstream: PeerUpstream, signal: AbortSignal): Promise<Conn> {
    const key = keyOfPeer(upstream);
    let peer = this.#peers.get(key);
    if (!peer) this.#peers.set(key, peer = new Peer(upstream, this.options, () => this.onGoingAway()));
    return await peer.open(signal);
  }

  /** Forgets every node but these; sessions end when their last stream does. */
  retain(upstreams: Iterable<PeerUpstream>): void {
    const kept = new Set<string>();
    for (const upstream of upstreams) kept.add(keyOfPeer(upstream));
    for (const [key, peer] of this.#peers) {
      if (kept.has(key)) continue;
      this.#peers.delete(key);
      peer.retire();
    }
  }
}

/** Which nodes are the same. */
export function keyOfPeer({ hostname, port, fingerprint }: PeerUpstream): string {
  return `peer ${hostname} ${port} ${fingerprint}`;
}

/** The sessions with one node. */
class Peer {
  readonly #sessions = new Set<KeptSession>();
  #dialling?: Promise<void>;
  #isRetired = false;
  #notAheadUntilMs = 0;
  /** When dialled last it took one request after the other on a connection. */
  #knowsNoStreams = false;

  constructor(
    private readonly upstream: PeerUpstream,
    private readonly options: HopSessionsOptions,
    private readonly onGoingAway: () => void,
  ) {}

  async open(signal: AbortSignal): Promise<Conn> {
    for (let dialled = 0; dialled <= MAX_DIALS; dialled++) {
      const kept = this.#leastBusy();
      if (kept) {
        if (this.#isBusy(kept)) this.#dialAhead();
        return kept.open();
      }
      signal.throwIfAborted();
      if (this.#knowsNoStreams) return await this.#openAlone(signal);
      await unlessAborted(this.#dial(), signal);
    }
    throw new Error("the node ends each connection at once");
  }

  retire(): void {
    this.#isRetired = true;
    for (const kept of this.#sessions) kept.retire();
  }

  #leastBusy(): KeptSession | undefined {
    let best: KeptSession | undefined;
    for (const kept of this.#sessions) {
      if (kept.session.isOpen && (!best || kept.session.streams < best.session.streams)) best = kept;
    }
    return best;
  }

  #isBusy({ session: { streams } }: KeptSession): boolean {
    return streams >= Math.min(STREAMS_BEFORE_NEXT * this.#sessions.size, MAX_STREAMS - 1);
  }

  /** Makes one session more, for all who ask meanwhile. */
  #dial(): Promise<void> {
    return this.#dialling ??= this.#dialForAll().finally(() => this.#dialling = undefined);
  }

  /** For those who come; whoever cannot do without will be told of a failure. */
  #dialAhead(): void {
    const { deadlines } = this.options;
    if (deadlines.nowMs < this.#notAheadUntilMs) return;
    this.#dial().catch(() => this.#notAheadUntilMs = deadlines.nowMs + AHEAD_RETRY_MS);
  }

  async #dialForAll(): Promise<void> {
    const { dialer, limits } = this.options;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), limits.connectTimeoutMs);
    try {
      const { conn, hasStreams } = await dialer.dial(this.upstream, timeout.signal);
      this.#knowsNoStreams = !hasStreams;
      if (hasStreams) this.#keep(conn);
      else closeQuietly(conn);
    } finally {
      clearTimeout(timer);
    }
  }

  async #openAlone(signal: AbortSignal): Promise<Conn> {
    const { conn, hasStreams } = await this.options.dialer.dial(this.upstream, signal);
    if (!hasStreams) return conn;
    this.#knowsNoStreams = false;
    return this.#keep(conn).open();
  }

  #keep(conn: Deno.Conn): KeptSession {
    const kept = new KeptSession(conn, this.options, {
      onEnd: () => this.#sessions.delete(kept),
      onGoingAway: this.onGoingAway,
    });
    if (this.#isRetired) kept.retire();
    this.#sessions.add(kept);
    return kept;
  }
}

/** A session that is closed when nobody has used it for a while, or nobody may. */
class KeptSession implements Watched {
  deadlineMs = Infinity;
  readonly session: MuxSession;
  #isRetired = false;
  #isGoing = false;

  constructor(
    private readonly conn: Deno.Conn,
    private readonly options: HopSessionsOptions,
    private readonly told: { onEnd(): void; onGoingAway(): void },
  ) {
    const { buffers, deadlines, now, budget, limits } = options;
    this.session = new MuxSession({
      conn,
      buffers,
      source: new Source(conn, buffers),
      deadlines,
      now,
      silenceMs: limits.hopSilenceMs,
      budget,
      onChange: this.#onChange,
    });
    deadlines.add(this);
    this.session.run();
    this.deadlineMs = deadlines.nowMs + limits.upstreamIdleTimeoutMs;
  }

  open(): MuxStream {
    this.deadlineMs = Infinity;
    return this.session.open();
  }

  /** The node is none any more, or another. */
  retire(): void {
    this.#isRetired = true;
    this.#onChange();
  }

  /** Idle for too long. */
  onDeadline(): void {
    this.session.fail(new Error("the connection has not been used for long"));
  }

  readonly #onChange = () => {
    const { deadlines, limits } = this.options;
    const { failure, streams, isGoingAway } = this.session;
    if (failure) {
      deadlines.remove(this);
      closeQuietly(this.conn);
      this.told.onEnd();
      return;
    }
    if (isGoingAway && !this.#isGoing) {
      this.#isGoing = true;
      this.told.onGoingAway();
    }
    if (streams === 0) {
      const isOver = isGoingAway || this.#isRetired;
      this.deadlineMs = isOver ? -Infinity : deadlines.nowMs + limits.upstreamIdleTimeoutMs;
    }
  };
}

/** What `promise` brings, or the reason of `signal`, whichever is first. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
