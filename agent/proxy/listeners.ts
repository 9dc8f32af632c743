import {
  accept,
  type Accepting,
  closeAll,
  type Connection,
  isPeerFailure,
  Opening,
  stopAccepting,
} from "./accepting.ts";
import { Source } from "./source.ts";
import { isSecure } from "./conn.ts";
import type { ClientInfo, WorkerContext } from "./context.ts";
import { Http1Connection } from "./http1_connection.ts";
import { Http2Connection, isHttp2Preface } from "./http2_connection.ts";
import type { PortFailure } from "./mod.ts";
import { listenTls } from "./no_delay.ts";
import type { KeyPair } from "./worker_messages.ts";
import { closeQuietly } from "./sink.ts";
import { whenFree } from "./when_free.ts";

export interface ListenersOptions {
  context: WorkerContext;
  bindHosts: readonly string[];
  http2: boolean;
  /** Host ports that stay plain HTTP when there is a certificate. */
  plainPorts: readonly number[];
  /** Of this worker. */
  maxConnections: number;
}

const TOO_MANY = new TextEncoder().encode(
  "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n\r\n" +
    '{"error":"the proxy has as many connections as it may","status":503,"title":"Service Unavailable"}\n',
);
/** One worker's listeners, one per host port and bind address, and the connections they accepted. */
export class Listeners {
  readonly #open = new Map<number, Accepting[]>();
  readonly #connections = new Map<Connection, number>();
  #tls?: KeyPair;

  constructor(private readonly options: ListenersOptions) {}

  /**
   * Opens and closes listeners until exactly `ports` are open. A new key pair is served by all of them from now on.
   */
  async apply(ports: readonly number[], tls?: KeyPair): Promise<PortFailure[]> {
    const isRenewed = tls?.cert !== this.#tls?.cert || tls?.key !== this.#tls?.key;
    this.#tls = tls;
    const failures: PortFailure[] = [];
    const wanted = new Set(ports);
    await Promise.all(
      [...this.#open.keys()].filter((port) => !wanted.has(port)).map((port) => this.#closePort(port)),
    );
    for (const hostPort of wanted) {
      const old = this.#open.get(hostPort);
      if (old && !isRenewed) continue;
      try {
        // The new listeners take connections before the old ones stop.
        this.#open.set(hostPort, await this.#listen(hostPort));
        if (old) await stopAccepting(old);
      } catch (error) {
        failures.push({ hostPort, reason: error instanceof Error ? error.message : String(error) });
      }
    }
    return failures;
  }

  /** Closes the listeners, waits for requests in flight at most `graceMs`, then closes every connection. */
  async stop(graceMs: number): Promise<void> {
    await Promise.all([...this.#open.keys()].map((port) => this.#closePort(port)));
    await closeAll(this.#connections, graceMs);
  }

  async #closePort(port: number): Promise<void> {
    const accepting = this.#open.get(port) ?? [];
    this.#open.delete(port);
    for (const [connection, of] of this.#connections) {
      if (of === port) connection.drain();
    }
    await stopAccepting(accepting);
  }

  async #listen(port: number): Promise<Accepting[]> {
    const listeners: Deno.Listener[] = [];
    const { bindHosts, http2, plainPorts } = this.options;
    const tls = plainPorts.includes(port) ? undefined : this.#tls;
    try {
      for (const hostname of bindHosts) {
        const address = { hostname, port, reusePort: true };
        const listener = await whenFree(() =>
          tls
            ? listenTls({ ...address, ...tls, alpnProtocols: http2 ? ["h2", "http/1.1"] : ["http/1.1"] })
            : Deno.listen({ ...address, tcpBacklog: 4096 })
        );
        listeners.push(listener);
      }
    } catch (error) {
      for (const listener of listeners) closeQuietly(listener);
      throw error;
    }
    return listeners.map((listener) => accept(listener, (conn) => this.#serve(conn, port)));
  }

  async #serve(conn: Deno.Conn, hostPort: number): Promise<void> {
    const { context } = this.options;
    if (this.#connections.size >= this.options.maxConnections && !this.#closeAnIdleOne()) {
      context.counters.refused++;
      context.closer.end(conn, TOO_MANY);
      return;
    }
    context.counters.openConnections++;
    let connection: Connection | undefined;
    const opening = new Opening(conn, context);
    this.#connections.set(opening, hostPort);
    try {
      connection = await this.#front(conn, hostPort, opening);
      this.#connections.delete(opening);
      this.#connections.set(connection, hostPort);
      opening.done();
      if (!this.#open.has(hostPort)) connection.drain();
      await connection.run();
    } catch (error) {
      if (!isPeerFailure(error)) reportError(error);
    } finally {
      opening.done();
      this.#connections.delete(opening);
      if (connection) this.#connections.delete(connection);
      else if (!opening.isClosed) context.closer.end(conn);
      context.counters.openConnections--;
    }
  }

  /** HTTP/2 by ALPN, or by prior knowledge (RFC 9113 §3.3) on a plain connection; HTTP/1.1 otherwise. */
  async #front(conn: Deno.Conn, hostPort: number, opening: Opening): Promise<Connection> {
    const { context } = this.options;
    const secure = isSecure(conn);
    const { hostname } = conn.remoteAddr as Deno.NetAddr;
    const address = hostname.startsWith("::ffff:") ? hostname.slice("::ffff:".length) : hostname;
    const client: ClientInfo = { address, hostPort, secure };
    const source = new Source(conn, context.buffers);
    let isHttp2 = false;
    try {
      let isAgreed = false;
      if (secure) isAgreed = (await (conn as Deno.TlsConn).handshake()).alpnProtocol === "h2";
      else (conn as Deno.TcpConn).setNoDelay(true);
      let verdict = isAgreed || (!secure && this.options.http2) ? undefined : false;
      while (verdict === undefined && await source.fill() > 0) verdict = isHttp2Preface(source);
      isHttp2 = verdict === true;
      if (isAgreed && !isHttp2) {
        throw new Deno.errors.InvalidData("the client does not speak HTTP/2 as agreed");
      }
      if (opening.isClosed) throw new Deno.errors.Interrupted("it took too long to say what it is");
    } catch (error) {
      source.release();
      throw error;
    }
    const Front = isHttp2 ? Http2Connection : Http1Connection;
    return new Front(conn, source, { context, client });
  }

  #closeAnIdleOne(): boolean {
    for (const connection of this.#connections.keys()) {
      if (!connection.isIdle) continue;
      this.#connections.delete(connection);
      connection.close();
      return true;
    }
    return false;
  }
}
