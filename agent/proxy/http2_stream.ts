import http2 from "node:http2";
import { once } from "node:events";
import { parseAuthority } from "./authority.ts";
import { moveContent } from "./content.ts";
import type { ClientInfo, WorkerContext } from "./context.ts";
import type { Watched } from "./deadlines.ts";
import { errorPage } from "./error_page.ts";
import { Exchange } from "./exchange.ts";
import { latin1, putText, TARGET, TOKEN } from "./http1/bytes.ts";
import { Field, ResponseHead } from "./http1/head.ts";
import { forwardingFields } from "./http1/rewrite.ts";
import { HttpError } from "./http_error.ts";
import type { Upstream } from "./mod.ts";
import { ChunkingSink, type ContentSink } from "./sink.ts";

/** Fields that HTTP/2 does not have or that only the proxy sets (RFC 9113 §8.2.2). */
const DROPPED = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "te",
  "host",
  "http2-settings",
  "proxy-authenticate",
  "proxy-authorization",
  "forwarded",
  "x-real-ip",
  "expect",
]);

/** One HTTP/2 request, relayed to its upstream as HTTP/1.1. */
export class Http2Stream implements Watched {
  deadlineMs = Infinity;
  readonly #context: WorkerContext;
  readonly #client: ClientInfo;
  readonly #response = new ResponseHead();
  #exchange?: Exchange;
  #status = 0;
  #requestTrailers: [string, string][] = [];

  constructor(
    private readonly stream: http2.ServerHttp2Stream,
    options: { context: WorkerContext; client: ClientInfo },
  ) {
    this.#context = options.context;
    this.#client = options.client;
  }

  /** Serves the stream. Never rejects. */
  async run(headers: http2.IncomingHttpHeaders): Promise<void> {
    const { counters, deadlines, now } = this.#context;
    const startedMs = now();
    const { stream } = this;
    stream.on("error", () => this.abort());
    stream.on("close", () => this.abort());
    stream.on("aborted", () => this.abort());
    stream.on("trailers", (trailers: http2.IncomingHttpHeaders) => {
      this.#requestTrailers = fieldLines(trailers).filter(([name]) => !DROPPED.has(name));
    });
    deadlines.add(this);
    try {
      await this.#relay(headers);
    } catch (error) {
      this.#exchange?.abort();
      if (error instanceof HttpError && this.#status === 0 && !stream.destroyed) this.#answer(error, headers);
      else resetStream(stream, http2.constants.NGHTTP2_INTERNAL_ERROR);
    } finally {
      deadlines.remove(this);
      if (this.#status !== 0) counters.observe(this.#status, now() - startedMs);
    }
  }

  /** Ends the request upstream; the stream is gone or going. */
  abort(): void {
    this.#exchange?.abort();
  }

  onDeadline(): void {
    this.deadlineMs = Infinity;
    if (this.#status === 0) this.#exchange?.timeOut();
    else resetStream(this.stream, http2.constants.NGHTTP2_CANCEL);
  }

  async #relay(headers: http2.IncomingHttpHeaders): Promise<void> {
    const { stream } = this;
    const isTunnel = headers[":method"] === "CONNECT" && headers[":protocol"] === "websocket";
    const { upstream, head, hasBody, isChunked, isSafe } = this.#requestHead(headers, isTunnel);
    this.#context.counters.bytesIn += head.length;
    const exchange = this.#exchange = new Exchange({
      context: this.#context,
      upstream,
      requestHead: head,
      isHead: headers[":method"] === "HEAD",
      canRetry: isSafe && !hasBody,
      upgrade: isTunnel,
      sendBody: hasBody ? (sink) => this.#sendBody(sink, isChunked) : undefined,
      onInterim: (response, buffer) => {
        const fields = responseFields(response, buffer);
        if (response.status !== 100 && !stream.destroyed) {
          stream.additionalHeaders({ ...fields, ":status": response.status });
        }
        return Promise.resolve();
      },
      owner: this,
      response: this.#response,
    });
    const headEnd = await exchange.respond();
    const { source } = exchange.connection!;
    const response = this.#response;
    if (response.status === 101) {
      source.start = headEnd;
      return await this.#relayWebSocket(exchange);
    }
    const fields = responseFields(response, source.buffer);
    source.start = headEnd;
    const framing = exchange.framing();
    if (response.contentLength >= 0) fields["content-length"] = String(response.contentLength);
    this.#status = response.status;
    this.#touch();
    if (framing.kind === "none") {
      stream.respond({ ...fields, ":status": response.status }, { endStream: true });
    } else {
      await this.#relayBody(exchange, fields);
    }
    await exchange.sending;
    exchange.finish();
  }

