import http2 from "node:http2";
import type { TLSSocket } from "node:tls";
import { type ConnectRouter, createConnectRouter, createContextValues } from "@connectrpc/connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Log } from "../../runtime/log.ts";
import { countCalls } from "../api/count_calls.ts";
import { translateErrors } from "../api/errors.ts";
import { CALLER, type Caller } from "./caller.ts";
import type { PeerKeys } from "./handshake/peer_keys.ts";
import { PEER_LIMITS, type PeerLimits } from "./limits.ts";
import type { Observe } from "./metrics.ts";
import { KEY_GONE } from "./session.ts";

/** Time that calls in flight get, once theirs to end by themselves is over, to notice that they are to end, milliseconds. */
export const ABORT_MS = 500;
/** Bytes that a sender may be ahead of a slow reader, on one call. */
export const STREAM_WINDOW_BYTES = 256 << 10;
/** The same for all calls of a connection. */
export const SESSION_WINDOW_BYTES = 1 << 20;
const SESSION_MEBIBYTES = 32;

/** What {@linkcode PeerServer} is given. */
export interface PeerServerOptions {
  /** The services for other nodes. Handlers find who calls by `callerOf(context)`. */
  routes: (router: ConnectRouter) => void;
  keys: PeerKeys;
  log: Log;
  observe?: Observe;
  limits?: Partial<PeerLimits>;
}

interface Connection {
  caller: Caller;
  /** By what the caller has proved its membership. */
  key: Uint8Array | undefined;
  session: http2.ServerHttp2Session;
  socket: TLSSocket;
  streams: number;
  /** Since when there are no streams. */
  idleSinceMs: number;
  /** Ends the connection when a ping stays unanswered. */
  late: ReturnType<typeof setTimeout> | undefined;
}

type UniversalHandler = ReturnType<typeof createConnectRouter>["handlers"][number];

/** Answers the calls of other nodes, gRPC and Connect, on connections that have proved their membership. */
export class PeerServer implements AsyncDisposable {
  readonly #limits: PeerLimits;
  readonly #observe: Observe | undefined;
  readonly #keys: PeerKeys;
  readonly #log: Log;
  readonly #http: http2.Http2Server;
  readonly #handlers: ReadonlyMap<string, UniversalHandler>;
  /** In the order they came. */
  readonly #connections = new Map<http2.ServerHttp2Session, Connection>();
  readonly #shutdown = new AbortController();
  #isClosing = false;
  /** Who is at the other end of the session that is being made. */
  #incoming: Pick<Connection, "caller" | "key" | "socket"> | undefined;
  readonly #watch: ReturnType<typeof setInterval>;

  constructor({ routes, keys, log, observe, limits }: PeerServerOptions) {
    this.#observe = observe;
    this.#limits = { ...PEER_LIMITS, ...limits };
    this.#keys = keys;
    this.#log = log;
    const router = createConnectRouter({
      // Compressing costs more than the network between nodes does.
      acceptCompression: [],
      readMaxBytes: this.#limits.messageBytes,
      writeMaxBytes: this.#limits.messageBytes,
      maxTimeoutMs: this.#limits.deadlineMs,
      shutdownSignal: this.#shutdown.signal,
      interceptors: [
        countCalls((outcome) => observe?.({ kind: "call", ...outcome })),
        translateErrors(log),
      ],
    });
    routes(router);
    this.#handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
    this.#http = http2.createServer({
      settings: {
        maxConcurrentStreams: this.#limits.streamsPerConnection,
        maxHeaderListSize: this.#limits.headerBytes,
        initialWindowSize: STREAM_WINDOW_BYTES,
      },
      maxSessionMemory: SESSION_MEBIBYTES,
    }, (request, response) => this.#answer(request, response));
    this.#http.on("session", (session) => this.#opened(session));
    this.#http.on("sessionError", (_error: Error, session: http2.ServerHttp2Session) => session.destroy());
    this.#watch = setInterval(() => this.#look(), this.#limits.serverPingMs);
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Serves a connection; from here on it is the server's. Beyond the limits it, or the peer's oldest, is closed. */
  take(socket: TLSSocket, { key, ...caller }: Caller & { key: Uint8Array | undefined }): void {
    if (this.#isClosing || this.#connections.size >= this.#limits.connections) {
      this.#observe?.({ kind: "refused", reason: this.#isClosing ? "closing" : "limit" });
      this.#log.debug("a node's connection was closed: too many, or stopping", { node: caller.nodeId });
      return void socket.destroy();
    }
    this.#incoming = { caller, key, socket };
    // Makes the session before it returns.
    this.#http.emit("connection", socket);
    if (this.#incoming !== undefined) {
      this.#incoming = undefined;
      socket.destroy();
    }
  }

