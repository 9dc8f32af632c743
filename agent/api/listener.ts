import { Buffer } from "node:buffer";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import net from "node:net";
import type { Log } from "../../runtime/log.ts";
import type { HostPort, TlsFiles } from "../config.ts";
import { CertificateFiles } from "../proxy/certificate.ts";
import { Connections } from "./connections.ts";
import type { ApiHandler } from "./handler.ts";
import { endWhenIdle, type SessionTimes } from "./idle.ts";
import { StalledWrites } from "./stalled_writes.ts";

/** Connections at once on the API port; one on which no call was accepted yet gives way. */
export const MAX_CONNECTIONS = 1_024;
/** Calls at once on one HTTP/2 connection. */
export const MAX_CONCURRENT_STREAMS = 128;
/** Time for the first bytes of a connection, for its TLS handshake, and for the head of a request, milliseconds. */
export const HEAD_TIMEOUT_MS = 10_000;
/** Time that a connection may have no call, milliseconds. */
export const IDLE_TIMEOUT_MS = 300_000;
/** Time in which a client may take nothing of what waits for it, milliseconds; a reader may pause a log for a while. */
export const WRITE_STALL_MS = 300_000;
/** Bytes of all headers of a request. */
export const MAX_HEADER_BYTES = 16_384;
/** Time that calls in flight get when the agent stops, milliseconds. */
const CLOSE_MS = 1_000;

/** How an HTTP/2 connection begins (RFC 9113, section 3.4). */
const PREFACE = Buffer.from("PRI * HTTP/2.0");
const TELLING_BYTES = 3;
/** How often heads of HTTP/1.1 that come by TLS are looked at for their time, milliseconds. */
const HEAD_CHECK_MS = 1_000;

/** How often the certificate's files are looked at, milliseconds. */
export const CERTIFICATE_POLL_MS = 2_000;

/** What {@linkcode listenApi} is given. */
export interface ApiListenerOptions {
  address: HostPort;
  /** Serves TLS; changed files are taken up while running. */
  tls?: TlsFiles;
  log: Log;
  certificatePollMs?: number;
  handler: ApiHandler;
  /** Speaks HTTP/2 too, as gRPC needs it; on by default. */
  http2?: boolean;
  /** {@linkcode MAX_CONNECTIONS} by default. */
  maxConnections?: number;
  /** {@linkcode HEAD_TIMEOUT_MS} by default. */
  headTimeoutMs?: number;
  /** {@linkcode IDLE_TIMEOUT_MS} by default. */
  idleTimeoutMs?: number;
  /** {@linkcode WRITE_STALL_MS} by default. */
  writeStallMs?: number;
  /** Told of each connection that is one too many, be it the one that comes or one that gives way to it. */
  onRefused?: () => void;
  /** Told of each connection, and each stream of HTTP/2, that is cut as its client takes nothing. */
  onStalled?: () => void;
}

/** The API port, open. */
export interface ApiListener extends AsyncDisposable {
  /** Where it listens; the real port when 0 was asked for. */
  readonly address: HostPort;
}

/**
 * Opens the API port for HTTP/1.1 and HTTP/2 alike: in the clear the first bytes tell which, under TLS it is ALPN.
 * Throws an Error that names the address.
 */
