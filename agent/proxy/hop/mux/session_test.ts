import assert from "node:assert/strict";
import { Flag, FrameType, INITIAL_WINDOW_BYTES } from "./frames.ts";
import { MAX_STREAMS } from "./session.ts";
import { type MuxStream, SessionLost } from "./stream.ts";
import { pipe, settled } from "./test_pipe.ts";
import { ascii, isPending, readText, SILENCE_MS, Worker } from "./test_session.ts";
import { MAX_GROWTH_BYTES, MAX_WINDOW_BYTES } from "./windows.ts";

const ROUND_TRIP_MS = 1_000;

Deno.test("many streams of one session carry bytes both ways, each its own", async () => {
  const worker = new Worker();
  const { dialler, server, accepted } = worker.pair();
  const texts = Array.from({ length: 50 }, (_, n) => `${n}: ${"x".repeat(n * 500)}`);
  const streams = texts.map((text) => {
    const stream = dialler.open();
    stream.write(ascii(text)).then(() => stream.closeWrite());
    return stream;
  });
  await settled();
  assert.equal(accepted.length, 50);
  await Promise.all(accepted.map(async (stream) => {
    await stream.write(ascii((await readText(stream)).toUpperCase()));
    stream.end();
  }));
  assert.deepEqual(
    await Promise.all(streams.map((stream) => readText(stream))),
    texts.map((text) => text.toUpperCase()),
  );
  await settled();
  assert.deepEqual([dialler.streams, server.streams], [0, 0]);
  await worker.end();
});

Deno.test("a reader that reads nothing holds up nobody else, and no more than its window is kept for it", async () => {
  const worker = new Worker();
  const { open } = worker.pair();
  const taken = () => [...worker.pool.taken].reduce((sum, { length }) => sum + length, 0);
  const before = taken();
  const [slow, slowReader] = await open();
  const [quick, quickReader] = await open();
  const waiting = slow.write(new Uint8Array(4 * INITIAL_WINDOW_BYTES));
  for (let n = 0; n < 40; n++) {
    const written = quick.write(new Uint8Array(INITIAL_WINDOW_BYTES / 4));
    await readText(quickReader, INITIAL_WINDOW_BYTES / 4);
    await written;
  }
  assert.equal(await isPending(waiting), true);
  assert.equal(taken() - before, INITIAL_WINDOW_BYTES);
  assert.equal((await readText(slowReader, 4 * INITIAL_WINDOW_BYTES)).length, 4 * INITIAL_WINDOW_BYTES);
  await waiting;
  assert.equal(taken(), before);
  await worker.end();
});

/** A pair whose sides know that a round trip takes so long. */
async function distantPair(worker: Worker) {
  worker.time.nowMs = 0;
  const pair = worker.pair();
  pair.conn.isStalled = true;
  await settled();
  worker.time.nowMs = ROUND_TRIP_MS;
  pair.conn.isStalled = false;
  await settled();
  return pair;
}

Deno.test("rule 8: a window grows to the limit while its reader keeps up, and gives that back with the stream", async () => {
  const worker = new Worker();
  const { open } = await distantPair(worker);
  const [stream, other] = await open();
  const written = other.write(new Uint8Array(6 * MAX_WINDOW_BYTES));
  await readText(stream, 6 * MAX_WINDOW_BYTES);
  await written;
  assert.equal(MAX_GROWTH_BYTES - worker.budget.leftBytes, MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES);
  // As much as the window is held for a reader that reads no more, and counted until it goes.
  const waiting = other.write(new Uint8Array(MAX_WINDOW_BYTES));
  assert.equal(await isPending(waiting), true);
  other.close();
  await assert.rejects(waiting);
  await settled();
  assert.equal(MAX_GROWTH_BYTES - worker.budget.leftBytes, MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES);
  stream.close();
  assert.equal(worker.budget.leftBytes, MAX_GROWTH_BYTES);
  await worker.end();
});

Deno.test("a window stays as it is where the reader is what is slow", async () => {
  const worker = new Worker();
  const { open } = await distantPair(worker);
  const [stream, other] = await open();
  const written = other.write(new Uint8Array(20 * INITIAL_WINDOW_BYTES));
  for (let read = 0; read < 40; read++) {
    worker.time.nowMs += 2 * ROUND_TRIP_MS;
    await readText(stream, INITIAL_WINDOW_BYTES / 2);
  }
  await written;
  assert.equal(worker.budget.leftBytes, MAX_GROWTH_BYTES);
  await worker.end();
});

Deno.test("rule 8: there are no more streams at a time than the limit; one that ends makes room, one too many is reset", async () => {
  const worker = new Worker();
  const { peer, session, accepted } = worker.raw();
  for (let n = 0; n < MAX_STREAMS; n++) {
    await peer.send({ type: FrameType.data, flags: Flag.syn, id: 2 * n + 1, content: "x" });
  }
  assert.deepEqual([accepted.length, (await peer.frames()).length, session.isOpen], [MAX_STREAMS, 0, false]);
  const tooMany = { type: FrameType.data, flags: Flag.syn, id: 2 * MAX_STREAMS + 1, content: "x" };
  await peer.send(tooMany);
  assert.deepEqual((await peer.frames()).map(({ flags, id }) => [flags, id]), [[Flag.rst, tooMany.id]]);
  await peer.send({ type: FrameType.windowUpdate, flags: Flag.rst, id: 1 });
  assert.equal(session.isOpen, true);
  await peer.send(tooMany);
  assert.equal(accepted.length, MAX_STREAMS + 1);
  for (const stream of accepted) stream.close();
  await worker.end();
});

