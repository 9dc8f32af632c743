import { moveContent } from "./content.ts";
import type { ClientInfo, WorkerContext } from "./context.ts";
import type { Watched } from "./deadlines.ts";
import { errorPage } from "./error_page.ts";
import { Exchange } from "./exchange.ts";
import { ResponseHead } from "./http1/head.ts";
import { RequestBody, ResponseBody } from "./http2_body.ts";
import { responseHeaders, routeRequest } from "./http2_head.ts";
import { HttpError } from "./http_error.ts";
import { ChunkingSink, type ContentSink } from "./sink.ts";

/** How long a request without Content-Length may take to show that it has no body; later it is sent as one in chunks. */
const EMPTY_BODY_WAIT_MS = 2;
/** Turns of the event loop within which a reset is told; two are the most that have been seen. */
const RESET_TURNS = 5;
/** Responses with content that a Response object cannot carry. */
const RESET_CONTENT = 205;

export interface Http2StreamOptions {
  context: WorkerContext;
  client: ClientInfo;
  /** The connection has as many streams as it may. */
  isCrowded: boolean;
  /** Called once, when response and request are over. */
  onEnd(outcome: { isReset: boolean }): void;
}

/**
 * One HTTP/2 request, relayed to its upstream as HTTP/1.1. Trailers and interim responses pass neither way: Request and
 * Response have no place for them. gRPC, which is nothing without trailers, is therefore refused with 501.
 */
export class Http2Stream implements Watched {
  deadlineMs = Infinity;
  readonly #context: WorkerContext;
  readonly #response = new ResponseHead();
  readonly #startedMs: number;
  #exchange?: Exchange;
  #requestBody?: RequestBody;
  #responseBody?: ResponseBody;
  /** Of the response that has been handed over; 0 before. */
  #status = 0;
  #isReset = false;
  #aborted = false;
  #ended = false;
  #lingering?: PromiseWithResolvers<void>;

  constructor(private readonly request: Request, private readonly options: Http2StreamOptions) {
    this.#context = options.context;
    this.#startedMs = this.#context.now();
  }

  /** Resolves with the response as soon as its head is known. Never rejects. */
  async respond(): Promise<Response> {
    this.#context.deadlines.add(this);
    this.request.signal.addEventListener("abort", this.#onReset);
    try {
      return await this.#relay();
    } catch (error) {
      this.#exchange?.abort();
      if (error instanceof HttpError) return this.#answer(error);
      if (!this.#aborted && !this.#requestBody?.ended) reportError(error);
      this.#end();
      return new Response(null, { status: 500 }); // nobody is left to read it
    }
  }

  /** Ends the request upstream; the client is gone. */
  abort(): void {
    this.#aborted = true;
    this.#exchange?.abort();
    this.#responseBody?.abandon();
    this.#lingering?.resolve();
  }

  onDeadline(): void {
    this.deadlineMs = Infinity;
    if (this.#lingering) return this.#lingering.resolve();
    if (this.#status === 0) return this.#exchange?.timeOut();
    this.#responseBody?.fail("nothing has moved for too long");
    this.#exchange?.abort();
  }

  readonly #onReset = () => {
    if (this.#ended) return;
    this.#isReset = true;
    this.abort();
  };

  async #relay(): Promise<Response> {
    const { request, options: { isCrowded } } = this;
    if (isCrowded) throw new HttpError(503, "the connection has as many streams as it may");
    if (request.body) this.#requestBody = new RequestBody(request.body);
    const routed = routeRequest(request, this.options);
    const length = await this.#bodyLength(routed.contentLength);
    this.#throwIfAborted();
    const hasBody = length === "chunked" || (length ?? 0) > 0;
    this.#context.counters.bytesIn += routed.head(routed.route.upstream, length).length;
    const exchange = this.#exchange = new Exchange({
      context: this.#context,
      route: routed.route,
      currentRoute: routed.currentRoute,
      requestHead: (upstream) => routed.head(upstream, length),
      isHead: request.method === "HEAD",
      canRetry: !hasBody && ["GET", "HEAD", "OPTIONS"].includes(request.method),
      upgrade: false,
      sendBody: hasBody ? (sink) => this.#sendBody(sink, routed.contentLength) : undefined,
      onInterim: () => Promise.resolve(),
      owner: this,
      response: this.#response,
    });
    const headEnd = await exchange.respond();
    this.#throwIfAborted();
    return await this.#relayResponse(exchange, headEnd);
  }

  /** What the request's head says of its body upstream. */
  async #bodyLength(announced: number): Promise<number | "chunked" | undefined> {
    if (announced >= 0) return announced;
    if (!this.#requestBody) return undefined;
    if (!await this.#requestBody.isEmpty(EMPTY_BODY_WAIT_MS)) return "chunked";
    await this.#throwIfReset();
    // Servers want the zero from methods that mostly have a body (RFC 9110 §8.6).
    return ["POST", "PUT", "PATCH"].includes(this.request.method) ? 0 : undefined;
  }

  async #relayResponse(exchange: Exchange, headEnd: number): Promise<Response> {
    const { counters } = this.#context;
    const { source } = exchange.connection!;
    const { status } = this.#response;
    if (status > 599) throw new HttpError(502, `the workload answered with status ${status}`);
    const headers = responseHeaders(this.#response, source.buffer);
    source.start = headEnd;
    const framing = exchange.framing();
    this.#status = status;
    this.#touch();
    if (framing.kind === "none" || status === RESET_CONTENT) {
      if (!exchange.sent) await this.#linger(exchange.sending);
      if (framing.kind === "none" && exchange.sent) exchange.finish();
      else exchange.abort();
      if (status === RESET_CONTENT) headers.delete("content-length");
      this.#end();
      return new Response(null, { status, headers });
    }
    if (framing.kind === "length" && framing.bytes <= source.buffered && exchange.sent) {
      // All of it is here: the upstream is free for the next request before this one's answer is read.
      const content = source.buffer.slice(source.start, source.start + framing.bytes);
      source.start += framing.bytes;
      counters.bytesOut += framing.bytes;
      exchange.finish();
      this.#end();
      return new Response(content, { status, headers });
    }
    const body = this.#responseBody = new ResponseBody(this.#onReset);
    this.#relayBody(exchange, body);
    return new Response(body.stream, { status, headers });
  }

  /** Never rejects. */
  async #relayBody(exchange: Exchange, body: ResponseBody): Promise<void> {
    const { counters, limits } = this.#context;
    try {
      await moveContent(exchange.connection!.source, exchange.framing(), body, {
        limits,
        raw: false,
        maxBytes: Infinity,
        onProgress: (bytes) => {
          counters.bytesOut += bytes;
          this.#touch();
        },
      });
      if (!exchange.sent) await this.#linger(exchange.sending);
      // What the upstream did not want to read the client must still get rid of, or it may not see the answer.
      if (!exchange.sent) await this.#discardRequest();
      exchange.finish();
      body.end();
    } catch (error) {
      exchange.abort();
      body.fail(error instanceof Error ? error.message : String(error));
    } finally {
      this.#end();
    }
  }

  async #sendBody(sink: ContentSink, contentLength: number): Promise<void> {
    const { counters, limits } = this.#context;
    const body = this.#requestBody!;
    const chunking = contentLength < 0 ? new ChunkingSink(sink) : undefined;
    const out = chunking ?? sink;
    let total = 0;
    await sink.flush();
    for (let chunk = await body.read(); chunk; chunk = await body.read()) {
      total += chunk.length;
      counters.bytesIn += chunk.length;
      if (total > limits.maxBodyBytes) throw new HttpError(413, "the body is too large");
      await out.write(chunk);
      await sink.flush();
      if (this.#status === 0) this.#exchange?.touch();
      else this.#touch();
    }
    if (contentLength >= 0 && total !== contentLength) {
      throw new HttpError(400, "the body is not as long as said");
    }
    if (chunking) {
      await this.#throwIfReset();
      await chunking.end();
    }
  }

  /** Answers by itself. */
  #answer({ status, message }: HttpError): Response {
    const { headers, method } = this.request;
    const { contentType, body } = errorPage(status, message, headers.get("accept") ?? "");
    const bytes = new TextEncoder().encode(body);
    const init = {
      status,
      headers: {
        "content-type": contentType,
        "content-length": String(bytes.length),
        "cache-control": "no-store",
        // gRPC clients read these even of an answer that is none of gRPC: UNIMPLEMENTED.
        ...(status === 501 ? { "grpc-status": "12", "grpc-message": message } : {}),
      },
    };
    this.#status = status;
    this.#context.counters.bytesOut += bytes.length;
    if (!this.#requestBody || this.#requestBody.ended || method === "HEAD") {
      this.#end();
      return new Response(method === "HEAD" ? null : bytes, init);
    }
    const responseBody = this.#responseBody = new ResponseBody(this.#onReset);
    this.#finishAnswer(responseBody, bytes);
    return new Response(responseBody.stream, init);
  }

