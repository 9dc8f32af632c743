import { parseAuthority } from "./authority.ts";
import type { ClientInfo, WorkerContext } from "./context.ts";
import { latin1, latin1Bytes, TARGET, TOKEN } from "./http1/bytes.ts";
import { hopLine } from "./hop/hop_field.ts";
import { HOP_FIELD } from "./http1/fields.ts";
import { Field, type ResponseHead } from "./http1/head.ts";
import { forwardingFields } from "./http1/rewrite.ts";
import { HttpError } from "./http_error.ts";
import type { Route, Upstream } from "./mod.ts";

/** Fields that HTTP/2 does not have (RFC 9113 §8.2.2), that end here, or that only the proxy sets. */
const DROPPED = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "te",
  "trailer",
  "host",
  "content-length",
  "http2-settings",
  "proxy-authenticate",
  "proxy-authorization",
  "forwarded",
  "x-real-ip",
  "expect",
  HOP_FIELD,
]);

/** An HTTP/2 request on its way to being an HTTP/1.1 one. */
export interface RoutedRequest {
  route: Route;
  /** What it is at present. */
  currentRoute(): Route | undefined;
  /** As announced; -1 when it was not. */
  contentLength: number;
  /** The HTTP/1.1 head for one way of the route, with the field that frames the body: its length, if any. */
  head(upstream: Upstream, body: number | "chunked" | undefined): Uint8Array;
}

/** Checks and routes a request. Throws {@linkcode HttpError}: 400, 404, 413, 414, 431, 501. */
export function routeRequest(
  request: Request,
  { context, client }: { context: WorkerContext; client: ClientInfo },
): RoutedRequest {
  const { limits, routes } = context;
  const { method, headers } = request;
  const { authority: host, path } = splitUrl(request.url);
  if (!isEach(method, TOKEN) || !isEach(path, TARGET)) throw new HttpError(400, "malformed request");
  if (method.length + path.length > limits.maxRequestLineBytes) {
    throw new HttpError(414, `the request line is longer than ${limits.maxRequestLineBytes} bytes`);
  }
  const fields = fieldLines(headers, limits.maxHeaders);
  const authority = parseAuthority(host);
  const hostField = headers.get("host");
  if (hostField !== null && hostField.toLowerCase() !== host.toLowerCase()) {
    throw new HttpError(400, "Host and :authority differ");
  }
  const route = routes.lookup(client.hostPort, authority);
  if (!route) throw new HttpError(404, "no workload answers to this host name here");
  const contentLength = parseLength(headers.get("content-length"));
  if (contentLength > limits.maxBodyBytes) throw new HttpError(413, "the body is too large");
  if (contentLength > 0 && request.body === null) {
    throw new HttpError(501, "a GET or HEAD request with a body is served over HTTP/1.1 only");
  }
  if (/^application\/grpc(?![-\w])/i.test(headers.get("content-type") ?? "")) {
    throw new HttpError(501, "gRPC needs trailers, which the proxy cannot pass on; use gRPC-Web or Connect");
  }
  const line = `${method} ${
    path === "/*" && method === "OPTIONS" ? "*" : path
  } HTTP/1.1\r\nHost: ${host}\r\n`;
  const facts = {
    id: route.id,
    clientAddress: client.address,
    scheme: client.secure ? "https" as const : "http" as const,
    port: client.hostPort,
  };
  return {
    route,
    currentRoute: () => context.routes.lookup(client.hostPort, authority),
    contentLength,
    head(upstream, body) {
      let text = line + fields + (upstream.kind === "peer" ? hopLine(facts) : forwardingFields(facts, host));
      if (body === "chunked") text += "Transfer-Encoding: chunked\r\n";
      else if (body !== undefined) text += `Content-Length: ${body}\r\n`;
      text += "\r\n";
      return latin1Bytes(text);
    },
  };
}

/**
 * End-to-end fields of a parsed response whose head stands in `buffer`. Throws {@linkcode HttpError} 502 for what HTTP/2
 * cannot carry.
 */
export function responseHeaders(response: ResponseHead, buffer: Uint8Array): Headers {
  const headers = new Headers();
  for (let i = 0; i < response.count; i++) {
    const kind = response.kind(i);
    if (kind !== Field.Other && kind !== Field.Forwarding) continue;
    const name = latin1(buffer, response.nameStart(i), response.nameEnd(i), true);
    if (name === "trailer") continue; // there will be none
    headers.append(name, latin1(buffer, response.valueStart(i), response.valueEnd(i)));
  }
  if (response.contentLength >= 0 && response.status !== 204) {
    headers.set("content-length", String(response.contentLength));
  }
  return headers;
}

/** Authority and path of a URL as Deno.serve makes it of `:scheme`, `:authority` and `:path`: neither is normalised. */
function splitUrl(url: string): { authority: string; path: string } {
  const start = url.indexOf("://") + "://".length;
  const slash = url.indexOf("/", start);
  if (slash < 0) throw new HttpError(400, "malformed request target");
  return { authority: url.slice(start, slash), path: url.slice(slash) };
}

/** Lines of the fields that go upstream. */
function fieldLines(headers: Headers, maxHeaders: number): string {
  let text = "", count = 0;
  for (const [name, value] of headers) {
    if (++count > maxHeaders) throw new HttpError(431, `more than ${maxHeaders} header fields`);
    if (!isEach(name, TOKEN) || /[\r\n\0]/.test(value)) throw new HttpError(400, "malformed header field");
    if (DROPPED.has(name) || /^x[-_]forwarded/.test(name)) continue;
    text += `${name}: ${value}\r\n`;
  }
  return text;
}

function parseLength(value: string | null): number {
  if (value === null) return -1;
  if (!/^\d{1,15}$/.test(value)) throw new HttpError(400, "malformed Content-Length");
  return Number(value);
}

function isEach(text: string, table: Readonly<Uint8Array>): boolean {
  for (let i = 0; i < text.length; i++) {
    if (table[text.charCodeAt(i)] !== 1) return false;
  }
  return text.length > 0;
}
