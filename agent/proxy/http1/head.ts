import { COLON, CR, equalsIgnoreCase, FIELD_VALUE, LF, SPACE, TAB, TARGET, TOKEN } from "./bytes.ts";
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
} as const;

/** Limits of one head; a part of {@linkcode ProxyLimits}. */
export interface HeadLimits {
  maxRequestLineBytes: number;
  maxHeaders: number;
}

const UNKNOWN = -1;
/** Content-Length digits that always fit a safe integer. */
const MAX_LENGTH_DIGITS = 15;
const WORDS_PER_FIELD = 5;

/**
 * The fields of one parsed head, as offsets into the buffer it was parsed from. An instance is used again for every
 * message of a connection, so that parsing allocates nothing.
 */
class Fields {
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

/** A request head (RFC 9112 §3, §5). Offsets point into the buffer given to {@linkcode RequestHead.parse}. */
export class RequestHead extends Fields {
  methodStart = 0;
  methodEnd = 0;
  targetStart = 0;
  targetEnd = 0;
  isHead = false;
  /** GET, HEAD or OPTIONS: no effect is repeated when it is sent once more (RFC 9110 §9.2.1). */
  isSafe = false;
  /** `Expect: 100-continue`. */
  expectsContinue = false;
  /** TE lists `trailers`. */
  acceptsTrailers = false;
  /** Where the authority stands: the Host field, or that of an absolute-form target, which wins (RFC 9112 §3.2.2). */
  hostStart = 0;
  hostEnd = 0;
  isAbsoluteForm = false;
  #hosts = 0;

  get hasBody(): boolean {
    return this.chunked || this.contentLength > 0;
  }

  /**
   * Parses `buffer[start, end)`, which ends with the empty line. Strict on purpose: what two parsers could read in two
   * ways is refused. Throws only {@linkcode HttpError}: 400, 405, 414, 417, 431, 501, 505.
   */
  parse(buffer: Uint8Array, start: number, end: number, limits: HeadLimits): void {
    this.resetFields();
    this.#hosts = 0;
    this.isHead =
      this.isSafe =
      this.expectsContinue =
      this.acceptsTrailers =
      this.isAbsoluteForm =
        false;
    const fields = this.#parseLine(buffer, start, limits.maxRequestLineBytes);
    this.parseFields(buffer, fields, end, limits.maxHeaders);
    if (this.chunked && this.contentLength !== UNKNOWN) {
      throw new HttpError(400, "both Content-Length and Transfer-Encoding");
    }
    if (this.chunked && this.minor === 0) throw new HttpError(400, "Transfer-Encoding in HTTP/1.0");
    if (this.#hosts === 0) throw new HttpError(400, "no Host field");
    this.#resolveTarget(buffer);
  }

  protected override special(buffer: Uint8Array, kind: number, start: number, end: number): void {
    switch (kind) {
      case Field.Host:
        if (++this.#hosts > 1) throw new HttpError(400, "more than one Host field");
        this.hostStart = start;
        this.hostEnd = end;
        break;
      case Field.Expect:
        if (!equalsIgnoreCase(buffer, start, end, "100-continue")) {
          throw new HttpError(417, "unknown expectation");
        }
        this.expectsContinue = true;
        break;
      case Field.Te:
        eachListItem(buffer, start, end, (itemStart, itemEnd) => {
          if (equalsIgnoreCase(buffer, itemStart, itemEnd, "trailers")) this.acceptsTrailers = true;
        });
        break;
      default:
        super.special(buffer, kind, start, end);
    }
  }

  #parseLine(buffer: Uint8Array, at: number, maxBytes: number): number {
    const start = at;
    this.methodStart = at;
    while (TOKEN[buffer[at]] === 1) at++;
    this.methodEnd = at;
    if (at === start || buffer[at] !== SPACE) throw new HttpError(400, "malformed request line");
    this.targetStart = ++at;
    while (TARGET[buffer[at]] === 1) at++;
    this.targetEnd = at;
    if (at - start > maxBytes) throw new HttpError(414, `the request line is longer than ${maxBytes} bytes`);
    if (at === this.targetStart || buffer[at] !== SPACE) throw new HttpError(400, "malformed request target");
    at++;
    // "HTTP/1.x" CR LF
    const isHttp = buffer[at] === 72 && buffer[at + 1] === 84 && buffer[at + 2] === 84 &&
      buffer[at + 3] === 80 &&
      buffer[at + 4] === 47 && buffer[at + 6] === 46 && buffer[at + 8] === CR && buffer[at + 9] === LF;
    if (!isHttp) throw new HttpError(400, "malformed request line");
    const major = buffer[at + 5], minor = buffer[at + 7];
    if (major !== 49 || minor < 48 || minor > 57) {
      throw new HttpError(505, "only HTTP/1.1 and HTTP/2 are spoken here");
    }
    this.minor = minor === 48 ? 0 : 1;
    this.#classifyMethod(buffer);
    return at + 10;
  }

  #classifyMethod(buffer: Uint8Array): void {
    const start = this.methodStart, first = buffer[start];
    switch (this.methodEnd - start) {
      case 3:
        this.isSafe = first === 71 && buffer[start + 1] === 69 && buffer[start + 2] === 84;
        break;
      case 4:
        this.isHead = first === 72 && buffer[start + 1] === 69 && buffer[start + 2] === 65 &&
          buffer[start + 3] === 68;
        this.isSafe = this.isHead;
        break;
      case 7:
        if (first === 67 && equalsIgnoreCase(buffer, start, this.methodEnd, "connect")) {
          throw new HttpError(405, "this is not a forward proxy");
        }
        this.isSafe = first === 79 && equalsIgnoreCase(buffer, start, this.methodEnd, "options");
        break;
    }
  }

