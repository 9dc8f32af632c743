import { COLON, COMMA, CR, equalsIgnoreCase, FIELD_VALUE, LF, SPACE, TAB, TOKEN } from "./bytes.ts";
import { HttpError } from "../http_error.ts";

/** What a header field means to the proxy. */
export const Field = {
  /** End to end: passed on as it came. */
  Other: 0,
  Host: 1,
  ContentLength: 2,
  TransferEncoding: 3,
  Connection: 4,
  Upgrade: 5,
  Te: 6,
  Expect: 7,
  /** Only for this connection (RFC 9110 §7.6.1): dropped. */
  HopByHop: 8,
  /** Says who the client is; only the proxy may: dropped from requests. */
  Forwarding: 9,
  /** Between proxies of members: dropped from everything else. */
  Hop: 10,
} as const;

/** The name of the field that goes with a request from one node's proxy to another's, in lower case. */
export const HOP_FIELD = "hypercore-hop";
/** No Content-Length. */
export const UNKNOWN = -1;
/** Content-Length digits that always fit a safe integer. */
const MAX_LENGTH_DIGITS = 15;
const WORDS_PER_FIELD = 5;

/**
 * The fields of one parsed head, as offsets into the buffer it was parsed from. An instance is used again for every
 * message of a connection, so that parsing allocates nothing.
 */
export class Fields {
  count = 0;
  /** The value of Content-Length, or -1. */
  contentLength = UNKNOWN;
  chunked = false;
  close = false;
  keepAlive = false;
  /** Connection names `upgrade` and an Upgrade field is present. */
  upgrade = false;
  /** Connection names a field that is not hop-by-hop by itself. */
  namesFields = false;
  /** Minor HTTP version: 0 or 1. */
  minor = 1;
  protected words: Int32Array<ArrayBuffer> = new Int32Array(32 * WORDS_PER_FIELD);
  protected sawTransferEncoding = false;
  #sawUpgrade = false;
  #connectionUpgrade = false;

  kind(i: number): number {
    return this.words[i * WORDS_PER_FIELD];
  }
  nameStart(i: number): number {
    return this.words[i * WORDS_PER_FIELD + 1];
  }
  nameEnd(i: number): number {
    return this.words[i * WORDS_PER_FIELD + 2];
  }
  valueStart(i: number): number {
    return this.words[i * WORDS_PER_FIELD + 3];
  }
  valueEnd(i: number): number {
    return this.words[i * WORDS_PER_FIELD + 4];
  }

  protected resetFields(): void {
    this.count = 0;
    this.contentLength = UNKNOWN;
    this.chunked =
      this.close =
      this.keepAlive =
      this.upgrade =
      this.namesFields =
        false;
    this.sawTransferEncoding = this.#sawUpgrade = this.#connectionUpgrade = false;
  }

  /** Parses field lines from `at` to the empty line that ends at `end`. */
  protected parseFields(buffer: Uint8Array, at: number, end: number, maxHeaders: number): void {
    const last = end - 2;
    while (at < last) {
      if (this.count === maxHeaders) throw new HttpError(431, `more than ${maxHeaders} header fields`);
      const nameStart = at;
      while (TOKEN[buffer[at]] === 1) at++;
      if (buffer[at] !== COLON || at === nameStart) throw new HttpError(400, "malformed header field name");
      const nameEnd = at++;
      while (buffer[at] === SPACE || buffer[at] === TAB) at++;
      const valueStart = at;
      while (FIELD_VALUE[buffer[at]] === 1) at++;
      if (buffer[at] !== CR || buffer[at + 1] !== LF) {
        throw new HttpError(400, "control character in a header field");
      }
      let valueEnd = at;
      while (valueEnd > valueStart && (buffer[valueEnd - 1] === SPACE || buffer[valueEnd - 1] === TAB)) {
        valueEnd--;
      }
      at += 2;
      const kind = classify(buffer, nameStart, nameEnd);
      if (kind !== Field.Other) this.special(buffer, kind, valueStart, valueEnd);
      let word = this.count * WORDS_PER_FIELD;
      if (word === this.words.length) this.#grow();
      const words = this.words;
      words[word] = kind;
      words[++word] = nameStart;
      words[++word] = nameEnd;
      words[++word] = valueStart;
      words[++word] = valueEnd;
      this.count++;
    }
    this.upgrade = this.#sawUpgrade && this.#connectionUpgrade;
    if (this.namesFields) this.#dropNamedFields(buffer);
  }

  protected special(buffer: Uint8Array, kind: number, start: number, end: number): void {
    switch (kind) {
      case Field.ContentLength: {
        if (this.contentLength !== UNKNOWN) throw new HttpError(400, "more than one Content-Length");
        this.contentLength = parseLength(buffer, start, end);
        break;
      }
      case Field.TransferEncoding:
        if (this.sawTransferEncoding) throw new HttpError(400, "more than one Transfer-Encoding");
        this.sawTransferEncoding = true;
        this.chunked = equalsIgnoreCase(buffer, start, end, "chunked");
        if (!this.chunked) throw new HttpError(501, "a transfer coding other than chunked");
        break;
      case Field.Upgrade:
        this.#sawUpgrade = end > start;
        break;
      case Field.Connection:
        eachListItem(buffer, start, end, (itemStart, itemEnd) => {
          if (equalsIgnoreCase(buffer, itemStart, itemEnd, "close")) this.close = true;
          else if (equalsIgnoreCase(buffer, itemStart, itemEnd, "keep-alive")) this.keepAlive = true;
          else if (equalsIgnoreCase(buffer, itemStart, itemEnd, "upgrade")) this.#connectionUpgrade = true;
          else this.namesFields = true;
        });
        break;
    }
  }