export async function listenApi(options: ApiListenerOptions): Promise<ApiListener> {
  const { address, maxConnections: max = MAX_CONNECTIONS, onRefused } = options;
  const connections = new Connections({ max, onRefused });
  const answer: Answer = (request, response) =>
    options.handler(request, response, () => connections.accepted(request.socket));
  await using stack = new AsyncDisposableStack();
  const stalls = stack.use(
    new StalledWrites({
      stallMs: options.writeStallMs ?? WRITE_STALL_MS,
      onCut: options.onStalled,
      log: options.log,
    }),
  );
  const { server, inner } = options.tls === undefined
    ? clearServer(options, { answer, stalls })
    : await tlsServer(options, { answer, tls: options.tls, stack, stalls });
  const taken = options.tls === undefined ? "connection" : "secureConnection";
  server.on(taken, (socket: net.Socket) => stalls.watch(socket));
  // Not by the server's own maxConnections, which closes whoever comes, and does not tell.
  server.on("connection", (socket: net.Socket) => connections.add(socket));
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: Error) => {
      reject(
        new Error(`Cannot listen on "${address.host}:${address.port}": ${error.message}`, { cause: error }),
      );
    });
    server.listen({ host: address.host, port: address.port }, resolve);
  });
  const { port } = server.address() as net.AddressInfo;
  const owned = stack.move();
  return {
    address: { host: address.host, port },
    async [Symbol.asyncDispose]() {
      await owned.disposeAsync();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const each of inner) each.close();
      const timer = setTimeout(() => connections.close(), CLOSE_MS);
      connections.close(isIdle);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** {@linkcode ApiHandler} on this port. */
type Answer = (request: Parameters<ApiHandler>[0], response: Parameters<ApiHandler>[1]) => void;

function clearServer(
  options: ApiListenerOptions,
  { answer, stalls }: { answer: Answer; stalls: StalledWrites },
) {
  const { http2: isHttp2Spoken = true } = options;
  const { headTimeoutMs = HEAD_TIMEOUT_MS, idleTimeoutMs = IDLE_TIMEOUT_MS } = options;
  const deadlines = new WeakMap<net.Socket, ReturnType<typeof setTimeout>>();
  const h1 = http.createServer({ maxHeaderSize: MAX_HEADER_BYTES }, (request, response) => {
    // A server that does not listen itself has no times of its own.
    clearTimeout(deadlines.get(request.socket));
    // Deno's node:http ends a connection that was handed to it after one answer, whatever the answer says; a client that
    // believed in keep-alive would lose its next request.
    response.setHeader("connection", "close");
    answer(request, response);
  });
  const h2 = http2.createServer({ settings: http2Settings, maxSessionMemory: SESSION_MEBIBYTES }, answer);
  h1.on("clientError", (_error, socket) => socket.destroy());
  h2.on("sessionError", (_error: Error, session: http2.ServerHttp2Session) => session.destroy());
  h2.on("session", (session) => {
    endWhenIdle(session, { headTimeoutMs, idleTimeoutMs });
    stalls.watchStreams(session);
  });
  const server = net.createServer((socket) => {
    const drop = () => socket.destroy();
    const deadline = setTimeout(drop, headTimeoutMs);
    deadlines.set(socket, deadline);
    socket.once("close", () => clearTimeout(deadline));
    socket.on("error", drop);
    socket.setNoDelay(true);
    const held: Buffer[] = [];
    const peek = () => {
      const chunk = socket.read() as Buffer | null;
      if (chunk !== null) held.push(chunk);
      const head = Buffer.concat(held);
      if (head.length < TELLING_BYTES && PREFACE.subarray(0, head.length).equals(head)) {
        socket.once("readable", peek);
        return;
      }
      socket.unshift(head);
      const isHttp2 = isHttp2Spoken &&
        head.subarray(0, TELLING_BYTES).equals(PREFACE.subarray(0, TELLING_BYTES));
      if (isHttp2) clearTimeout(deadline);
      (isHttp2 ? h2 : h1).emit("connection", socket);
    };
    socket.once("readable", peek);
    socket.once("end", drop);
  });
  return { server, inner: [h1, h2] };
}

async function tlsServer(
  options: ApiListenerOptions,
  { answer, tls, stack, stalls }: {
    answer: Answer;
    tls: TlsFiles;
    stack: AsyncDisposableStack;
    stalls: StalledWrites;
  },
) {
  const { log, certificatePollMs = CERTIFICATE_POLL_MS, http2: isHttp2Spoken = true } = options;
  const { headTimeoutMs = HEAD_TIMEOUT_MS, idleTimeoutMs = IDLE_TIMEOUT_MS } = options;
  const files = stack.use(
    await CertificateFiles.open({
      ...tls,
      pollMs: certificatePollMs,
      onChange(pair) {
        server.setSecureContext({ ...pair, minVersion: "TLSv1.2" });
        log.info("API certificate renewed", { file: tls.certFile });
      },
      onRefused: (error) =>
        log.error("new API certificate refused, the old one stays", { error: error.message }),
    }),
  );
  const common = { ...files.pair, handshakeTimeout: headTimeoutMs, minVersion: "TLSv1.2" as const };
  const server = isHttp2Spoken
    ? http2.createSecureServer({
      ...common,
      allowHTTP1: true,
      settings: http2Settings,
      maxSessionMemory: SESSION_MEBIBYTES,
    }, answer)
    : https.createServer({
      ...common,
      maxHeaderSize: MAX_HEADER_BYTES,
    }, answer);
  Object.assign(server, http1TimesOf({ headTimeoutMs, idleTimeoutMs }));
  server.on("session", (session) => {
    endWhenIdle(session, { headTimeoutMs, idleTimeoutMs });
    stalls.watchStreams(session);
  });
  server.on("sessionError", (_error: Error, session: http2.ServerHttp2Session) => session.destroy());
  server.on("tlsClientError", (_error: Error, socket: net.Socket) => socket.destroy());
  return { server: server as unknown as net.Server, inner: [] };
}

/** Times that a server which listens itself keeps of HTTP/1.1 connections. An HTTP/2 server takes them as no options. */
function http1TimesOf({ headTimeoutMs, idleTimeoutMs }: SessionTimes) {
  return {
    headersTimeout: headTimeoutMs,
    connectionsCheckingInterval: Math.min(headTimeoutMs, HEAD_CHECK_MS),
    // Uploads and followed logs last as long as they last; each handler has its own bounds.
    requestTimeout: 0,
    keepAliveTimeout: idleTimeoutMs,
  };
}

const http2Settings = { maxConcurrentStreams: MAX_CONCURRENT_STREAMS, maxHeaderListSize: MAX_HEADER_BYTES };
const SESSION_MEBIBYTES = 16;

function isIdle(socket: net.Socket): boolean {
  return socket.bytesRead === 0;
}