Deno.test("a stream that is refused is reset, and leaves the session as it is", async () => {
  const worker = new Worker();
  const [conn, serverConn] = pipe();
  const accepted: MuxStream[] = [];
  let accepts = false;
  const dialler = worker.session(conn), server = worker.session(serverConn, accepted, () => accepts);
  const refused = dialler.open();
  await refused.write(new Uint8Array(10_000));
  await assert.rejects(refused.read(new Uint8Array(1)), Deno.errors.ConnectionReset);
  assert.deepEqual([dialler.streams, server.streams, accepted.length], [0, 0, 0]);
  accepts = true;
  const taken = dialler.open();
  await taken.write(ascii("hello"));
  await settled();
  assert.equal(await readText(accepted[0], 5), "hello");
  await worker.end();
});

Deno.test("a side that goes away hears when the other has opened its last stream, also one that has said nothing yet", async () => {
  const worker = new Worker();
  const { conn, dialler, server, accepted, open } = worker.pair();
  const [stream, other] = await open();
  const silent = dialler.open();
  conn.isStalled = true;
  server.goAway();
  await settled();
  assert.deepEqual([dialler.isGoingAway, dialler.isOpen, server.isAcknowledged], [true, false, false]);
  conn.isStalled = false;
  await settled();
  assert.deepEqual([server.isAcknowledged, accepted.length, server.isGoingAway], [true, 2, false]);
  await silent.write(ascii("first words"));
  await stream.write(ascii("more"));
  assert.equal(await readText(accepted[1], 11), "first words");
  assert.equal(await readText(other, 4), "more");
  await worker.end();
});

Deno.test("an answer to an earlier question does not acknowledge that a side goes away", async () => {
  const worker = new Worker();
  const { peer, session } = worker.raw();
  await settled();
  session.goAway();
  const frames = await peer.allFrames();
  const pings = frames.filter(({ type }) => type === FrameType.ping);
  assert.deepEqual(frames.map(({ type }) => type), [FrameType.ping, FrameType.goAway, FrameType.ping]);
  await peer.send({ ...pings[0], flags: Flag.ack });
  assert.equal(session.isAcknowledged, false);
  await peer.send({ ...pings[1], flags: Flag.ack });
  assert.equal(session.isAcknowledged, true);
  await worker.end();
});

Deno.test("a peer that says nothing is asked, gets no new streams, and is given up with all it has in time", async () => {
  const worker = new Worker();
  const { time } = worker;
  const { serverConn, dialler, open } = worker.pair();
  const [stream] = await open();
  await time.pass(SILENCE_MS * 0.8);
  assert.equal(dialler.failure, undefined);
  serverConn.isStalled = true;
  await time.pass(SILENCE_MS / 20 + 200);
  dialler.open().close(); // which asks
  await time.pass(SILENCE_MS / 10 - 200);
  assert.equal(dialler.isOpen, true);
  await time.pass(300);
  assert.equal(dialler.isOpen, false);
  const read = stream.read(new Uint8Array(1));
  await time.pass(SILENCE_MS * 0.9 - 500);
  assert.equal(await isPending(read), true);
  await time.pass(1_000);
  await assert.rejects(read, SessionLost);
  assert.match(String(dialler.failure), /^TimedOut: the node is silent$/);
  await worker.end();
});

Deno.test("a silent peer is given up in time also where nobody opens a stream", async () => {
  const worker = new Worker();
  const { time } = worker;
  const { conn, dialler, server, open } = worker.pair();
  await open();
  conn.isStalled = true;
  await time.pass(SILENCE_MS);
  assert.equal(server.failure, undefined);
  await time.pass(SILENCE_MS / 2 + 500);
  assert.match(String(server.failure), /^TimedOut: the node is silent$/);
  assert.match(String(dialler.failure), /the node closed the connection/);
  await worker.end();
});

Deno.test("a peer that answers stays, however long nobody has anything to say, and is trusted again after a pause", async () => {
  const worker = new Worker();
  const { time } = worker;
  const { serverConn, dialler, server, open } = worker.pair();
  await open();
  await time.pass(20 * SILENCE_MS);
  serverConn.isStalled = true;
  await time.pass(SILENCE_MS / 2);
  assert.equal(dialler.isOpen, false);
  serverConn.isStalled = false;
  await settled();
  assert.equal(dialler.isOpen, true);
  await time.pass(20 * SILENCE_MS);
  assert.deepEqual([dialler.failure, server.failure], [undefined, undefined]);
  await worker.end();
});

Deno.test("a connection that ends or fails ends the session with the reason, and a peer that reads nothing as well", async () => {
  const worker = new Worker();
  const { serverConn, dialler, server } = worker.pair();
  await settled();
  serverConn.close();
  await settled();
  assert.match(String(dialler.failure), /^Error: the node closed the connection$/);
  assert.match(String(server.failure), /^BadResource/);
  const { peer, session } = worker.raw();
  const ping = { type: FrameType.ping, flags: Flag.syn, length: 1 };
  session.open().write(ascii("x"));
  await settled();
  peer.conn.closeWrite();
  await settled();
  assert.match(String(session.failure), /^Error: the node closed the connection$/);
  await peer.send(ping);
  await worker.end();
});

Deno.test("all that was written is with the connection when a session is quiet", async () => {
  const worker = new Worker();
  const { conn, dialler, accepted } = worker.pair({ capacityBytes: 1024 });
  await settled();
  assert.equal(dialler.isQuiet, true);
  conn.isStalled = true;
  await dialler.open().write(new Uint8Array(10_000));
  await settled();
  assert.equal(dialler.isQuiet, false);
  conn.isStalled = false;
  await settled();
  assert.equal(dialler.isQuiet, true);
  accepted[0].close();
  await worker.end();
});