  /** Takes no more calls, lets those in flight end, for a bounded time, and closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    clearInterval(this.#watch);
    const open = [...this.#connections.values()];
    const closed = open.map(({ session }) => new Promise<void>((resolve) => session.once("close", resolve)));
    open.filter(({ streams }) => streams === 0).forEach(destroy);
    const { drainMs } = this.#limits;
    const timers = [
      setTimeout(() => this.#shutdown.abort(), drainMs),
      setTimeout(() => open.forEach(destroy), drainMs + ABORT_MS),
    ];
    await Promise.all(closed);
    timers.forEach(clearTimeout);
    this.#shutdown.abort();
    this.#http.close();
  }

  #opened(session: http2.ServerHttp2Session): void {
    const incoming = this.#incoming;
    this.#incoming = undefined;
    session.on("error", () => {}); // shows as a close as well
    if (incoming === undefined) return void session.destroy();
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    const idleSinceMs = performance.now();
    const connection: Connection = { ...incoming, session, streams: 0, idleSinceMs, late: undefined };
    this.#connections.set(session, connection);
    session.once("close", () => {
      clearTimeout(connection.late);
      this.#connections.delete(session);
    });
    session.on("stream", (stream) => {
      connection.streams++;
      stream.once("close", () => {
        connection.streams--;
        connection.idleSinceMs = performance.now();
        if (this.#isClosing && connection.streams === 0) endWhenRead(connection);
      });
    });
    const { nodeId } = incoming.caller;
    const ofPeer = [...this.#connections.values()].filter(({ caller }) => caller.nodeId === nodeId);
    if (ofPeer.length > this.#limits.connectionsPerPeer) destroy(ofPeer[0]);
  }

  #answer(request: http2.Http2ServerRequest, response: http2.Http2ServerResponse): void {
    const { session } = request.stream;
    const connection = session === undefined
      ? undefined
      : this.#connections.get(session as http2.ServerHttp2Session);
    if (connection === undefined) return void request.stream.close();
    if (!this.#keys.isInForce(connection.key)) {
      response.writeHead(KEY_GONE);
      response.end(() => destroy(connection));
      return;
    }
    if (this.#isClosing) {
      response.writeHead(503);
      return void response.end();
    }
    const handler = this.#handlers.get((request.url ?? "").split("?", 1)[0]);
    if (handler === undefined) {
      response.writeHead(404);
      return void response.end();
    }
    const values = createContextValues().set(CALLER, connection.caller);
    handler(universalRequestFromNodeRequest(request, response, undefined, values))
      .then((answer) => universalResponseToNodeResponse(answer, response))
      .catch((error) => {
        // What breaks off is the caller's doing; the rest was translated before it got here.
        this.#log.debug("a node's call ended early", {
          node: connection.caller.nodeId,
          error: String(error),
        });
        response.destroy();
      });
  }

  /** Now and then: closes what nobody uses, whose key is gone, or where nobody answers any more. */
  #look(): void {
    const { serverIdleMs, pingTimeoutMs } = this.#limits;
    for (const connection of this.#connections.values()) {
      const { session, key, streams, idleSinceMs, late } = connection;
      const isIdle = streams === 0 && performance.now() - idleSinceMs >= serverIdleMs;
      if (isIdle || !this.#keys.isInForce(key)) destroy(connection);
      else if (late === undefined && !session.destroyed) {
        const timer = setTimeout(() => destroy(connection), pingTimeoutMs);
        connection.late = timer;
        session.ping(() => {
          clearTimeout(timer);
          connection.late = undefined;
        });
      }
    }
  }
}

/**
 * Ends a connection when the caller has read the end of its last call, which its answer to a ping tells. Not by GOAWAY:
 * Deno would cut off the trailers of the calls in flight.
 */
function endWhenRead(connection: Connection): void {
  const { session } = connection;
  if (!session.destroyed) session.ping(() => connection.streams === 0 && destroy(connection));
}

/**
 * Ends a connection and the calls on it. By its socket alone: in Deno 2.9 a session that was destroyed, or that closes by
 * GOAWAY, takes the whole process with it when its socket is touched once more.
 */
function destroy({ socket }: Connection): void {
  socket.destroy();
}
