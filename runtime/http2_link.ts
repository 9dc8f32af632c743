import http2 from "node:http2";
import type { Duplex } from "node:stream";
import { readWhole } from "./whole_stream.ts";

/** How a connection is watched; without these it is not. Milliseconds. */
export interface Http2LinkOptions {
  /** Silence after which the other end is asked whether it is there: while calls are under way, and before a new one. */
  pingIntervalMs?: number;
  /** Wait for its answer before the connection is given up. */
  pingTimeoutMs?: number;
  /** Without a call for this long, the connection is closed. */
  idleMs?: number;
  settings?: http2.Settings;
}

/** What connect-node asks of a session manager for one call: method, path, headers, options. */
export type Http2Call = [
  method: "POST" | "GET",
  path: string,
  headers: http2.OutgoingHttpHeaders,
  options?: Omit<http2.ClientSessionRequestOptions, "signal">,
];

/** Connections that are tried for one call, when each is lost before the call has begun. */
const MAX_LINKS_A_CALL = 3;

const DEFAULT_PING_TIMEOUT_MS = 15_000;

/**
 * One HTTP/2 connection to a server, over a socket of the caller's making; when it is lost it is not made again. The part of
 * connect-node's session manager that belongs to one connection, with two differences: an error that comes when nobody waits for one
 * does not end the process (connect-node's has moments without a listener, in which Deno may well report a lost socket), and a stream
 * that was cut off before its answer fails (Deno closes it as if it had ended well).
 */
export class Http2Link {
  readonly #session: http2.ClientHttp2Session;
  readonly #options: Http2LinkOptions;
  #streams = 0;
  #isRetired = false;
  #aliveMs = performance.now();
  #pingTimer: ReturnType<typeof setTimeout> | undefined;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;
  #verifying: Promise<void> | undefined;

  private constructor(session: http2.ClientHttp2Session, options: Http2LinkOptions) {
    this.#session = session;
    this.#options = options;
    session.on("goaway", () => {
      this.#isRetired = true;
      if (this.#streams === 0) session.destroy();
    });
    session.once("close", () => {
      this.#isRetired = true;
      clearTimeout(this.#pingTimer);
      clearTimeout(this.#idleTimer);
    });
    this.#rest();
  }

  /** Resolves when the connection stands. Rejects with the socket's error. */
  static connect(
    authority: string,
    createConnection: () => Duplex,
    options: Http2LinkOptions = {},
  ): Promise<Http2Link> {
    return new Promise((resolve, reject) => {
      const { settings } = options;
      const session = http2.connect(authority, { createConnection, settings });
      session.on("error", reject);
      session.once("close", () => reject(closed()));
      session.once("connect", () => resolve(new Http2Link(session, options)));
    });
  }

  /** Whether new calls can be made over it. */
  get isOpen(): boolean {
    return !this.#isRetired && !this.#session.closed && !this.#session.destroyed;
  }

  /** Whether calls are under way. */
  get isBusy(): boolean {
    return this.#streams > 0 && !this.#session.destroyed;
  }

  /** Opens a stream. Throws where the connection is lost; asks the other end first when it was silent for long. */
  async request(...[method, path, headers, options]: Http2Call): Promise<http2.ClientHttp2Stream> {
    const { pingIntervalMs = Infinity } = this.#options;
    // Who asks first whether the other end is there does use the connection.
    clearTimeout(this.#idleTimer);
    let stream: http2.ClientHttp2Stream;
    try {
      if (performance.now() - this.#aliveMs > pingIntervalMs) await (this.#verifying ??= this.#verify());
      stream = this.#session.request({ ...headers, ":method": method, ":path": path }, options);
    } catch (error) {
      if (this.#streams === 0 && this.isOpen) this.#rest();
      throw error;
    }
    if (this.#streams++ === 0) {
      this.#session.ref();
      clearTimeout(this.#idleTimer);
      this.#watch();
    }
    stream.once("response", () => this.#aliveMs = performance.now());
    stream.once("close", () => {
      if (--this.#streams > 0) return;
      clearTimeout(this.#pingTimer);
      if (this.#isRetired) this.#session.destroy();
      else this.#rest();
    });
    return readWhole(failingWhenCutOff(stream));
  }

  /** Bytes came on a stream: if it is one of this connection, the other end is there. */
  heard(stream: http2.ClientHttp2Stream): void {
    if (stream.session === this.#session) this.#aliveMs = performance.now();
  }

  /** Takes no new calls; those under way go on. */
  retire(): void {
    this.#isRetired = true;
    if (this.#streams === 0) this.#session.destroy();
  }

  /** Ends it and the calls on it, which fail with this error. */
  destroy(error?: Error): void {
    this.#isRetired = true;
    if (!this.#session.destroyed) this.#session.destroy(error, http2.constants.NGHTTP2_CANCEL);
  }

  /** Nobody calls: neither the process nor the other end is kept. */
  #rest(): void {
    const { idleMs = Infinity } = this.#options;
    this.#session.unref();
    if (idleMs === Infinity) return;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.retire(), idleMs);
    Deno.unrefTimer(this.#idleTimer as unknown as number);
  }

  /** While calls are under way. */
  #watch(): void {
    const { pingIntervalMs = Infinity } = this.#options;
    if (pingIntervalMs === Infinity) return;
    const silentMs = performance.now() - this.#aliveMs;
    this.#pingTimer = setTimeout(async () => {
      if (performance.now() - this.#aliveMs >= pingIntervalMs) await this.#verify().catch(() => {});
      if (this.#streams > 0 && !this.#session.destroyed) this.#watch();
    }, Math.max(0, pingIntervalMs - silentMs));
  }

  async #verify(): Promise<void> {
    const { pingTimeoutMs = DEFAULT_PING_TIMEOUT_MS } = this.#options;
    const session = this.#session;
    const answered = Promise.withResolvers<void>();
    const lost = () => answered.reject(closed());
    const timer = setTimeout(() => {
      const silent = Object.assign(new Error("it does not answer"), { code: "ETIMEDOUT" });
      answered.reject(silent);
      this.destroy(silent);
    }, pingTimeoutMs);
    session.once("close", lost);
    try {
      if (session.destroyed) lost();
      else session.ping((error) => error === null ? answered.resolve() : lost());
      await answered.promise;
      this.#aliveMs = performance.now();
    } finally {
      clearTimeout(timer);
      session.off("close", lost);
      this.#verifying = undefined;
    }
  }
}

/** Makes a call over the connection that `connected` gives, and over another one where that was lost before the call began. */
export async function requestOver(
  connected: () => Promise<Http2Link>,
  call: Http2Call,
): Promise<http2.ClientHttp2Stream> {
  for (let left = MAX_LINKS_A_CALL;;) {
    const link = await connected();
    try {
      return await link.request(...call);
    } catch (error) {
      if (link.isOpen || --left === 0) throw error;
    }
  }
}

/** A stream that is over without an answer fails, also where Deno says that it ended well. */
function failingWhenCutOff(stream: http2.ClientHttp2Stream): http2.ClientHttp2Stream {
  let isAnswered = false;
  stream.once("response", () => isAnswered = true);
  stream.once("close", () => {
    if (isAnswered || stream.rstCode !== 0 || stream.errored) return;
    stream.emit("error", closed("ERR_HTTP2_STREAM_CANCEL"));
  });
  return stream;
}

/** With a code as Node's own errors have it, so that callers tell a lost connection from a call that failed. */
function closed(code = "ERR_HTTP2_INVALID_SESSION"): Error {
  return Object.assign(new Error("the connection was closed"), { code });
}
