import assert from "node:assert/strict";
import { BufferPool } from "./buffers.ts";
import { HttpError } from "./http_error.ts";
import { Source } from "./source.ts";

/** A connection that brings `text`, at most `step` bytes a read, then ends. */
function sourceOf(text: string, step = Infinity): Source {
  const bytes = new TextEncoder().encode(text);
  let at = 0;
  const read = (into: Uint8Array) => {
    const piece = bytes.subarray(at, at + Math.min(step, into.length));
    into.set(piece);
    at += piece.length;
    return Promise.resolve(piece.length === 0 ? null : piece.length);
  };
  return new Source({ read } as unknown as Deno.Conn, new BufferPool());
}

Deno.test("a read into a full buffer adds nothing, and reading goes on once there is room", async () => {
  const source = sourceOf("x".repeat(100_000));
  while (source.buffered < source.buffer.length) await source.fill();
  assert.equal(await source.fill(), 0);
  assert.equal(source.isReading, false);
  assert.equal(source.ended, false);
  source.start = 1000;
  assert.equal(await source.fill(), 1000);
});

Deno.test("reads asked for while one is in flight are that one", async () => {
  const source = sourceOf("abc");
  const first = source.fill();
  assert.equal(source.fill(), first);
  assert.equal(await first, 3);
  assert.equal(source.isReading, false);
});

Deno.test("a head is found however it is cut, at once when it is there already", async () => {
  const head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  for (let step = 1; step <= head.length; step++) {
    let firstBytes = 0;
    const source = sourceOf(head + head, step);
    assert.equal(await source.head(1000, () => firstBytes++), head.length);
    assert.equal(firstBytes, 1);
  }
  const source = sourceOf(head + head);
  await source.fill();
  assert.equal(source.head(1000), head.length);
  source.start = head.length;
  assert.equal(source.head(1000), 2 * head.length);
});

Deno.test("a head that is too long, that ends within, or that never begins is told apart", async () => {
  const isHttpError = (status: number) => (error: unknown) =>
    error instanceof HttpError && error.status === status;
  await assert.rejects(async () => await sourceOf("x".repeat(5000), 100).head(1000), isHttpError(431));
  await assert.rejects(async () => await sourceOf("GET / HTTP/1.1\r\n").head(1000), isHttpError(400));
  assert.equal(await sourceOf("").head(1000), -1);
});

/** A TLS connection whose reads bring these results; a promise among them is one that has to be waited for. */
function secureSourceOf(results: (number | Error | Promise<number | null>)[]): Source {
  const read = () => {
    const result = results.shift() ?? null;
    return result instanceof Error ? Promise.reject(result) : Promise.resolve(result);
  };
  const source = new Source({ read, handshake() {} } as unknown as Deno.Conn, new BufferPool());
  source.resize(256 * 1024);
  return source;
}

Deno.test("records that are there already are read together, and what is not there is not waited for", async () => {
  const later = Promise.withResolvers<number>();
  const source = secureSourceOf([16384, 16384, 100, later.promise]);
  assert.equal(await source.fill(), 16384);
  await source.fillReady();
  assert.equal(source.buffered, 16384 * 2 + 100);
  assert.equal(source.isReading, true);
  source.start = source.end;
  later.resolve(7);
  assert.equal(await source.fill(), 7);
  assert.equal(source.buffered, 7);
});

Deno.test("reading together stops at the end, and where a record might not fit", async () => {
  const ended = secureSourceOf([5]);
  await ended.fill();
  await ended.fillReady();
  assert.equal(ended.ended, true);
  const full = secureSourceOf(new Array(20).fill(16384));
  await full.fill();
  await full.fillReady();
  assert.equal(full.buffered, 256 * 1024);
  assert.equal(full.isReading, false);
});

Deno.test("a read that failed ahead of need fails the next fill, and stays failed", async () => {
  const source = secureSourceOf([5, new Error("reset")]);
  await source.fill();
  await source.fillReady();
  assert.equal(source.buffered, 5);
  await assert.rejects(source.fill(), /reset/);
  await assert.rejects(source.fill(), /reset/);
});

Deno.test("a plain connection's reads are as long as they can be, so that none is added", async () => {
  const source = sourceOf("x".repeat(100), 10);
  await source.fill();
  assert.equal(source.fillReady(), undefined);
  assert.equal(source.buffered, 10);
});
