import assert from "node:assert/strict";
import { BufferPool } from "./buffers.ts";
import { ConnectionSink } from "./sink.ts";

/** Keeps what is written, piece by piece; each write takes at most `most` bytes. */
function recorder(most = Infinity) {
  const writes: string[] = [];
  const write = (bytes: Uint8Array) => {
    const taken = bytes.subarray(0, most);
    writes.push(String.fromCharCode(...taken));
    return Promise.resolve(taken.length);
  };
  return { writes, conn: { write } as unknown as Deno.Conn };
}

const HEAD = "HTTP/1.1 200 OK\r\n\r\n";

/** A sink that holds HEAD back, and a body too long to copy behind `spare` bytes of something old. */
function headAndBody(conn: Deno.Conn, spare: number) {
  const sink = new ConnectionSink(conn, new BufferPool(), 512);
  sink.filled = new TextEncoder().encodeInto(HEAD, sink.buffer).written;
  const buffer = new Uint8Array(spare + 20_000).fill(120);
  buffer.fill(45, 0, spare);
  return { sink, buffer, body: buffer.subarray(spare) };
}

Deno.test("what is held back goes out with a long piece when there is room in front of it", async () => {
  for (const spare of [HEAD.length, HEAD.length + 100]) {
    const { writes, conn } = recorder();
    const { sink, buffer, body } = headAndBody(conn, spare);
    await sink.write(body, spare);
    await sink.flush();
    assert.deepEqual(writes, [HEAD + "x".repeat(20_000)]);
    assert.ok(buffer.subarray(0, spare - HEAD.length).every((byte) => byte === 45), "no more is overwritten");
  }
});

Deno.test("without that room it goes out first, and nothing is overwritten", async () => {
  const spare = HEAD.length - 1;
  const { writes, conn } = recorder();
  const { sink, buffer, body } = headAndBody(conn, spare);
  await sink.write(body, spare);
  assert.deepEqual(writes, [HEAD, "x".repeat(20_000)]);
  assert.ok(buffer.subarray(0, spare).every((byte) => byte === 45));
});

Deno.test("short writes are continued until all is out", async () => {
  const { writes, conn } = recorder(7_000);
  const { sink, body } = headAndBody(conn, HEAD.length);
  await sink.write(body, HEAD.length);
  assert.equal(writes.join(""), HEAD + "x".repeat(20_000));
  assert.equal(writes.length, 3);
});
