import assert from "node:assert/strict";
import { Flag, FrameType, HEADER_BYTES } from "./frames.ts";
import { FrameWriter, MAX_HELD_BYTES, MAX_UNSENT_BYTES } from "./frame_writer.ts";
import { pipe, settled } from "./test_pipe.ts";
import { ascii, isPending, rawFrame, RawPeer } from "./test_session.ts";

const PING = { type: FrameType.ping, flags: Flag.syn, streamId: 0, length: 7 };

/** A writer, the other end of its connection, and why it failed. */
function opened(capacityBytes?: number) {
  const [conn, peerConn] = pipe({ capacityBytes });
  const failures: unknown[] = [];
  return {
    conn,
    peer: new RawPeer(peerConn),
    writer: new FrameWriter(conn, (error) => failures.push(error)),
    failures,
  };
}

function dataHeader(length: number, streamId = 1) {
  return { type: FrameType.data, flags: 0, streamId, length };
}

Deno.test("frames of one moment go out in one piece, in order, with their content", async () => {
  const { conn, peer, writer } = opened();
  writer.frame(dataHeader(3), ascii("abc"));
  await undefined;
  writer.frame(PING);
  assert.equal(writer.isQuiet, false);
  writer.frame(dataHeader(2, 3), ascii("de"));
  await settled();
  assert.deepEqual([conn.writes, writer.isQuiet], [1, true]);
  assert.deepEqual((await peer.allFrames()).map(({ type, id, content }) => [type, id, content]), [
    [FrameType.data, 1, "abc"],
    [FrameType.ping, 0, ""],
    [FrameType.data, 3, "de"],
  ]);
});

Deno.test("content is copied: whoever sent it may use it again at once", async () => {
  const { conn, peer, writer } = opened();
  conn.isStalled = true;
  const content = ascii("abc");
  for (const letter of "abc") {
    writer.frame(dataHeader(3), content.fill(letter.charCodeAt(0)));
    content.fill(0);
    await settled();
  }
  conn.isStalled = false;
  assert.deepEqual((await peer.allFrames()).map(({ content }) => content), ["aaa", "bbb", "ccc"]);
});

Deno.test("a connection that takes a few bytes at a time gets all of them in order", async () => {
  const { peer, writer, conn } = opened(5);
  for (let n = 0; n < 200; n++) {
    writer.frame(dataHeader(4, n), ascii(String(1000 + n)));
    if (n % 3 === 0) await settled();
  }
  while (!writer.isQuiet) await settled();
  const frames = await peer.allFrames();
  assert.deepEqual(
    frames.map(({ id, content }) => [id, content]),
    [...Array(200).keys()].map((n) => [n, `${1000 + n}`]),
  );
  assert.ok(conn.writes >= 200 * (HEADER_BYTES + 4) / 5);
});

Deno.test("rule 8: no more data is held for a connection that takes none than the limit, while what is little still goes", async () => {
  const { conn, peer, writer } = opened(8);
  conn.isStalled = true;
  assert.equal(writer.room, MAX_HELD_BYTES - HEADER_BYTES);
  writer.frame(PING);
  await settled(); // it is being sent
  const content = new Uint8Array(writer.room);
  writer.frame(dataHeader(content.length), content);
  assert.equal(writer.room, -HEADER_BYTES);
  const drained = writer.drained();
  assert.equal(await isPending(drained), true);
  writer.frame(PING);
  assert.equal(writer.room, -2 * HEADER_BYTES);
  conn.isStalled = false;
  await drained;
  assert.ok(writer.room > 0);
  while (!writer.isQuiet) await settled();
  assert.deepEqual((await peer.allFrames()).map(({ type, length }) => [type, length]), [
    [FrameType.ping, 7],
    [FrameType.data, content.length],
    [FrameType.ping, 7],
  ]);
});

Deno.test("rule 8: a peer for which more is to be held than the limit is given up, once", async () => {
  const { conn, writer, failures } = opened(8);
  conn.isStalled = true;
  writer.frame(PING);
  await settled(); // it is being sent
  const most = Math.floor(MAX_UNSENT_BYTES / HEADER_BYTES);
  for (let n = 0; n < most; n++) writer.frame(PING);
  assert.deepEqual(failures, []);
  const drained = writer.drained();
  writer.frame(PING);
  assert.match(String(failures), /^Error: the node does not read what it is sent$/);
  await drained;
  writer.frame(PING);
  conn.close();
  await settled();
  assert.equal(failures.length, 1);
});

Deno.test("what was held beyond the room for data goes out whole and in order", async () => {
  const { conn, peer, writer } = opened(1024);
  conn.isStalled = true;
  const most = MAX_HELD_BYTES / HEADER_BYTES + 1_000;
  for (let n = 0; n < most; n++) {
    writer.frame({ ...PING, length: n });
    if (n === 1) await settled();
  }
  conn.isStalled = false;
  while (!writer.isQuiet) await settled();
  assert.deepEqual((await peer.allFrames()).map(({ length }) => length), [...Array(Math.ceil(most)).keys()]);
  assert.equal(writer.room, MAX_HELD_BYTES - HEADER_BYTES);
});

Deno.test("a connection that fails is told of once, wakes who waits, and takes nothing more", async () => {
  const { conn, peer, writer, failures } = opened(HEADER_BYTES);
  conn.isStalled = true;
  writer.frame(PING);
  writer.frame(PING);
  await settled();
  const drained = writer.drained();
  peer.conn.close();
  await drained;
  assert.ok(failures[0] instanceof Deno.errors.ConnectionReset);
  const writes = conn.writes;
  writer.frame(dataHeader(3), ascii("abc"));
  await settled();
  assert.deepEqual([failures.length, conn.writes, writer.isQuiet], [1, writes, false]);
});

Deno.test("a frame is the specification's bytes", async () => {
  const [conn, other] = pipe();
  const writer = new FrameWriter(conn, (error) => assert.fail(String(error)));
  writer.frame({ type: FrameType.data, flags: Flag.syn | Flag.fin, streamId: 5, length: 2 }, ascii("hi"));
  const into = new Uint8Array(100);
  const count = await other.read(into);
  assert.deepEqual(into.subarray(0, count!), rawFrame({ type: 0, flags: 5, id: 5, content: "hi" }));
});