  /** The end of an early answer waits for the end of the request; clients take a reset before it for a failure. */
  async #finishAnswer(body: ResponseBody, bytes: Uint8Array): Promise<void> {
    try {
      await body.write(bytes);
      await this.#discardRequest();
      body.end();
    } catch {
      body.abandon(); // a write fails only when the client is gone
    } finally {
      this.#end();
    }
  }

  async #discardRequest(): Promise<void> {
    // A failure to read means that the client has ended the stream, which is what is waited for.
    const read = this.#requestBody?.discard(this.#context.limits.lingerBytes).catch(() => {});
    if (read) await this.#linger(read);
  }

  /** Waits for a client that takes its time, until the linger deadline at most. */
  async #linger(until: Promise<void>): Promise<void> {
    const { deadlines, limits } = this.#context;
    const lingering = this.#lingering = Promise.withResolvers<void>();
    this.deadlineMs = deadlines.nowMs + limits.lingerTimeoutMs;
    until.then(lingering.resolve);
    await lingering.promise;
    this.#lingering = undefined;
  }

  #touch(): void {
    if (this.#lingering) return;
    this.deadlineMs = this.#context.deadlines.nowMs + this.#context.limits.idleTimeoutMs;
  }

  /**
   * To be called where only the end of the request's body says that it is whole. Deno's server ends it just so when the client
   * resets the stream with CANCEL, as who breaks off an upload does, and tells of the reset by another way soon after.
   */
  async #throwIfReset(): Promise<void> {
    for (let turn = 0; turn < RESET_TURNS && !this.#aborted; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    this.#throwIfAborted();
  }

  #throwIfAborted(): void {
    if (this.#aborted) throw new DOMException("The client is gone", "AbortError");
  }

  /** Once: the stream is over for us, and its upstream connection may serve another. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#exchange = undefined;
    this.#responseBody = undefined;
    const { counters, deadlines, now } = this.#context;
    deadlines.remove(this);
    this.request.signal.removeEventListener("abort", this.#onReset);
    if (this.#status !== 0) counters.observe(this.#status, now() - this.#startedMs);
    this.options.onEnd({ isReset: this.#isReset });
  }
}
