import { STATUS_CODES } from "node:http";
import { latin1, latin1Bytes } from "./http1/bytes.ts";
import type { HttpError } from "./http_error.ts";

/** Body and type of an answer the proxy gives by itself. */
export interface ErrorPage {
  contentType: string;
  body: string;
}

/** Renders a status and its reason as HTML for browsers, as JSON for everyone else. `reason` is our own text. */
export function errorPage(status: number, reason: string, accept: string): ErrorPage {
  const title = STATUS_CODES[status] ?? "Error";
  if (!/\btext\/html\b/i.test(accept)) {
    return { contentType: "application/json", body: JSON.stringify({ error: reason, status, title }) + "\n" };
  }
  const text = escapeHtml(`${status} ${title}`);
  return {
    contentType: "text/html; charset=utf-8",
    body: `<!doctype html><html lang="en"><title>${text}</title><h1>${text}</h1><p>${
      escapeHtml(reason)
    }</p></html>\n`,
  };
}

/** The same as a whole HTTP/1.1 response. */
export function errorAnswer(
  { status, message, hop }: HttpError,
  options: { accept: string; isHop: boolean; isHead: boolean; close: boolean },
): Uint8Array {
  const { contentType, body } = errorPage(status, message, options.accept);
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}\r\nContent-Type: ${contentType}\r\n` +
    `Content-Length: ${body.length}\r\nCache-Control: no-store\r\n` +
    (options.isHop && hop ? `Hypercore-Hop: ${hop}\r\n` : "") +
    (status === 503 ? "Retry-After: 1\r\n" : "") +
    (options.close ? "Connection: close\r\n\r\n" : "\r\n");
  return latin1Bytes(options.isHead ? head : head + body);
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

/** The Accept field of a request head that ends at `end`. */
export function acceptField(buffer: Uint8Array, end: number, start = 0): string {
  return /\r\naccept:[ \t]*([^\r]*)/i.exec(latin1(buffer, start, end))?.[1] ?? "";
}
