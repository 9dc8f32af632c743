import assert from "node:assert/strict";
import { HttpError } from "../http_error.ts";
import { findHeadEnd, HEAD_INCOMPLETE, RequestHead, ResponseHead } from "./head.ts";
import { latin1 } from "./bytes.ts";

const LIMITS = { maxRequestLineBytes: 64, maxHeaders: 8 };

function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

function parse(text: string): { head: RequestHead; buffer: Uint8Array } {
  const buffer = bytes(text);
  const end = findHeadEnd(buffer, 0, 0, buffer.length);
  assert.notEqual(end, HEAD_INCOMPLETE, "the head is complete");
  const head = new RequestHead();
  head.parse(buffer, 0, end, LIMITS);
  return { head, buffer };
}

const REFUSED: [what: string, head: string, status: number][] = [
  ["a missing Host", "GET / HTTP/1.1\r\n\r\n", 400],
  ["two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400],
  [
    "both lengths",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    400,
  ],
  [
    "both lengths, other order",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    400,
  ],
  [
    "two Content-Lengths",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
    400,
  ],
  ["a list of Content-Lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n", 400],
  ["a signed Content-Length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n", 400],
  ["a hexadecimal Content-Length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n", 400],
  ["an empty Content-Length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400],
  [
    "a huge Content-Length",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    400,
  ],
  [
    "two Transfer-Encodings",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    400,
  ],
  ["an unknown Transfer-Encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501],
  [
    "chunked that is not last",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    501,
  ],
  [
    "chunked with a vertical tab",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    400,
  ],
  ["Transfer-Encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400],
  ["white space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400],
  ["white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400],
  ["a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400],
  ["a field without a name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400],
  ["a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n", 400],
  ["a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400],
  ["a bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400],
  ["a bare LF", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400],
  ["bare LFs only", "GET / HTTP/1.1\nHost: a\n\n", 400],
  ["two spaces in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["no version", "GET /\r\nHost: a\r\n\r\n", 400],
  ["a version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400],
  ["HTTP/2 in words", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505],
  ["a method that is no token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405],
  ["a relative target", "GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a star with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a target of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["an unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417],
  ["a long request line", `GET /${"a".repeat(80)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414],
  ["too many fields", `GET / HTTP/1.1\r\nHost: a\r\n${"X: 1\r\n".repeat(8)}\r\n`, 431],
];

for (const [what, text, status] of REFUSED) {
  Deno.test(`the request parser refuses ${what} with ${status}`, () => {
    assert.throws(() => parse(text), (error) => error instanceof HttpError && error.status === status);
  });
}

Deno.test("the request parser reads an ordinary request", () => {
  const { head, buffer } = parse(
    "POST /p?q HTTP/1.1\r\nhOsT:  a.b:80 \r\nContent-Length: 12\r\nX-A: \xff\r\n\r\n",
  );
  assert.equal(latin1(buffer, head.hostStart, head.hostEnd), "a.b:80");
  assert.equal(head.contentLength, 12);
  assert.equal(head.hasBody, true);
  assert.equal(head.isSafe, false);
  assert.equal(head.count, 3);
});

Deno.test("the request parser takes the authority of an absolute target over Host", () => {
  const { head, buffer } = parse("GET http://x.y/z HTTP/1.1\r\nHost: other\r\n\r\n");
  assert.equal(latin1(buffer, head.hostStart, head.hostEnd), "x.y");
  assert.equal(latin1(buffer, head.targetStart, head.targetEnd), "/z");
});

Deno.test("the request parser wants both Upgrade and its name in Connection", () => {
  assert.equal(parse("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n").head.upgrade, false);
  assert.equal(
    parse("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: a, UPGRADE\r\n\r\n").head.upgrade,
    true,
  );
});

Deno.test("a head that arrives byte by byte is found once", () => {
  const buffer = bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
  for (let end = 0; end < 27; end++) {
    assert.equal(findHeadEnd(buffer, 0, Math.max(0, end - 1), end), HEAD_INCOMPLETE);
  }
  assert.equal(findHeadEnd(buffer, 0, 26, buffer.length), 27);
});

Deno.test("whatever bytes come, the parsers throw nothing but the typed error", () => {
  let seed = 0x2545f491;
  const random = (below: number) => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return (seed >>> 0) % below;
  };
  const pieces = [
    "GET",
    " ",
    "/",
    "HTTP/1.1",
    "\r\n",
    "\r",
    "\n",
    ":",
    "Host",
    "Content-Length",
    "chunked",
    "\0",
    "\t",
    "Transfer-Encoding",
    "Connection",
    "close",
    ",",
    "http://",
    "9",
    "\xff",
    "Expect",
    "100-continue",
    "Upgrade",
    "200",
  ];
  const request = new RequestHead(), response = new ResponseHead();
  for (let round = 0; round < 20_000; round++) {
    let text = round % 2 ? "GET / HTTP/1.1\r\nHost: a\r\n" : round % 3 ? "" : "HTTP/1.1 200 OK\r\n";
    for (let n = random(12); n > 0; n--) text += pieces[random(pieces.length)];
    const buffer = bytes(text + "\r\n\r\n");
    for (
      const parser of [
        () => findHeadEnd(buffer, 0, 0, buffer.length),
        () => request.parse(buffer, 0, buffer.length, LIMITS),
        () => response.parse(buffer, 0, buffer.length, 8),
      ]
    ) {
      try {
        parser();
      } catch (error) {
        assert.ok(error instanceof HttpError, `${JSON.stringify(text)}: ${error}`);
      }
    }
  }
});
