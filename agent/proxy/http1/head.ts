import { CR, equalsIgnoreCase, FIELD_VALUE, LF, SPACE, TARGET, TOKEN } from "./bytes.ts";
import { eachListItem, Field, Fields, UNKNOWN } from "./fields.ts";
import { HttpError } from "../http_error.ts";

export { Field } from "./fields.ts";

/** Limits of one head; a part of {@linkcode ProxyLimits}. */
export interface HeadLimits {
  maxRequestLineBytes: number;
  maxHeaders: number;
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
  /** Where the value of the hop field stands; empty when there is none. */
  hopStart = 0;
  hopEnd = 0;
  /** Where `rewriteRequest` has put the forwarding fields in what it wrote. */
  forwardingAt = 0;
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
    this.#hosts = this.hopStart = this.hopEnd = 0;
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
      case Field.Hop:
        if (this.hopEnd > this.hopStart) throw new HttpError(400, "more than one hop field");
        this.hopStart = start;
        this.hopEnd = end;
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
  /** Where the value of the hop field stands; empty when there is none. */
  hopStart = 0;
  hopEnd = 0;
  reasonStart = 0;
  reasonEnd = 0;

  /** Parses `buffer[start, end)`. Throws {@linkcode HttpError} with status 502. */
  parse(buffer: Uint8Array, start: number, end: number, maxHeaders: number): void {
    this.resetFields();
    this.hopStart = this.hopEnd = 0;
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

  protected override special(buffer: Uint8Array, kind: number, start: number, end: number): void {
    if (kind !== Field.Hop) return super.special(buffer, kind, start, end);
    this.hopStart = start;
    this.hopEnd = end;
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
 * it or {@linkcode HEAD_INCOMPLETE}. While there is none, a line feed without a carriage return throws (request smuggling);
 * in a whole head the parser finds it.
 */
export function findHeadEnd(buffer: Uint8Array, start: number, from: number, end: number): number {
  let at = Math.max(from, start + 3);
  while (at < end) {
    const code = buffer[at];
    // What is neither CR nor LF is no part of CR LF CR LF: the next one that could be ends four bytes on.
    if (code !== LF && code !== CR) at += 4;
    else if (code === LF && buffer[at - 1] === CR && buffer[at - 2] === LF && buffer[at - 3] === CR) {
      return at + 1;
    } else at++;
  }
  for (at = from; at < end; at++) {
    if (buffer[at] === LF && (at === start || buffer[at - 1] !== CR)) {
      throw new HttpError(400, "line feed without carriage return");
    }
  }
  return HEAD_INCOMPLETE;
}
