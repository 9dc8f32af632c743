import { latin1, putBytes, putText } from "./bytes.ts";
import { Field, type RequestHead, type ResponseHead, type Trailers } from "./head.ts";

/** How much longer than the original a rewritten head can be, forwarding fields not counted. */
export const REWRITE_SLACK_BYTES = 512;

/** Who asked, as told to the upstream. */
export interface ForwardingFacts {
  clientAddress: string;
  scheme: "http" | "https";
  /** Host port of the first proxy. */
  port: number;
}

/**
 * `X-Forwarded-*` and `Forwarded` (RFC 7239) lines for one client and Host. Nothing a client sent goes in but the Host,
 * which has been checked to hold no quote and no control character.
 */
export function forwardingFields(facts: ForwardingFacts, host: string): string {
  const { clientAddress, scheme, port } = facts;
  const node = clientAddress.includes(":") ? `"[${clientAddress}]"` : clientAddress;
  return `X-Forwarded-For: ${clientAddress}\r\nX-Forwarded-Host: ${host}\r\nX-Forwarded-Port: ${port}\r\n` +
    `X-Forwarded-Proto: ${scheme}\r\nForwarded: for=${node};host="${host}";proto=${scheme}\r\n`;
}

/** Writes the head to send upstream into `out`, which is large enough; returns its length. */
export function rewriteRequest(
  out: Uint8Array,
  buffer: Uint8Array,
  head: RequestHead,
  options: { forwarding: Uint8Array; upgrade: boolean },
): number {
  let at = putBytes(out, 0, buffer, head.methodStart, head.methodEnd);
  out[at++] = 32;
  if (head.targetStart === head.targetEnd || buffer[head.targetStart] === 63) {
    // An absolute form without a path. OPTIONS means the server as a whole (RFC 9112 §3.2.4).
    const isOptions = head.targetStart === head.targetEnd &&
      latin1(buffer, head.methodStart, head.methodEnd) === "OPTIONS";
    out[at++] = isOptions ? 42 : 47;
  }
  at = putBytes(out, at, buffer, head.targetStart, head.targetEnd);
  at = putText(out, at, " HTTP/1.1\r\n");
  if (head.isAbsoluteForm) {
    at = putText(out, at, "Host: ");
    at = putBytes(out, at, buffer, head.hostStart, head.hostEnd);
    at = putText(out, at, "\r\n");
  }
  let runStart = 0, runEnd = 0;
  for (let i = 0; i < head.count; i++) {
    if (!keepsRequestField(head, i)) continue;
    if (runEnd !== head.nameStart(i)) {
      at = putBytes(out, at, buffer, runStart, runEnd);
      runStart = head.nameStart(i);
    }
    runEnd = lineEnd(buffer, head.valueEnd(i));
  }
  at = putBytes(out, at, buffer, runStart, runEnd);
  head.forwardingAt = at;
  out.set(options.forwarding, at);
  at += options.forwarding.length;
  const te = head.acceptsTrailers;
  if (te) at = putText(out, at, "TE: trailers\r\n");
  if (options.upgrade) at = putText(out, at, te ? "Connection: Upgrade, TE\r\n" : "Connection: Upgrade\r\n");
  else if (te) at = putText(out, at, "Connection: TE\r\n");
  return putText(out, at, "\r\n");

  function keepsRequestField(head: RequestHead, i: number): boolean {
    switch (head.kind(i)) {
      case Field.Other:
      case Field.ContentLength:
      case Field.TransferEncoding:
        return true;
      case Field.Host:
        return !head.isAbsoluteForm;
      case Field.Expect:
        return head.minor === 1;
      case Field.Upgrade:
        return options.upgrade;
      default:
        return false;
    }
  }
}

/** Writes the head to send to the client into `out`, which is large enough; returns its length. */
export function rewriteResponse(
  out: Uint8Array,
  buffer: Uint8Array,
  head: ResponseHead,
  options: { framing: "keep" | "none" | "chunk" | "close"; connection: "" | "close" | "Upgrade" },
): number {
  let at = putText(out, 0, "HTTP/1.1 ");
  at = putText(out, at, String(head.status));
  out[at++] = 32;
  at = putBytes(out, at, buffer, head.reasonStart, head.reasonEnd);
  at = putText(out, at, "\r\n");
  let runStart = 0, runEnd = 0;
  for (let i = 0; i < head.count; i++) {
    const kind = head.kind(i);
    const isFraming = kind === Field.ContentLength || kind === Field.TransferEncoding;
    const keep = kind === Field.Other || kind === Field.Forwarding || kind === Field.Expect ||
      kind === Field.Host ||
      (isFraming && options.framing === "keep") ||
      (kind === Field.Upgrade && options.connection === "Upgrade");
    if (!keep) continue;
    if (runEnd !== head.nameStart(i)) {
      at = putBytes(out, at, buffer, runStart, runEnd);
      runStart = head.nameStart(i);
    }
    runEnd = lineEnd(buffer, head.valueEnd(i));
  }
  at = putBytes(out, at, buffer, runStart, runEnd);
  if (options.framing === "chunk") at = putText(out, at, "Transfer-Encoding: chunked\r\n");
  if (options.connection !== "") at = putText(out, at, `Connection: ${options.connection}\r\n`);
  return putText(out, at, "\r\n");
}

/** Fields that must not come as trailers (RFC 9110 §6.5.1), besides those the parser marks. */
const FORBIDDEN_TRAILERS = new Set([
  "authorization",
  "set-cookie",
  "content-encoding",
  "content-type",
  "content-range",
  "trailer",
]);

/** The trailers that may be passed on, as names (as sent) and values. */
export function allowedTrailers(buffer: Uint8Array, trailers: Trailers): [name: string, value: string][] {
  const allowed: [string, string][] = [];
  for (let i = 0; i < trailers.count; i++) {
    const name = latin1(buffer, trailers.nameStart(i), trailers.nameEnd(i));
    if (trailers.kind(i) !== Field.Other || FORBIDDEN_TRAILERS.has(name.toLowerCase())) continue;
    allowed.push([name, latin1(buffer, trailers.valueStart(i), trailers.valueEnd(i))]);
  }
  return allowed;
}

/** Behind the CRLF that ends the line, past trailing white space. */
function lineEnd(buffer: Uint8Array, at: number): number {
  while (at < buffer.length && buffer[at] !== 10) at++;
  return at + 1;
}