  /** Whether a field is of that name, which is lower-case. */
  has(buffer: Uint8Array, name: string): boolean {
    for (let i = 0; i < this.count; i++) {
      if (equalsIgnoreCase(buffer, this.nameStart(i), this.nameEnd(i), name)) return true;
    }
    return false;
  }

  /** Fields that Connection names are meant for this hop alone; those that frame or route a message stay. */
  #dropNamedFields(buffer: Uint8Array): void {
    const count = this.count;
    for (let c = 0; c < count; c++) {
      if (this.kind(c) !== Field.Connection) continue;
      eachListItem(buffer, this.valueStart(c), this.valueEnd(c), (start, end) => {
        for (let i = 0; i < count; i++) {
          if (this.kind(i) !== Field.Other || this.nameEnd(i) - this.nameStart(i) !== end - start) continue;
          if (sameIgnoreCase(buffer, this.nameStart(i), start, end - start)) {
            this.words[i * WORDS_PER_FIELD] = Field.HopByHop;
          }
        }
      });
    }
  }

  #grow(): void {
    const words = new Int32Array(this.words.length * 2);
    words.set(this.words);
    this.words = words;
  }
}

/** Calls back with each item of a comma-separated list, trimmed, empty ones left out. */
export function eachListItem(
  buffer: Uint8Array,
  start: number,
  end: number,
  visit: (start: number, end: number) => void,
): void {
  let at = start;
  while (at < end) {
    while (at < end && (buffer[at] === COMMA || buffer[at] === SPACE || buffer[at] === TAB)) at++;
    const itemStart = at;
    while (at < end && buffer[at] !== COMMA) at++;
    let itemEnd = at;
    while (itemEnd > itemStart && (buffer[itemEnd - 1] === SPACE || buffer[itemEnd - 1] === TAB)) itemEnd--;
    if (itemEnd > itemStart) visit(itemStart, itemEnd);
  }
}

function parseLength(buffer: Uint8Array, start: number, end: number): number {
  if (start === end || end - start > MAX_LENGTH_DIGITS) throw new HttpError(400, "malformed Content-Length");
  let length = 0;
  for (let i = start; i < end; i++) {
    const digit = buffer[i] - 48;
    if (digit < 0 || digit > 9) throw new HttpError(400, "malformed Content-Length");
    length = length * 10 + digit;
  }
  return length;
}

function sameIgnoreCase(buffer: Uint8Array, a: number, b: number, length: number): boolean {
  for (let i = 0; i < length; i++) {
    if (lower(buffer[a + i]) !== lower(buffer[b + i])) return false;
  }
  return true;
}

function lower(code: number): number {
  return code >= 65 && code <= 90 ? code | 32 : code;
}

function classify(buffer: Uint8Array, start: number, end: number): number {
  const is = (word: string) => equalsIgnoreCase(buffer, start, end, word);
  switch (buffer[start] | 32) {
    case 99: // c
      if (end - start === 10) return is("connection") ? Field.Connection : Field.Other;
      return end - start === 14 && is("content-length") ? Field.ContentLength : Field.Other;
    case 101: // e
      return is("expect") ? Field.Expect : Field.Other;
    case 102: // f
      return is("forwarded") ? Field.Forwarding : Field.Other;
    case 104: // h
      if (is("http2-settings")) return Field.HopByHop;
      if (is(HOP_FIELD)) return Field.Hop;
      return is("host") ? Field.Host : Field.Other;
    case 107: // k
      return is("keep-alive") ? Field.HopByHop : Field.Other;
    case 112: // p
      if (end - start < 16) return Field.Other;
      return is("proxy-connection") || is("proxy-authenticate") || is("proxy-authorization")
        ? Field.HopByHop
        : Field.Other;
    case 116: // t
      if (end - start === 2) return is("te") ? Field.Te : Field.Other;
      return end - start === 17 && is("transfer-encoding") ? Field.TransferEncoding : Field.Other;
    case 117: // u
      return is("upgrade") ? Field.Upgrade : Field.Other;
    case 120: // x
      return isForwarding(buffer, start, end) ? Field.Forwarding : Field.Other;
    default:
      return Field.Other;
  }
}

/** `X-Forwarded-*` and `X-Real-IP`, also with underscores, which some applications read as hyphens. */
function isForwarding(buffer: Uint8Array, start: number, end: number): boolean {
  const matches = (word: string) => {
    for (let i = 0; i < word.length; i++) {
      const code = buffer[start + i] === 95 ? 45 : lower(buffer[start + i]);
      if (code !== word.charCodeAt(i)) return false;
    }
    return true;
  };
  if (end - start === 9) return matches("x-real-ip");
  return end - start >= 11 && matches("x-forwarded");
}
