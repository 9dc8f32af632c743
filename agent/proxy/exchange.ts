import type { Framing } from "./content.ts";
import type { WorkerContext } from "./context.ts";
import { ClaimRefused } from "./hop/dialer.ts";
import { latin1 } from "./http1/bytes.ts";
import type { ResponseHead } from "./http1/head.ts";
import { HttpError } from "./http_error.ts";
import type { PeerUpstream, Route, Upstream } from "./mod.ts";
import { candidates } from "./route_table.ts";
import { ConnectionSink, type ContentSink, writeAll } from "./sink.ts";
import type { Source } from "./source.ts";
import { keyOf, type UpstreamConnection } from "./upstream_pool.ts";

export interface ExchangeOptions {
  context: WorkerContext;
  /** Its ways are tried one after the other while the request cannot have had an effect. */
  route: Route;
  /** What the route is at present; absent when no other will do. */
  currentRoute?: () => Route | undefined;
  /** Head to send by that way, and the body when all of it is there; must stay as it is until `respond` resolves. */
  requestHead(upstream: Upstream): Uint8Array;
  isHead: boolean;
  /** May be sent once more when a kept connection turns out to be stale: safe, and without a body. */
  canRetry: boolean;
  /** The exchange may turn the connection into a tunnel, so it gets a fresh one. */
  upgrade: boolean;
  /** Moves the request body, if it does not go with the head. What it throws is the client's fault unless the sink failed. */
  sendBody?: (sink: ContentSink) => Promise<void>;
  /** Passes an interim response (1xx) on; its fields stand in `buffer`. */
  onInterim(response: ResponseHead, buffer: Uint8Array): Promise<void>;
  /** Whose deadline is moved while the upstream is awaited. */
  owner: { deadlineMs: number };
  /** Filled in with the response. */
  response: ResponseHead;
}

const SENT = Promise.resolve();
const NO_CONTENT: Framing = { kind: "none" };
const CHUNKED: Framing = { kind: "chunked" };
const UNTIL_CLOSE: Framing = { kind: "until-close" };

/** One request to an upstream and the head of its response, over a kept or a new connection. */
export class Exchange {
  connection?: UpstreamConnection;
  /** The request has been read from the client and written to the upstream, all of it. */
  sent = false;
  /** Nothing of the request head is on its way any more, in this attempt or an earlier one. */
  get isHeadFree(): boolean {
    return this.sent && this.#attempts === 1;
  }
  #attempts = 0;
  /** Resolves when the request is sent or has failed. Never rejects. */
  sending = SENT;
  #clientFault?: unknown;
  #timedOut = false;
  #clientEnded = false;
  #aborted = false;
  #connecting?: AbortController;
  /** Some of the body may have been sent, and is not here any more. */
  #bodyMoves = false;
  /** The node that is awaited, while the request may as well be sent to another. */
  #awaited?: PeerUpstream;
  /** The route leads elsewhere by now. */
  #isElsewhere = false;

  constructor(private readonly options: ExchangeOptions) {}

  /**
   * Sends the request and waits for the final response head, which then stands in `connection.source` up to the offset
   * returned. Throws {@linkcode HttpError} with the status to answer, or what `sendBody` threw.
   */
  respond(): Promise<number> {
    const { upstream, fallbacks } = this.options.route;
    return upstream.kind === "tcp" && !fallbacks?.length ? this.#exchange(upstream) : this.#respondByAny();
  }

  async #respondByAny(): Promise<number> {
    const { context: { stale }, currentRoute } = this.options;
    let { route } = this.options;
    for (let isFirst = true;; isFirst = false) {
      let failure: unknown;
      let wentAway = false;
      for (const upstream of candidates(route)) {
        const isPeer = upstream.kind === "peer";
        wentAway ||= isPeer;
        try {
          const headEnd = await this.#exchange(upstream);
          if (isPeer) this.options.context.counters.hopsSent++;
          return headEnd;
        } catch (error) {
          failure = error;
          if (!(error instanceof HttpError) || !error.unsent || this.#bodyMoves) throw error;
          if (isPeer) this.#reportStale(route, upstream, error);
        }
      }
      // Others know better where the workload is; so will this node soon.
      if (!isFirst || !wentAway || !currentRoute) throw failure;
      const { signal } = this.#connecting = new AbortController();
      this.options.owner.deadlineMs = Infinity;
      const changed = await stale.wait(route, currentRoute, signal);
      if (!changed) throw failure;
      route = changed;
    }
  }