  /** Origin form and `*` stay; absolute form is split; everything else is malformed here (RFC 9112 §3.2). */
  #resolveTarget(buffer: Uint8Array): void {
    const start = this.targetStart;
    if (buffer[start] === 47) return;
    if (buffer[start] === 42 && this.targetEnd === start + 1) {
      if (equalsIgnoreCase(buffer, this.methodStart, this.methodEnd, "options")) return;
      throw new HttpError(400, "malformed request target");
    }
    let at = start;
    if (equalsIgnoreCase(buffer, start, Math.min(start + 7, this.targetEnd), "http://")) at += 7;
    else if (equalsIgnoreCase(buffer, start, Math.min(start + 8, this.targetEnd), "https://")) at += 8;
    else throw new HttpError(400, "malformed request target");
    this.hostStart = at;
    while (at < this.targetEnd && buffer[at] !== 47 && buffer[at] !== 63 && buffer[at] !== 35) at++;
    this.hostEnd = at;
    this.targetStart = at;
    this.isAbsoluteForm = true;
  }
}

/** A response head (RFC 9112 §4, §5). */
export class ResponseHead extends Fields {
  status = 0;
  reasonStart = 0;
  reasonEnd = 0;

  /** Parses `buffer[start, end)`. Throws {@linkcode HttpError} with status 502. */
  parse(buffer: Uint8Array, start: number, end: number, maxHeaders: number): void {
    this.resetFields();
    try {
      const fields = this.#parseLine(buffer, start);
      this.parseFields(buffer, fields, end, maxHeaders);
      if (this.chunked && this.contentLength !== UNKNOWN) {
        throw new HttpError(502, "both Content-Length and Transfer-Encoding");
      }
    } catch (error) {
      const reason = error instanceof HttpError ? error.message : String(error);
      throw new HttpError(502, `the workload's response is malformed: ${reason}`, { cause: error });
    }
  }

  #parseLine(buffer: Uint8Array, at: number): number {
    const isHttp = buffer[at] === 72 && buffer[at + 1] === 84 && buffer[at + 2] === 84 &&
      buffer[at + 3] === 80 &&
      buffer[at + 4] === 47 && buffer[at + 5] === 49 && buffer[at + 6] === 46 && buffer[at + 8] === SPACE;
    const a = buffer[at + 9] - 48, b = buffer[at + 10] - 48, c = buffer[at + 11] - 48;
    const isStatus = a >= 1 && a <= 9 && b >= 0 && b <= 9 && c >= 0 && c <= 9;
    if (!isHttp || !isStatus) throw new HttpError(502, "malformed status line");
    this.minor = buffer[at + 7] === 48 ? 0 : 1;
    this.status = a * 100 + b * 10 + c;
    at += 12;
    if (buffer[at] === SPACE) at++;
    else if (buffer[at] !== CR) throw new HttpError(502, "malformed status line");
    this.reasonStart = at;
    while (FIELD_VALUE[buffer[at]] === 1) at++;
    this.reasonEnd = at;
    if (buffer[at] !== CR || buffer[at + 1] !== LF) throw new HttpError(502, "malformed status line");
    return at + 2;
  }
}

/** Header lines after a chunked body (RFC 9112 §7.1.2). */
export class Trailers extends Fields {
  /** Parses `buffer[start, end)`, which ends with the empty line. Throws {@linkcode HttpError}: 400, 431. */
  parse(buffer: Uint8Array, start: number, end: number, maxHeaders: number): void {
    this.resetFields();
    this.parseFields(buffer, start, end, maxHeaders);
  }

  /** Framing, routing and hop-by-hop fields have no business in trailers (RFC 9110 §6.5.1); they are dropped. */
  protected override special(): void {}
}

/** Not found yet; read more. */
export const HEAD_INCOMPLETE = -1;

/**
 * Looks for the empty line that ends a head, from `from` on; `start` is where the head begins. Returns the offset behind
 * it or {@linkcode HEAD_INCOMPLETE}. A line feed without a carriage return throws (request smuggling).
 */
export function findHeadEnd(buffer: Uint8Array, start: number, from: number, end: number): number {
  let at = from;
  while (at < end) {
    if (buffer[at] !== LF) {
      at++;
      continue;
    }
    if (at === start || buffer[at - 1] !== CR) throw new HttpError(400, "line feed without carriage return");
    if (at - 3 >= start && buffer[at - 2] === LF) return at + 1;
    at++;
  }
  return HEAD_INCOMPLETE;
}

/** Calls back with each item of a comma-separated list, trimmed, empty ones left out. */
function eachListItem(
  buffer: Uint8Array,
  start: number,
  end: number,
  visit: (start: number, end: number) => void,
): void {
  let at = start;
  while (at < end) {
    while (at < end && (buffer[at] === 44 || buffer[at] === SPACE || buffer[at] === TAB)) at++;
    const itemStart = at;
    while (at < end && buffer[at] !== 44) at++;
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
