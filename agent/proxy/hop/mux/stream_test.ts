import assert from "node:assert/strict";
import { seededRandom } from "../../../../gossip/random.ts";
import { SMALL_BUFFER_BYTES } from "../../buffers.ts";
import { Flag, FrameType, INITIAL_WINDOW_BYTES } from "./frames.ts";
import { type MuxStream, SessionLost } from "./stream.ts";
import { settled } from "./test_pipe.ts";
import { ascii, isPending, readText, Worker } from "./test_session.ts";

const { BadResource, BrokenPipe, Busy, ConnectionReset } = Deno.errors;

Deno.test("a stream that one side ends carries what the other still has to say, and is over when both have ended it", async () => {
  const worker = new Worker();
  const { dialler, server, open } = worker.pair();
  const [stream, other] = await open("a question");
  await stream.closeWrite();
  assert.equal(await readText(other), "");
  await other.write(ascii("an answer"));
  assert.deepEqual([dialler.streams, server.streams], [1, 1]);
  await other.closeWrite();
  assert.equal(await readText(stream), "an answer");
  assert.equal(await stream.read(new Uint8Array(1)), null);
  await settled();
  assert.deepEqual([dialler.streams, server.streams], [0, 0]);
  await assert.rejects(stream.write(ascii("x")), BrokenPipe);
  stream.close();
  await assert.rejects(stream.read(new Uint8Array(1)), BadResource);
  await worker.end();
});

Deno.test("one read and one write may be in flight at a time", async () => {
  const worker = new Worker();
  const [stream, other] = await worker.pair().open();
  const read = stream.read(new Uint8Array(9));
  await assert.rejects(stream.read(new Uint8Array(9)), Busy);
  const write = stream.write(new Uint8Array(INITIAL_WINDOW_BYTES));
  await assert.rejects(stream.write(ascii("x")), Busy);
  await other.write(ascii("x"));
  assert.equal(await read, 1);
  assert.equal((await readText(other, INITIAL_WINDOW_BYTES)).length, INITIAL_WINDOW_BYTES);
  assert.equal(await write, INITIAL_WINDOW_BYTES);
  assert.equal(await stream.write(ascii("")), 0);
  await worker.end();
});

Deno.test("a write waits until the reader has made room, and takes all of it; an end comes behind it", async () => {
  const worker = new Worker();
  const { dialler, server, open } = worker.pair();
  const [stream, other] = await open();
  const bytes = 3 * INITIAL_WINDOW_BYTES + 5;
  const write = stream.write(ascii("x".repeat(bytes)));
  await other.closeWrite();
  await stream.closeWrite();
  assert.equal(await isPending(write), true);
  assert.equal(await stream.read(new Uint8Array(1)), null);
  await assert.rejects(stream.write(ascii("x")), BrokenPipe);
  assert.equal(dialler.streams, 1);
  assert.equal(await readText(other), "x".repeat(bytes));
  assert.equal(await write, bytes);
  await settled();
  assert.deepEqual([dialler.streams, server.streams], [0, 0]);
  await worker.end();
});

Deno.test("what was written before the end arrives whole; what comes after it is dropped, and its sender told", async () => {
  const worker = new Worker();
  const { server, open } = worker.pair();
  const [stream, other] = await open();
  await other.write(ascii("the last words"));
  other.end();
  assert.equal(server.streams, 0);
  await assert.rejects(other.read(new Uint8Array(1)), BadResource);
  await assert.rejects(other.write(ascii("x")), BadResource);
  await settled();
  await stream.write(ascii("too late"));
  await settled();
  await assert.rejects(stream.write(ascii("x")), ConnectionReset);
  assert.equal(await readText(stream), "the last words");
  stream.close();
  await worker.end();
});

Deno.test("one that is ended within a write is broken off, so that nobody takes half for the whole", async () => {
  const worker = new Worker();
  const [stream, other] = await worker.pair().open();
  const write = stream.write(new Uint8Array(INITIAL_WINDOW_BYTES + 1));
  stream.end();
  await assert.rejects(write, BadResource);
  await settled();
  await assert.rejects(readText(other), ConnectionReset);
  await worker.end();
});

Deno.test("a stream that one side closes fails what is in flight on both, each with its own reason", async () => {
  const worker = new Worker();
  const { dialler, server, open } = worker.pair();
  const [stream, other] = await open();
  const reasons = [stream, other].map(async (each) => {
    const inFlight = [each.read(new Uint8Array(1)), each.write(new Uint8Array(2 * INITIAL_WINDOW_BYTES))];
    const results = await Promise.allSettled(inFlight);
    return results.map((result) => result.status === "rejected" && result.reason.constructor);
  });
  stream.close();
  assert.deepEqual(await Promise.all(reasons), [[BadResource, BadResource], [false, ConnectionReset]]);
  assert.deepEqual([dialler.streams, server.streams], [0, 0]);
  stream.close();
  await stream.closeWrite();
  stream.end();
  other.close();
  await worker.end();
});

