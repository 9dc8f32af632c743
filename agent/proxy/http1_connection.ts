import { moveContent } from "./content.ts";
import type { ClientInfo, WorkerContext } from "./context.ts";
import type { Watched } from "./deadlines.ts";
import { acceptField, errorAnswer } from "./error_page.ts";
import { Exchange } from "./exchange.ts";
import { CR, putBytes, splice } from "./http1/bytes.ts";
import { RequestHead, ResponseHead } from "./http1/head.ts";
import { REWRITE_SLACK_BYTES, rewriteRequest, rewriteResponse } from "./http1/rewrite.ts";
import type { MuxStream } from "./hop/mux/stream.ts";
import { Http1Router } from "./http1_router.ts";
import { HttpError } from "./http_error.ts";
import { ChunkingSink, ConnectionSink, type ContentSink, writeAll } from "./sink.ts";
import type { Source } from "./source.ts";
import { tunnel } from "./tunnel.ts";

const CONSUMED = -1;

type Phase = "idle" | "head" | "exchange" | "body" | "linger";

/**
 * One HTTP/1.x client connection: requests one after the other, each relayed to its upstream as it streams. A read of the
 * client is always in flight, so that one who leaves is noticed while his request is served.
 */
export class Http1Connection implements Watched {
  deadlineMs = Infinity;
  readonly #context: WorkerContext;
  readonly #client: ClientInfo;
  readonly #request = new RequestHead();
  readonly #response = new ResponseHead();
  #phase: Phase = "idle";
  #exchange?: Exchange;
  #served = 0;
  #draining = false;
  #expired = false;
  /** Where the head in the buffer ends, until it is consumed. */
  #requestEnd = CONSUMED;
  /** The body of the request in hand has gone with its head. */
  #isWhole = false;
  #accept = "";
  #closed = false;
  /** Bytes of the source may still be on their way upstream, whatever has become of the exchange. */
  #isMoving = false;
  /** Status sent for the request in hand; 0 while none is. */
  #status = 0;
  #startedMs = 0;
  #isCounted = false;
  readonly #router: Http1Router;

  constructor(
    private readonly conn: Deno.Conn | MuxStream,
    private readonly source: Source,
    options: { context: WorkerContext; client: ClientInfo },
  ) {
    this.#context = options.context;
    this.#client = options.client;
    this.#router = new Http1Router(options.context, options.client);
  }

  get isIdle(): boolean {
    return this.#phase === "idle";
  }

