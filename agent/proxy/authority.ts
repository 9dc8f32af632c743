import { AUTHORITY, COLON } from "./http1/bytes.ts";
import { HttpError } from "./http_error.ts";

/** A Host field or `:authority`, checked. */
export interface Authority {
  /** As sent, without the port, in lower case. */
  hostname: string;
  /** First label of the hostname; the whole of an IP literal. */
  label: string;
}

const MAX_AUTHORITY_BYTES = 255 + ":65535".length;

/**
 * Parses `host[:port]` (RFC 9110 §7.2, RFC 3986 §3.2). User information, empty hosts, bad ports and characters no host can
 * have throw {@linkcode HttpError} 400.
 */
export function parseAuthority(text: string): Authority {
  if (text.length === 0) throw new HttpError(400, "empty Host");
  if (text.length > MAX_AUTHORITY_BYTES) throw new HttpError(400, "Host too long");
  for (let i = 0; i < text.length; i++) {
    if (AUTHORITY[text.charCodeAt(i)] !== 1) throw new HttpError(400, "malformed Host");
  }
  const isLiteral = text.charCodeAt(0) === 91;
  const hostEnd = isLiteral ? text.indexOf("]") + 1 : indexOrEnd(text, ":");
  if (hostEnd === 0) throw new HttpError(400, "malformed Host");
  if (hostEnd < text.length && !isPort(text, hostEnd)) throw new HttpError(400, "malformed port in Host");
  const hostname = text.slice(0, hostEnd).toLowerCase();
  if (isLiteral ? !/^\[[0-9a-f:.]+\]$/.test(hostname) : /[[\]]/.test(hostname)) {
    throw new HttpError(400, "malformed Host");
  }
  return { hostname, label: isLiteral ? hostname : hostname.slice(0, indexOrEnd(hostname, ".")) };
}

function isPort(text: string, at: number): boolean {
  if (text.charCodeAt(at) !== COLON || text.length - at > 6) return false;
  const digits = text.slice(at + 1);
  return /^\d*$/.test(digits) && Number(digits) <= 65535;
}

function indexOrEnd(text: string, what: string): number {
  const at = text.indexOf(what);
  return at < 0 ? text.length : at;
}
