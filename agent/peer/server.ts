import http2 from "node:http2";
import type { TLSSocket } from "node:tls";
import { type ConnectRouter, createConnectRouter, createContextValues } from "@connectrpc/connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Log } from "../../runtime/log.ts";
import { translateErrors } from "../api/errors.ts";
import { CALLER, type Caller } from "./caller.ts";
import type { PeerKeys } from "./handshake/peer_keys.ts";
import { PEER_LIMITS, type PeerLimits } from "./limits.ts";

/** Time that calls in flight get when the server stops, milliseconds. */
export const CLOSE_MS = 1_000;
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
  limits?: Partial<PeerLimits>;
}

interface Connection {
  caller: Caller;
  /** By what the caller has proved its membership. */
  key: Uint8Array | undefined;
  session: http2.ServerHttp2Session;
  streams: number;
  /** Since when there are no streams. */
  idleSinceMs: number;
}

type UniversalHandler = ReturnType<typeof createConnectRouter>["handlers"][number];

/** Answers the calls of other nodes, gRPC and Connect, on connections that have proved their membership. */
export class PeerServer implements AsyncDisposable {
  readonly #limits: PeerLimits;
  readonly #keys: PeerKeys;
  readonly #log: Log;
  readonly #http: http2.Http2Server;
  readonly #handlers: ReadonlyMap<string, UniversalHandler>;
  /** In the order they came. */
  readonly #connections = new Map<http2.ServerHttp2Session, Connection>();
  readonly #closing = new AbortController();
  /** Who is at the other end of the session that is being made. */
  #incoming: Pick<Connection, "caller" | "key"> | undefined;
  readonly #watch: ReturnType<typeof setInterval>;

  constructor({ routes, keys, log, limits }: PeerServerOptions) {
    this.#limits = { ...PEER_LIMITS, ...limits };
    this.#keys = keys;
    this.#log = log;
    const router = createConnectRouter({
      // Compressing costs more than the network between nodes does.
      acceptCompression: [],
      readMaxBytes: this.#limits.messageBytes,
      writeMaxBytes: this.#limits.messageBytes,
      maxTimeoutMs: this.#limits.deadlineMs,
      shutdownSignal: this.#closing.signal,
      interceptors: [translateErrors(log)],
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
    if (this.#closing.signal.aborted || this.#connections.size >= this.#limits.connections) {
      this.#log.debug("a node's connection was closed: too many, or stopping", { node: caller.nodeId });
      return void socket.destroy();
    }
    this.#incoming = { caller, key };
    // Makes the session before it returns.
    this.#http.emit("connection", socket);
    if (this.#incoming !== undefined) {
      this.#incoming = undefined;
      socket.destroy();
    }
  }

  /** Lets calls in flight end, for a bounded time, and closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    clearInterval(this.#watch);
    const sessions = [...this.#connections.keys()];
    const closed = sessions.map((session) => new Promise<void>((resolve) => session.once("close", resolve)));
    for (const session of sessions) session.close();
    this.#closing.abort();
    const timer = setTimeout(() => sessions.forEach((session) => session.destroy()), CLOSE_MS);
    await Promise.all(closed);
    clearTimeout(timer);
    this.#http.close();
  }

  #opened(session: http2.ServerHttp2Session): void {
    const incoming = this.#incoming;
    this.#incoming = undefined;
    session.on("error", () => {}); // shows as a close as well
    if (incoming === undefined) return void session.destroy();
    session.setLocalWindowSize(SESSION_WINDOW_BYTES);
    const connection = { ...incoming, session, streams: 0, idleSinceMs: performance.now() };
    this.#connections.set(session, connection);
    session.once("close", () => this.#connections.delete(session));
    session.on("stream", (stream) => {
      connection.streams++;
      stream.once("close", () => {
        connection.streams--;
        connection.idleSinceMs = performance.now();
      });
    });
    const { nodeId } = incoming.caller;
    const ofPeer = [...this.#connections.values()].filter(({ caller }) => caller.nodeId === nodeId);
    if (ofPeer.length > this.#limits.connectionsPerPeer) ofPeer[0].session.destroy();
  }

  #answer(request: http2.Http2ServerRequest, response: http2.Http2ServerResponse): void {
    const { session } = request.stream;
    const connection = session === undefined
      ? undefined
      : this.#connections.get(session as http2.ServerHttp2Session);
    if (connection === undefined) return void request.stream.close();
    if (!this.#keys.isInForce(connection.key)) return void connection.session.destroy();
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
    for (const { session, key, streams, idleSinceMs } of this.#connections.values()) {
      if (!this.#keys.isInForce(key)) session.destroy();
      else if (streams === 0 && performance.now() - idleSinceMs >= serverIdleMs) session.close();
      else {
        const timer = setTimeout(() => session.destroy(), pingTimeoutMs);
        session.once("close", () => clearTimeout(timer));
        session.ping(() => clearTimeout(timer));
      }
    }
  }
}