  async #relayBody(exchange: Exchange, fields: http2.OutgoingHttpHeaders): Promise<void> {
    const { stream } = this;
    const { limits } = this.#context;
    let trailers: [string, string][] = [];
    stream.on("wantTrailers", () => stream.sendTrailers(headersOf(trailers)));
    stream.respond({ ...fields, ":status": this.#response.status }, {
      waitForTrailers: this.#response.chunked,
    });
    await moveContent(exchange.connection!.source, exchange.framing(), {
      write: (bytes) => this.#write(bytes),
      flush: () => undefined,
      trailers: (received) => trailers = received,
    }, {
      limits,
      raw: false,
      maxBytes: Infinity,
      onProgress: () => this.#touch(),
    });
    stream.end();
  }

  /** A WebSocket over HTTP/2 (RFC 8441) is plain bytes either way once it is open. */
  async #relayWebSocket(exchange: Exchange): Promise<void> {
    const { stream } = this;
    const { limits, counters, deadlines } = this.#context;
    const { conn, source } = exchange.connection!;
    const fields = responseFields(this.#response, source.buffer);
    delete fields["sec-websocket-accept"];
    stream.respond({ ...fields, ":status": 200 });
    this.#status = 200;
    const touch = () => this.deadlineMs = deadlines.nowMs + limits.upgradeIdleTimeoutMs;
    touch();
    const upload = async () => {
      for await (const chunk of stream) {
        let at = 0;
        while (at < chunk.length) at += await conn.write(chunk.subarray(at));
        counters.bytesIn += chunk.length;
        touch();
      }
      await conn.closeWrite();
    };
    const download = async () => {
      while (source.buffered > 0 || await source.fill() > 0) {
        await this.#write(source.buffer.subarray(source.start, source.end));
        source.start = source.end;
        touch();
      }
      stream.end();
    };
    await Promise.all([upload(), download()]);
    exchange.finish();
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const { stream } = this;
    if (stream.destroyed) throw new Error("the stream is closed");
    this.#context.counters.bytesOut += bytes.length;
    // A copy: the buffer is read into again while the frames wait for the client's window.
    if (stream.write(bytes.slice())) return;
    const stop = new AbortController();
    const closed = () => stop.abort();
    stream.once("close", closed);
    try {
      await once(stream, "drain", { signal: stop.signal });
    } finally {
      stream.off("close", closed);
    }
  }

  async #sendBody(sink: ContentSink, isChunked: boolean): Promise<void> {
    const { counters, limits } = this.#context;
    const out = isChunked ? new ChunkingSink(sink) : sink;
    let total = 0;
    await sink.flush();
    for await (const chunk of this.stream as AsyncIterable<Uint8Array>) {
      total += chunk.length;
      counters.bytesIn += chunk.length;
      if (total > limits.maxBodyBytes) throw new HttpError(413, "the body is too large");
      await out.write(chunk);
      await sink.flush();
      if (this.#status === 0) this.#exchange?.touch();
      else this.#touch();
    }
    if (this.stream.aborted) throw new Error("the client has reset the stream");
    if (out instanceof ChunkingSink) await out.end(this.#requestTrailers);
  }

  /** The HTTP/1.1 head for a request. Throws {@linkcode HttpError}: 400, 404, 405, 413. */
  #requestHead(headers: http2.IncomingHttpHeaders, isTunnel: boolean): {
    upstream: Upstream;
    head: Uint8Array;
    hasBody: boolean;
    isChunked: boolean;
    isSafe: boolean;
  } {
    const method = headers[":method"] ?? "";
    const path = headers[":path"] ?? "";
    if (!isEach(method, TOKEN) || !isEach(path, TARGET)) throw new HttpError(400, "malformed request");
    if (method === "CONNECT" && !isTunnel) throw new HttpError(405, "this is not a forward proxy");
    if (path[0] !== "/" && !(path === "*" && method === "OPTIONS")) {
      throw new HttpError(400, "malformed request target");
    }
    const host = headers[":authority"] ?? headers.host ?? "";
    const authority = parseAuthority(host);
    const { hostPort, address, secure } = this.#client;
    const upstream = this.#context.routes.lookup(hostPort, authority);
    if (!upstream) throw new HttpError(404, "no workload answers to this host name here");
    const length = headers["content-length"];
    if (length !== undefined && !/^\d{1,15}$/.test(length)) {
      throw new HttpError(400, "malformed Content-Length");
    }
    if (Number(length ?? 0) > this.#context.limits.maxBodyBytes) {
      throw new HttpError(413, "the body is too large");
    }
    const hasBody = !isTunnel && !this.stream.endAfterHeaders;
    const isChunked = hasBody && length === undefined;
    let text = `${isTunnel ? "GET" : method} ${path} HTTP/1.1\r\nHost: ${host}\r\n`;
    for (const [name, value] of fieldLines(headers)) {
      if (name[0] === ":" || DROPPED.has(name) || /^x[-_]forwarded/.test(name)) continue;
      text += `${name}: ${value}\r\n`;
    }
    text += forwardingFields(
      { clientAddress: address, scheme: secure ? "https" : "http", port: hostPort },
      host,
    );
    if (isChunked) text += "Transfer-Encoding: chunked\r\n";
    if (isTunnel) {
      text += `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ${webSocketKey()}\r\n`;
    } else text += "TE: trailers\r\nConnection: TE\r\n";
    text += "\r\n";
    const head = new Uint8Array(text.length);
    putText(head, 0, text);
    return { upstream, head, hasBody, isChunked, isSafe: ["GET", "HEAD", "OPTIONS"].includes(method) };
  }

  #answer(failure: HttpError, headers: http2.IncomingHttpHeaders): void {
    const { contentType, body } = errorPage(failure.status, failure.message, headers.accept ?? "");
    this.#status = failure.status;
    this.#context.counters.bytesOut += body.length;
    this.stream.respond({
      ":status": failure.status,
      "content-type": contentType,
      "content-length": String(body.length),
      "cache-control": "no-store",
    });
    this.stream.end(headers[":method"] === "HEAD" ? undefined : body);
  }

  #touch(): void {
    this.deadlineMs = this.#context.deadlines.nowMs + this.#context.limits.idleTimeoutMs;
  }
}