Deno.test("a write that waits for a connection which takes nothing ends with its stream", async () => {
  const worker = new Worker();
  const { conn, dialler, server, open } = worker.pair({ capacityBytes: 1024 });
  const [stream] = await open();
  const [busy] = await open();
  conn.isStalled = true;
  const filling = busy.write(new Uint8Array(INITIAL_WINDOW_BYTES / 2));
  await settled();
  const write = stream.write(new Uint8Array(INITIAL_WINDOW_BYTES / 2));
  const isOver = assert.rejects(write, BadResource);
  assert.equal(await isPending(write), true);
  stream.close();
  await isOver;
  const isLost = assert.rejects(busy.write(new Uint8Array(INITIAL_WINDOW_BYTES / 4)), SessionLost);
  await filling;
  dialler.fail(new Error("lost"));
  await isLost;
  server.fail(new Error("lost"));
  await worker.end();
});

Deno.test("what came before a reset can still be read; an end that came before it stays an end", async () => {
  const worker = new Worker();
  const { open } = worker.pair();
  for (const isEnded of [false, true]) {
    const [stream, other] = await open();
    await stream.write(ascii("so far"));
    if (isEnded) await stream.closeWrite();
    stream.close();
    await settled();
    if (isEnded) assert.equal(await readText(other), "so far");
    else await assert.rejects(readText(other), ConnectionReset);
    await assert.rejects(other.write(ascii("x")), ConnectionReset);
    other.close();
    await assert.rejects(other.read(new Uint8Array(1)), ConnectionReset);
  }
  await worker.end();
});

Deno.test("what has come and is not read stays with its stream when both sides have ended it, and goes with a close", async () => {
  const worker = new Worker();
  const { server, open } = worker.pair();
  const small = () => [...worker.pool.taken].filter(({ length }) => length === SMALL_BUFFER_BYTES).length;
  const before = small();
  for (const isReset of [false, true]) {
    const [stream, other] = await open();
    await stream.write(new Uint8Array(3 * SMALL_BUFFER_BYTES));
    if (isReset) {
      stream.close();
    } else {
      await stream.closeWrite();
      await other.closeWrite();
    }
    await settled();
    assert.equal(small(), before + 3);
    assert.equal(server.streams, isReset ? 0 : 1);
    other.close();
    assert.deepEqual([small(), server.streams], [before, 0]);
  }
  const [stream, other] = await open();
  await stream.write(ascii("to the end"));
  stream.end();
  await other.closeWrite();
  await settled();
  assert.equal(server.streams, 1);
  assert.equal(await readText(other), "to the end");
  assert.equal(server.streams, 0);
  await worker.end();
});

Deno.test("a stream that is closed before its first bytes is never heard of", async () => {
  const worker = new Worker();
  const { peer, session } = worker.raw();
  session.open().close();
  session.open().end();
  assert.equal(session.streams, 0);
  assert.deepEqual((await peer.frames()).map(({ type, id, flags }) => [type, id, flags]), [
    [FrameType.data, 3, Flag.syn | Flag.fin],
  ]);
  await worker.end();
});

Deno.test("a session that is lost fails its streams, once what came has been read, and says whether it was of use before", async () => {
  const worker = new Worker();
  const { dialler, open } = worker.pair();
  const [first, other] = await open();
  await other.write(ascii("x"));
  await settled();
  const second = dialler.open();
  dialler.fail(new Error("the wire is cut"));
  for (const [stream, wasKept] of [[first, false], [second, true]] as const) {
    await assert.rejects(readText(stream), (error) => {
      assert.ok(error instanceof SessionLost && error instanceof ConnectionReset);
      assert.deepEqual([error.message, error.wasKept], ["the wire is cut", wasKept]);
      return true;
    });
    await assert.rejects(stream.write(ascii("x")), SessionLost);
    await stream.closeWrite();
    stream.close();
  }
  await worker.end();
});

Deno.test("streams that wait for the connection take turns, however much each has to send", async () => {
  const worker = new Worker();
  const { peer, session } = worker.raw();
  const writes = [INITIAL_WINDOW_BYTES, INITIAL_WINDOW_BYTES, 5].map((bytes) =>
    session.open().write(new Uint8Array(bytes))
  );
  await Promise.all(writes);
  const order = (await peer.frames()).map(({ id }) => id);
  assert.deepEqual(order.slice(0, 4), [1, 1, 3, 5]);
  await worker.end();
});

Deno.test("in whatever order both sides write, read, end and close a stream, neither keeps anything of it", async () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = seededRandom(seed);
    const worker = new Worker();
    const { dialler, server, open } = worker.pair();
    const ends = await open();
    const done: string[] = [];
    const act = (stream: MuxStream) => {
      const acts = ["write", "read", "closeWrite", "end", "close"] as const;
      const name = acts[random.int(random.float() < 0.5 ? 3 : 5)];
      done.push(`${ends.indexOf(stream)}.${name}`);
      if (name === "write") stream.write(new Uint8Array(random.int(INITIAL_WINDOW_BYTES))).catch(() => {});
      else if (name === "read") stream.read(new Uint8Array(random.int(100_000))).catch(() => {});
      else stream[name]();
    };
    for (let step = 0; step < 8; step++) {
      act(ends[random.int(2)]);
      if (random.float() < 0.5) await settled();
    }
    for (const stream of ends) stream.close();
    await settled();
    assert.deepEqual([dialler.streams, server.streams], [0, 0], `seed ${seed}: ${done}`);
    assert.deepEqual([dialler.failure, server.failure], [undefined, undefined], `seed ${seed}: ${done}`);
    await worker.end();
  }
});