  /** By one way: throws an error that is `unsent` when another may be tried. */
  async #exchange(upstream: Upstream): Promise<number> {
    const { context, upgrade, canRetry } = this.options;
    const requestHead = this.options.requestHead(upstream);
    for (;;) {
      this.#throwIfAborted();
      const kept = upgrade ? undefined : context.upstreams.takeIdle(upstream);
      const connection = kept ?? await this.#connect(upstream);
      this.connection = connection;
      if (this.#clientEnded) this.#closeWrite();
      this.#attempts++;
      this.sending = this.#send(connection, requestHead);
      this.#touchResponse();
      if (upstream.kind === "peer" && canRetry) this.#await(upstream);
      const { source } = connection;
      let headEnd: number;
      try {
        for (let interim = 1;; interim++) {
          if (source.buffered === 0) await source.fill();
          const found = source.head(context.limits.maxHeadBytes);
          headEnd = typeof found === "number" ? found : await found;
          if (headEnd < 0) throw new Error("end of stream before a response");
          if (this.#takeHead(source, headEnd)) break;
          await this.#passInterim(source, headEnd, interim);
        }
      } catch (error) {
        const isSilent = source.buffered === 0 && !(error instanceof HttpError);
        connection.close();
        if (this.#clientFault !== undefined) throw this.#clientFault;
        this.#throwIfAborted();
        if (this.#timedOut) {
          const options = { cause: error, unsent: this.#isElsewhere };
          this.#timedOut = this.#isElsewhere = false;
          throw new HttpError(this.sent ? 504 : 408, this.#timeoutReason(), options);
        }
        if (isSilent && canRetry && connection.isStale(error)) continue;
        if (error instanceof HttpError) throw error.status === 502 ? error : malformed(error);
        const options = { cause: error, unsent: isSilent && canRetry };
        throw new HttpError(502, "the workload closed the connection before it answered", options);
      } finally {
        if (this.#awaited !== undefined) context.stale.awaiting.delete(this);
      }
      if (upstream.kind === "peer") this.#throwIfRefused(connection, headEnd);
      return headEnd;
    }
  }

  #await(upstream: PeerUpstream): void {
    this.#awaited = upstream;
    this.options.context.stale.awaiting.add(this);
    // It may have changed while the connection was made.
    this.routesChanged();
  }

  /** A node that hangs says nothing for ever: what may be sent again is, soon after the route leads elsewhere. */
  routesChanged(): void {
    const { context: { deadlines, limits }, currentRoute, owner } = this.options;
    const [awaited, route] = [this.#awaited, currentRoute?.()];
    if (awaited === undefined || route === undefined || route.upstream === awaited) return;
    if (candidates(route).some((upstream) => keyOf(upstream) === keyOf(awaited))) return;
    this.#isElsewhere = true;
    owner.deadlineMs = Math.min(owner.deadlineMs, deadlines.nowMs + limits.elsewhereGraceMs);
  }

  /** The other node's proxy may answer by itself that it could not serve the request. */
  #throwIfRefused(connection: UpstreamConnection, headEnd: number): void {
    const { response } = this.options;
    const { source } = connection;
    const refusal = latin1(source.buffer, response.hopStart, response.hopEnd);
    if (refusal === "") return;
    const framing = this.framing();
    const bytes = framing.kind === "length" ? framing.bytes : 0;
    source.start = headEnd;
    if (this.sent && framing.kind !== "until-close" && bytes <= source.buffered) {
      source.start += bytes;
      this.finish();
    } else {
      connection.close();
    }
    this.connection = undefined;
    if (refusal === "not-here") {
      throw new HttpError(503, "the workload is not where it was last seen", {
        unsent: true,
        hop: "not-here",
      });
    }
    throw new HttpError(502, "the workload cannot be reached on its node", { unsent: true });
  }

  #reportStale(route: Route, { node }: PeerUpstream, error: HttpError): void {
    const { id, hostPort } = route;
    const isRefused = error.cause instanceof ClaimRefused;
    const reason = error.hop === "not-here" ? "not-here" : isRefused ? "refused" : "unreachable";
    const cause = error.cause instanceof Error ? `: ${error.cause.message}` : "";
    this.options.context.stale.report({ id, hostPort, node, reason, detail: error.message + cause });
  }

  /** How the response's end is found; the head must have been parsed. */
  framing(): Framing {
    const { response, isHead } = this.options;
    if (isHead || response.status === 204 || response.status === 304) return NO_CONTENT;
    if (response.chunked) return CHUNKED;
    if (response.contentLength >= 0) return { kind: "length", bytes: response.contentLength };
    return UNTIL_CLOSE;
  }

  /** After the whole response: keeps the upstream connection for others if both sides are through with it. */
  finish(): void {
    const { response } = this.options;
    const isReusable = this.sent && !this.#clientEnded && response.minor === 1 && !response.close &&
      this.framing().kind !== "until-close" && response.status !== 101;
    if (isReusable) this.connection?.release();
    else this.connection?.close();
    this.connection = undefined; // a client that leaves from now on leaves it alone
  }

  /** Nothing more is wanted of it: closes the upstream connection, unless it was given back by {@linkcode finish}. */
  drop(): void {
    this.connection?.close();
    this.connection = undefined;
  }

  /** The client has closed its sending half: so does its request upstream, which may still answer. */
  clientEnded(): void {
    if (this.#clientEnded) return;
    this.#clientEnded = true;
    if (this.connection && !this.connection.closed) this.#closeWrite();
  }

  /** The client is gone, or its connection is being closed. */
  abort(): void {
    this.#aborted = true;
    this.#connecting?.abort();
    this.connection?.close();
  }

  /** The owner's deadline has passed before the response head came. */
  timeOut(): void {
    this.#timedOut = true;
    this.connection?.close();
  }

  /** The request's body is moving: starts the wait for the response anew. */
  touch(): void {
    this.#touchResponse();
  }

  async #connect(upstream: Upstream): Promise<UpstreamConnection> {
    const { context, owner } = this.options;
    owner.deadlineMs = Infinity; // connect() has its own
    this.#connecting = new AbortController();
    return await context.upstreams.connect(upstream, this.#connecting.signal);
  }

  #throwIfAborted(): void {
    if (this.#aborted) throw new DOMException("The client is gone", "AbortError");
  }

  async #send(connection: UpstreamConnection, requestHead: Uint8Array): Promise<void> {
    const { sendBody, context } = this.options;
    if (!sendBody) {
      try {
        const written = await connection.conn.write(requestHead);
        if (written < requestHead.length) await writeAll(connection.conn, requestHead.subarray(written));
        this.sent = true;
      } catch {
        // The read of the response fails as well, or brings an answer given early; it decides.
      }
      return;
    }
    const sink = new ConnectionSink(connection.conn, context.buffers, requestHead.length);
    try {
      await sink.write(requestHead);
      this.#bodyMoves = true;
      await sendBody(sink);
      this.sent = true;
    } catch (error) {
      if (sink.failed) return; // as above
      this.#clientFault = error;
      connection.close();
    } finally {
      sink.release();
    }
  }

  /** Takes in the head up to `end`; whether it is that of the final response. */
  #takeHead(source: Source, end: number): boolean {
    const { context: { limits }, response, upgrade } = this.options;
    response.parse(source.buffer, source.start, end, limits.maxHeaders);
    if (response.status === 101 && !upgrade) {
      throw new HttpError(502, "the workload switched protocols unasked");
    }
    return response.status >= 200 || response.status === 101;
  }

  async #passInterim(source: Source, end: number, count: number): Promise<void> {
    const { context: { limits }, response, onInterim } = this.options;
    if (count > limits.maxInterimResponses) throw new HttpError(502, "too many interim responses");
    await onInterim(response, source.buffer);
    source.start = end;
    this.#touchResponse();
  }

  #touchResponse(): void {
    const { context, owner } = this.options;
    owner.deadlineMs = context.deadlines.nowMs + context.limits.responseTimeoutMs;
  }

  #timeoutReason(): string {
    return this.sent ? "the workload did not answer in time" : "the request body did not arrive in time";
  }

  #closeWrite(): void {
    // A failure means that the upstream is gone, which its read tells.
    this.connection?.conn.closeWrite().catch(() => {});
  }
}

function malformed(cause: HttpError): HttpError {
  return new HttpError(502, `the workload's response is malformed: ${cause.message}`, { cause });
}