/**
 * Resets a stream, a turn later: done at once, with data still queued, a later GOAWAY fails an assertion of nghttp2 and
 * takes the whole process down (Deno 2.9).
 */
export function resetStream(stream: http2.ServerHttp2Stream, code: number): void {
  setTimeout(() => {
    if (!stream.destroyed) stream.close(code);
  });
}

/** End-to-end fields of a response, repeated ones as lists. */
function responseFields(response: ResponseHead, buffer: Uint8Array): http2.OutgoingHttpHeaders {
  const fields: [string, string][] = [];
  for (let i = 0; i < response.count; i++) {
    const kind = response.kind(i);
    if (kind !== Field.Other && kind !== Field.Forwarding) continue;
    fields.push([
      latin1(buffer, response.nameStart(i), response.nameEnd(i), true),
      latin1(buffer, response.valueStart(i), response.valueEnd(i)),
    ]);
  }
  return headersOf(fields);
}

function headersOf(fields: [string, string][]): http2.OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = Object.create(null);
  for (const [rawName, value] of fields) {
    const name = rawName.toLowerCase();
    const before = headers[name];
    headers[name] = before === undefined
      ? value
      : Array.isArray(before)
      ? [...before, value]
      : [before, value];
  }
  return headers;
}

function fieldLines(headers: http2.IncomingHttpHeaders): [string, string][] {
  return Object.entries(headers).flatMap(([name, value]) =>
    value === undefined ? [] : [value].flat().map((one): [string, string] => {
      if (!isEach(name.replace(/^:/, ""), TOKEN) || /[\r\n\0]/.test(one)) {
        throw new HttpError(400, "malformed header field");
      }
      return [name, one];
    })
  );
}

function isEach(text: string, table: Readonly<Uint8Array>): boolean {
  for (let i = 0; i < text.length; i++) {
    if (table[text.charCodeAt(i)] !== 1) return false;
  }
  return text.length > 0;
}

function webSocketKey(): string {
  return btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
}
