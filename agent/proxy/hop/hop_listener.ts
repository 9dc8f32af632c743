import {
  accept,
  type Accepting,
  closeAll,
  type Connection,
  isPeerFailure,
  Opening,
  stopAccepting,
} from "../accepting.ts";
import type { WorkerContext } from "../context.ts";
import { Http1Connection } from "../http1_connection.ts";
import { listenTls } from "../no_delay.ts";
import { closeQuietly, writeAll } from "../sink.ts";
import { HopConnection, type StreamCount } from "./hop_connection.ts";
import type { WindowBudget } from "./mux/windows.ts";
import { Source } from "../source.ts";
import { whenFree } from "../when_free.ts";
import type { HopIdentity } from "./contract.ts";
import { Openings } from "../openings.ts";
import {
  checkClaim,
  CLAIM_ACCEPTED,
  CLAIM_REFUSED,
  claimLength,
  encodeGreeting,
  fingerprintOf,
  HOP_ALPN,
  HOP_MUX_ALPN,
  NONCE_BYTES,
} from "./protocol.ts";

export interface HopListenerOptions {
  context: WorkerContext;
  /** Of this worker; as many streams as well. */
  maxConnections: number;
  /** Of these, those that have not yet proved membership. */
  maxOpenings: number;
  /** What the windows of all sessions of this worker may grow by. */
  budget: WindowBudget;
}

/** Takes the connections of other nodes' proxies: one worker's part of the hop port. */
export class HopListener {
  #identity?: HopIdentity;
  #accepting: Accepting[] = [];
  /** What each was made under; undefined before that is known. */
  readonly #connections = new Map<Connection, string | undefined>();

  readonly #openings: Openings;
  readonly #streams: StreamCount;

  constructor(private readonly options: HopListenerOptions) {
    this.#openings = new Openings(options.maxOpenings);
    this.#streams = { open: 0, most: options.maxConnections };
  }

  /**
   * Serves that identity from now on; what was there before ends as it should. Throws, changing nothing, when a listener
   * cannot be opened or the certificate cannot be used.
   */
  async setIdentity(identity: HopIdentity): Promise<void> {
    const before = this.#identity;
    const fingerprint = fingerprintOf(identity.certificate.cert);
    if (!before || describe(before) !== describe(identity)) {
      const accepting = await this.#listen(identity, fingerprint);
      // The new listeners take connections before the old ones stop.
      const old = this.#accepting;
      this.#accepting = accepting;
      await stopAccepting(old);
    }
    this.#identity = identity;
    for (const [connection, secret] of this.#connections) {
      if (secret !== undefined && !identity.secrets.includes(secret)) connection.drain();
    }
  }

  /** Takes no more connections, waits for requests in flight at most `graceMs`, then closes all. */
  async stop(graceMs: number): Promise<void> {
    const accepting = this.#accepting;
    this.#accepting = [];
    for (const connection of this.#connections.keys()) connection.drain();
    await stopAccepting(accepting);
    await closeAll(this.#connections, graceMs);
  }

  async #listen(identity: HopIdentity, fingerprint: string): Promise<Accepting[]> {
    const { bindHosts, port, certificate } = identity;
    const listeners: Deno.Listener<Deno.Conn>[] = [];
    try {
      for (const hostname of bindHosts) {
        const options = {
          hostname,
          port,
          reusePort: true,
          ...certificate,
          alpnProtocols: [HOP_MUX_ALPN, HOP_ALPN],
        };
        listeners.push(await whenFree(() => listenTls(options)));
      }
    } catch (error) {
      for (const listener of listeners) closeQuietly(listener);
      throw error;
    }
    return listeners.map((listener) => accept(listener, (conn) => this.#serve(conn, fingerprint)));
  }

  async #serve(conn: Deno.Conn, fingerprint: string): Promise<void> {
    const { context, maxConnections, budget } = this.options;
    if (this.#connections.size >= maxConnections) {
      context.counters.hopsRefused++;
      return context.closer.end(conn);
    }
    const opening = new Opening(conn, context);
    this.#connections.set(opening, undefined);
    const opened = this.#openings.add((conn.remoteAddr as Deno.NetAddr).hostname, () => {
      context.counters.hopsRefused++;
      opening.close();
    });
    const source = new Source(conn, context.buffers);
    let connection: Connection | undefined;
    try {
      const { alpnProtocol } = await (conn as Deno.TlsConn).handshake();
      if (alpnProtocol !== HOP_ALPN && alpnProtocol !== HOP_MUX_ALPN) return;
      const member = await this.#member(conn, source, fingerprint);
      if (!member || opening.isClosed) return;
      opened();
      const client = { address: "", hostPort: 0, secure: true, hop: { node: member.node } };
      connection = alpnProtocol === HOP_ALPN
        ? new Http1Connection(conn, source, { context, client })
        : new HopConnection(conn, source, { context, client, budget, streams: this.#streams });
      this.#connections.set(connection, member.secret);
      opening.done();
      this.#connections.delete(opening);
      // The keys may have changed meanwhile, or the listener closed.
      if (this.#accepting.length === 0 || !this.#identity?.secrets.includes(member.secret)) {
        connection.drain();
      }
      await connection.run();
    } catch (error) {
      if (!isPeerFailure(error)) reportError(error);
    } finally {
      opened();
      opening.done();
      this.#connections.delete(opening);
      if (connection) {
        this.#connections.delete(connection);
      } else {
        if (!opening.isClosed) context.closer.end(conn);
        source.release();
      }
    }
  }

  /** Greets, and reads who is there and whether it is a member. */
  async #member(
    conn: Deno.Conn,
    source: Source,
    serverFingerprint: string,
  ): Promise<{ node: string; secret: string } | undefined> {
    const { counters } = this.options.context;
    const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
    await writeAll(conn, encodeGreeting(nonce));
    let length: number | undefined;
    while (length === undefined || source.buffered < length) {
      const added = await source.fill();
      if (added === 0 && source.ended) {
        // One who came for the certificate alone says nothing.
        if (source.buffered > 0) counters.hopsRefused++;
        return undefined;
      }
      length = claimLength(source.buffer.subarray(source.start, source.end));
      if (length === 0) break;
    }
    const claim = source.buffer.subarray(source.start, source.start + length!);
    const member = checkClaim(claim, { nonce, serverFingerprint }, this.#identity?.secrets ?? []);
    source.start += length!;
    if (!member) counters.hopsRefused++;
    await writeAll(conn, Uint8Array.of(member ? CLAIM_ACCEPTED : CLAIM_REFUSED));
    return member;
  }
}

/** What listeners depend on. */
function describe({ bindHosts, port, certificate }: HopIdentity): string {
  return JSON.stringify([bindHosts, port, certificate]);
}