  /** Serves until either side ends the connection. */
  async run(): Promise<void> {
    this.#context.deadlines.add(this);
    try {
      let goesOn = true;
      while (goesOn) {
        this.#begin();
        try {
          goesOn = await this.#relayOne();
        } catch (error) {
          goesOn = await this.#fail(error);
        } finally {
          this.#exchange = undefined;
          this.#count();
        }
      }
    } finally {
      this.#end();
      if (!this.#isMoving) this.source.release();
    }
  }

  /** Ends the connection after the request in hand, or after the first, which may be on its way. */
  drain(): void {
    this.#draining = true;
    const { deadlines, limits: { firstRequestGraceMs } } = this.#context;
    if (this.isIdle && this.#served > 1) this.#end();
    else if (this.isIdle) this.deadlineMs = Math.min(this.deadlineMs, deadlines.nowMs + firstRequestGraceMs);
  }

  /** Closes at once, but for an answer that has been written. */
  close(): void {
    if (this.isIdle) this.#end();
    else if (this.#leave()) this.#context.closer.cut(this.conn);
  }

  /** Closes when what was written is with the system. */
  #end(): void {
    if (this.#leave()) this.#context.closer.end(this.conn);
  }

  /** Lets go of all but the connection; false when that has been done. */
  #leave(): boolean {
    if (this.#closed) return false;
    this.#closed = true;
    this.#context.deadlines.remove(this);
    this.#exchange?.abort();
    return true;
  }

  onDeadline(): void {
    this.deadlineMs = Infinity;
    if (this.#phase === "exchange") this.#exchange?.timeOut();
    else if (this.#phase === "head") this.#expire();
    else this.close();
  }

  #begin(): void {
    this.#status = 0;
    this.#isCounted = false;
    this.#requestEnd = CONSUMED;
    this.#isWhole = false;
    this.#accept = "";
  }

  /** After a request that could not be relayed; returns whether another may follow. */
  async #fail(error: unknown): Promise<boolean> {
    if (this.#closed) return false;
    // Too late for another answer, or nobody left to read it: cut, so that a body is seen not to be whole.
    if (this.#status !== 0 || !(error instanceof HttpError)) return false;
    if (this.#requestEnd !== CONSUMED) {
      this.#accept = acceptField(this.source.buffer, this.#requestEnd, this.source.start);
    }
    return await this.#answer(error);
  }

  /** Returns whether another request may follow. */
  async #relayOne(): Promise<boolean> {
    const { limits, counters, buffers } = this.#context;
    const { source } = this;
    const request = this.#request;
    const headEnd = await this.#readHead();
    if (headEnd < 0 || this.#expired || this.#closed) return false;
    request.parse(source.buffer, source.start, headEnd, limits);
    const headBytes = headEnd - source.start;
    counters.bytesIn += headBytes;
    this.#requestEnd = headEnd;
    const route = this.#router.route(request, source.buffer);
    if (request.contentLength > limits.maxBodyBytes) throw new HttpError(413, "the body is too large");

    const upgrade = request.upgrade && !request.hasBody && request.minor === 1;
    const pooled = buffers.takeSmall();
    const most = headBytes + this.#router.mostForwarding + REWRITE_SLACK_BYTES;
    const out = most <= pooled.length ? pooled : new Uint8Array(most);
    const forwarding = this.#router.forwarding(route.upstream, route);
    const headLength = rewriteRequest(out, source.buffer, request, { forwarding, upgrade });
    source.start = headEnd;
    this.#requestEnd = CONSUMED;
    // A body that is all here goes with its head, so that both can be sent once more, elsewhere.
    const isWhole = this.#isWhole = request.contentLength > 0 && request.contentLength <= source.buffered &&
      !request.expectsContinue && headLength + request.contentLength <= out.length;
    let length = headLength;
    if (isWhole) {
      length = putBytes(out, headLength, source.buffer, headEnd, headEnd + request.contentLength);
      source.start += request.contentLength;
      counters.bytesIn += request.contentLength;
    }
    const hasBody = request.hasBody && !isWhole;
    this.#phase = "exchange";
    const first = out.subarray(0, length);
    const exchange = this.#exchange = new Exchange({
      context: this.#context,
      route,
      currentRoute: this.#client.hop ? undefined : this.#router.current,
      requestHead: (upstream) => {
        const other = this.#router.forwarding(upstream, route);
        return other === forwarding ? first : splice(first, request.forwardingAt, forwarding, other);
      },
      isHead: request.isHead,
      canRetry: request.isSafe && !request.hasBody,
      upgrade,
      sendBody: hasBody ? (sink) => this.#sendBody(sink) : undefined,
      onInterim: this.#passInterim,
      owner: this,
      response: this.#response,
    });
    if (!hasBody) this.#watch();
    try {
      const responseEnd = await exchange.respond();
      if (this.#closed) return false;
      return await this.#relayResponse(exchange, responseEnd);
    } catch (error) {
      if (this.#status === 0) this.#accept = acceptField(out, headLength);
      throw error;
    } finally {
      exchange.drop();
      // While the head may still be being written its buffer must not be used again.
      if (exchange.isHeadFree) buffers.give(pooled);
    }
  }

  /** Offset behind a head, or -1 when the client has nothing more to ask. */
  async #readHead(): Promise<number> {
    const { limits, deadlines } = this.#context;
    this.#phase = "idle";
    const isFirst = this.#served++ === 0;
    if (this.#draining && !isFirst && this.source.buffered === 0) return -1;
    const firstMs = this.#draining ? limits.firstRequestGraceMs : limits.headTimeoutMs;
    this.deadlineMs = deadlines.nowMs + (isFirst ? firstMs : limits.keepAliveTimeoutMs);
    const { source } = this;
    if (source.buffered === 0) await source.fill();
    // One is tolerated before a request (RFC 9112 §2.2).
    if (source.buffer[source.start] === CR) await source.skipEmptyLine();
    const headEnd = source.head(limits.maxHeadBytes, this.#onFirstByte);
    return typeof headEnd === "number" ? headEnd : await headEnd;
  }

  readonly #onFirstByte = () => {
    const { now, deadlines, limits } = this.#context;
    this.#phase = "head";
    this.#startedMs = now();
    this.deadlineMs = deadlines.nowMs + limits.headTimeoutMs;
  };

  async #sendBody(sink: ContentSink): Promise<void> {
    const { limits, counters } = this.#context;
    const request = this.#request;
    this.#isMoving = true;
    await moveContent(
      this.source,
      request.chunked ? { kind: "chunked" } : { kind: "length", bytes: request.contentLength },
      sink,
      {
        limits,
        raw: true,
        maxBytes: limits.maxBodyBytes,
        onProgress: (bytes) => {
          counters.bytesIn += bytes;
          if (this.#phase === "exchange") this.#exchange?.touch();
          else this.#touch();
        },
      },
    );
    this.#isMoving = false;
    this.#watch();
  }

  /** Reads ahead while the request is served: the next request, or that the client has ended or gone. */
  #watch(): void {
    this.source.fill().then(this.#onWatched, this.#onClientFailed);
  }

  readonly #onWatched = () => {
    if (this.source.ended) this.#exchange?.clientEnded();
  };

  readonly #onClientFailed = () => this.#end();

  readonly #passInterim = async (response: ResponseHead, buffer: Uint8Array): Promise<void> => {
    if (this.#request.minor !== 0) await this.#sendHead(response, buffer, "");
  };

  /** Sends a head that nothing follows, or nothing of HTTP. */
  async #sendHead(response: ResponseHead, buffer: Uint8Array, connection: "" | "Upgrade"): Promise<void> {
    const most = this.#exchange!.connection!.source.buffered + REWRITE_SLACK_BYTES;
    const sink = new ConnectionSink(this.conn, this.#context.buffers, most);
    try {
      sink.filled = rewriteResponse(sink.buffer, buffer, response, { framing: "none", connection });
      this.#context.counters.bytesOut += sink.filled;
      await sink.flush();
    } finally {
      sink.release();
    }
  }

  /** Relays the response; returns whether the client connection can go on. */
  async #relayResponse(exchange: Exchange, headEnd: number): Promise<boolean> {
    const { limits, counters } = this.#context;
    const { source } = exchange.connection!;
    const response = this.#response, request = this.#request;
    if (response.status === 101) return await this.#relayUpgrade(exchange, headEnd);
    const framing = exchange.framing();
    const isOld = request.minor === 0;
    const rechunk = framing.kind === "until-close" && !isOld;
    // A final answer to "may I send?" leaves it open whether a body follows.
    const close = isOld || request.close || this.#draining || (request.expectsContinue && !exchange.sent);
    const sink = new ConnectionSink(
      this.conn,
      this.#context.buffers,
      headEnd - source.start + REWRITE_SLACK_BYTES,
    );
    this.#phase = "body";
    this.#touch();
    this.#status = response.status;
    try {
      sink.filled = rewriteResponse(sink.buffer, source.buffer, response, {
        framing: rechunk ? "chunk" : (isOld && response.chunked) || response.status === 204 ? "none" : "keep",
        connection: close ? "close" : "",
      });
      counters.bytesOut += sink.filled;
      source.start = headEnd;
      const chunking = rechunk ? new ChunkingSink(sink) : undefined;
      if (
        framing.kind === "length" && framing.bytes <= source.buffered && exchange.sent &&
        sink.fits(framing.bytes)
      ) {
        // All of it is here: the upstream is free for the next request before this one's answer is written.
        const end = source.start + framing.bytes;
        const length = putBytes(sink.buffer, sink.filled, source.buffer, source.start, end);
        source.start = end;
        counters.bytesOut += framing.bytes;
        exchange.finish();
        const answer = sink.buffer.subarray(0, length);
        const written = await this.conn.write(answer);
        if (written < length) await writeAll(this.conn, answer.subarray(written));
      } else {
        await moveContent(source, framing, chunking ?? sink, {
          limits,
          raw: !isOld,
          maxBytes: Infinity,
          onProgress: (bytes) => {
            counters.bytesOut += bytes;
            this.#touch();
          },
        });
        await chunking?.end();
        if (!exchange.sent) await this.#awaitRequest(exchange);
        exchange.finish();
      }
    } finally {
      sink.release();
    }
    if (exchange.sent && !close && !this.#closed) return true;
    await this.#closeGently();
    return false;
  }

  async #relayUpgrade(exchange: Exchange, headEnd: number): Promise<boolean> {
    const { counters, deadlines, limits } = this.#context;
    const { conn, source } = exchange.connection!;
    this.#status = 101;
    this.#phase = "body";
    await this.#sendHead(this.#response, source.buffer, "Upgrade");
    source.start = headEnd;
    const touch = () => this.deadlineMs = deadlines.nowMs + limits.upgradeIdleTimeoutMs;
    touch();
    this.#isMoving = true;
    await tunnel({ conn: this.conn, source: this.source }, { conn, source }, (bytes, direction) => {
      if (direction === "in") counters.bytesIn += bytes;
      else counters.bytesOut += bytes;
      touch();
    });
    this.#isMoving = false;
    exchange.finish();
    return false;
  }

  /** The response is complete, the request is not: gives the client a moment to come to its end. */
  async #awaitRequest(exchange: Exchange): Promise<void> {
    this.#phase = "linger";
    this.deadlineMs = this.#context.deadlines.nowMs + this.#context.limits.lingerTimeoutMs;
    await exchange.sending;
  }

  #touch(): void {
    const { deadlines, limits } = this.#context;
    if (this.#phase === "body") this.deadlineMs = deadlines.nowMs + limits.idleTimeoutMs;
  }

  /** The head did not come in time, and is still being read. */
  #expire(): void {
    this.#expired = true;
    this.#status = 0;
    this.#answer(new HttpError(408, "the request head did not arrive in time")).finally(() => this.#end());
  }

  /** Answers by itself; returns whether the connection can go on. */
  async #answer(failure: HttpError): Promise<boolean> {
    const request = this.#request;
    const isParsed = failure.status === 404 || failure.status === 421 || failure.status >= 502;
    const next = isParsed ? this.#nextRequest() : CONSUMED;
    const goesOn = next !== CONSUMED && !request.close && request.minor === 1 && !this.#draining;
    if (goesOn) this.source.start = next;
    const bytes = errorAnswer(failure, {
      accept: this.#accept,
      isHop: this.#client.hop !== undefined,
      isHead: isParsed && request.isHead,
      close: !goesOn,
    });
    this.#status = failure.status;
    this.#phase = goesOn ? "body" : "linger";
    this.#touch();
    try {
      if (!goesOn) this.deadlineMs = this.#context.deadlines.nowMs + this.#context.limits.lingerTimeoutMs;
      this.#context.counters.bytesOut += bytes.length;
      await writeAll(this.conn, bytes);
      if (!goesOn && !this.#expired) await this.#closeGently();
    } catch {
      return false; // the client is gone
    }
    return goesOn;
  }

  /** Where the request behind the one in hand begins; CONSUMED when the body of that one has not arrived. */
  #nextRequest(): number {
    const { hasBody, chunked, contentLength } = this.#request;
    const { start, end } = this.source;
    if (this.#requestEnd === CONSUMED) return hasBody && !this.#isWhole ? CONSUMED : start;
    if (!hasBody) return this.#requestEnd;
    return chunked || this.#requestEnd + contentLength > end ? CONSUMED : this.#requestEnd + contentLength;
  }

  #count(): void {
    if (this.#status === 0 || this.#isCounted) return;
    this.#isCounted = true;
    this.#context.counters.observe(this.#status, this.#context.now() - this.#startedMs);
  }

  /** Lets the client read the answer before the close: closing over unread bytes would reset the connection. */
  async #closeGently(): Promise<void> {
    const { limits, deadlines } = this.#context;
    const { source } = this;
    this.#count();
    this.#phase = "linger";
    this.deadlineMs = deadlines.nowMs + limits.lingerTimeoutMs;
    try {
      await this.conn.closeWrite();
      let left = limits.lingerBytes;
      while (!source.ended && left > 0) {
        source.start = source.end;
        left -= await source.fill();
      }
    } catch {
      // The client is gone already.
    }
  }
}
