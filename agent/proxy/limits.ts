/** Every bound of the proxy. Counts and bytes are per connection unless the name says otherwise. */
export interface ProxyLimits {
  /** Client connections of all workers together; beyond it idle ones are closed, then new ones answered 503. */
  maxConnections: number;
  /** Request line, in bytes: 414. */
  maxRequestLineBytes: number;
  /** Whole head of a request (431) or a response (502), in bytes. */
  maxHeadBytes: number;
  /** Header fields of one head: 431, or 502 from an upstream. */
  maxHeaders: number;
  /** Trailer section of a chunked body, in bytes. */
  maxTrailerBytes: number;
  /** One chunk-size line with its extensions, in bytes. */
  maxChunkLineBytes: number;
  /** Request body, in bytes: 413. */
  maxBodyBytes: number;
  /** Interim (1xx) responses to one request. */
  maxInterimResponses: number;
  /** From accept to the end of the TLS handshake. */
  handshakeTimeoutMs: number;
  /** From the first byte of a request head to its last: 408. */
  headTimeoutMs: number;
  /** Between two requests of a client. */
  keepAliveTimeoutMs: number;
  /** Longest pause while a body or a response is moving, either way. */
  idleTimeoutMs: number;
  /** To reach an upstream: 504. */
  connectTimeoutMs: number;
  /** From the last byte of the request (or of its body so far) to the response head: 504. */
  responseTimeoutMs: number;
  /** Longest silence of an upgraded connection, such as a WebSocket. */
  upgradeIdleTimeoutMs: number;
  /** What a client may still send after an early answer before the connection is cut. */
  lingerTimeoutMs: number;
  lingerBytes: number;
  /** Of one upstream and worker. */
  maxUpstreamConnections: number;
  maxIdleUpstreamConnections: number;
  upstreamIdleTimeoutMs: number;
  /** Connections of other nodes' proxies, of all workers together; beyond it new ones are closed. */
  maxHopConnections: number;
  /** Of these, those that have not yet proved that they are members; beyond it one of them gives way. */
  maxHopOpenings: number;
  /** Silence after which another node's proxy that was asked whether it is there is given up, and with it all that is in flight. */
  hopSilenceMs: number;
  /** How long a request whose route proved stale waits for another: 502 or 503. */
  staleRouteWaitMs: number;
  /** Requests of one worker that wait so at a time; more are answered at once. */
  maxStaleWaits: number;
  /**
   * How long the answer of a node is still awaited that the request's route no longer leads to, when it leads elsewhere and
   * the request may be sent again.
   */
  elsewhereGraceMs: number;
  /**
   * HTTP/2 streams at a time on one connection: 503. Clients are told 200, which is fixed in Deno's HTTP server, as are
   * 16 KiB for the header fields of a request over HTTP/2 (431).
   */
  maxStreams: number;
  /** HTTP/2 streams a client may reset within ten seconds before its connection is closed (rapid reset). */
  maxStreamResets: number;
  /** How long a connection that is to end may still take for its first request, which may be on its way. */
  firstRequestGraceMs: number;
  /** How long `asyncDispose` waits for requests in flight. */
  shutdownGraceMs: number;
}

/** The limits in force unless {@linkcode ProxyOptions.limits} says otherwise. */
export const DEFAULT_LIMITS: Readonly<ProxyLimits> = {
  maxConnections: 16_384,
  maxRequestLineBytes: 8 * 1024,
  maxHeadBytes: 32 * 1024,
  maxHeaders: 100,
  maxTrailerBytes: 8 * 1024,
  maxChunkLineBytes: 1024,
  maxBodyBytes: Number.MAX_SAFE_INTEGER,
  maxInterimResponses: 16,
  handshakeTimeoutMs: 10_000,
  headTimeoutMs: 10_000,
  keepAliveTimeoutMs: 75_000,
  idleTimeoutMs: 60_000,
  connectTimeoutMs: 5_000,
  responseTimeoutMs: 60_000,
  upgradeIdleTimeoutMs: 600_000,
  lingerTimeoutMs: 2_000,
  lingerBytes: 1024 * 1024,
  maxUpstreamConnections: 4096,
  maxIdleUpstreamConnections: 256,
  upstreamIdleTimeoutMs: 30_000,
  maxHopConnections: 8192,
  maxHopOpenings: 4096,
  hopSilenceMs: 20_000,
  staleRouteWaitMs: 2_000,
  maxStaleWaits: 1024,
  elsewhereGraceMs: 2_000,
  maxStreams: 200,
  maxStreamResets: 200,
  firstRequestGraceMs: 500,
  shutdownGraceMs: 5_000,
};

/** The port that means plain HTTP to everyone (RFC 9110 §4.2.1), also on a node that has a certificate. */
export const PLAIN_HTTP_PORT = 80;
