import assert from "node:assert/strict";
import { HttpError } from "../http_error.ts";
import { ChunkScanner, findTrailerEnd } from "./chunked.ts";

function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

Deno.test("chunked content is the same however it is cut", () => {
  const buffer = bytes("4\r\nWiki\r\n6;a=b\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n");
  for (let step = 1; step <= buffer.length; step++) {
    const scanner = new ChunkScanner(100);
    let content = "", at = 0;
    for (let end = step; !scanner.done; end += step) {
      at = scanner.scan(buffer, at, Math.min(end, buffer.length), (from, to) => {
        content += new TextDecoder().decode(buffer.subarray(from, to));
      });
    }
    assert.equal(content, "Wikipedia in \r\n\r\nchunks.");
    assert.equal(at, buffer.length - 2);
    assert.equal(findTrailerEnd(buffer, at, buffer.length), buffer.length);
  }
});

for (
  const bad of [
    "\r\n",
    "g\r\n",
    "-1\r\n",
    "+1\r\n",
    "0x1\r\n",
    " 1\r\na\r\n",
    "1 \r\na\r\n",
    "1\na\r\n",
    "1\r\nab",
    "1\r\na\n",
    "1;\n\r\n",
    "1;\0\r\n",
    "1\rx",
    "fffffffffffff\r\n",
    `1;${"a".repeat(200)}\r\n`,
  ]
) {
  Deno.test(`the chunk scanner refuses ${JSON.stringify(bad.slice(0, 20))}`, () => {
    const buffer = bytes(bad);
    assert.throws(
      () => new ChunkScanner(100).scan(buffer, 0, buffer.length),
      (e) => e instanceof HttpError && e.status === 400,
    );
  });
}
