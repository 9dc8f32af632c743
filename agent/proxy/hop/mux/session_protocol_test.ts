import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { seededRandom } from "../../../../gossip/random.ts";
import { Flag, FrameType, INITIAL_WINDOW_BYTES, MuxProtocolError } from "./frames.ts";
import { SessionLost } from "./stream.ts";
import { settled } from "./test_pipe.ts";
import { ascii, type RawFrame, rawFrame, readText, Worker } from "./test_session.ts";

const { data, windowUpdate, ping, goAway } = FrameType;
const { syn, ack, fin, rst } = Flag;
const { ConnectionReset } = Deno.errors;

Deno.test("a stream is opened with its first bytes and taken with the first answer, as the specification has it", async () => {
  const worker = new Worker();
  const { peer, session } = worker.raw({ accepts: false });
  const stream = session.open();
  assert.deepEqual(await peer.frames(), []);
  await stream.write(ascii("hello"));
  await stream.write(ascii("again"));
  await stream.closeWrite();
  const frame = { version: 0, type: data, id: 1 };
  assert.deepEqual(await peer.frames(), [
    { ...frame, flags: syn, length: 5, content: "hello" },
    { ...frame, flags: 0, length: 5, content: "again" },
    { ...frame, flags: fin, length: 0, content: "" },
  ]);
  await peer.send({ type: data, flags: ack, id: 1, content: "hi" }, {
    type: windowUpdate,
    flags: fin,
    id: 1,
  });
  assert.equal(await readText(stream), "hi");
  const { id } = session.open().state;
  assert.equal(id, 3);
  await worker.end();
});

Deno.test("what the other side opens is answered with an ACK once, by data or by a window update", async () => {
  const worker = new Worker();
  const { peer, accepted } = worker.raw();
  const half = "x".repeat(INITIAL_WINDOW_BYTES / 2);
  await peer.send({ type: windowUpdate, flags: syn, id: 1, length: 0 }, {
    type: data,
    flags: syn,
    id: 3,
    content: half,
  });
  await accepted[0].write(ascii("a"));
  await accepted[0].write(ascii("b"));
  await readText(accepted[1], half.length);
  await accepted[1].write(ascii("c"));
  assert.deepEqual((await peer.frames()).map(({ type, flags, id, length }) => [type, flags, id, length]), [
    [data, ack, 1, 1],
    [data, 0, 1, 1],
    [windowUpdate, ack, 3, half.length],
    [data, 0, 3, 1],
  ]);
  await worker.end();
});

Deno.test("an end may come alone, with data, with a window update, or with the opening", async () => {
  const worker = new Worker();
  const { peer, accepted } = worker.raw();
  await peer.send(
    { type: data, flags: syn, id: 1, content: "alone" },
    { type: data, flags: fin, id: 1 },
    { type: data, flags: syn, id: 3, content: "with " },
    { type: data, flags: fin, id: 3, content: "data" },
    { type: data, flags: syn, id: 5, content: "update" },
    { type: windowUpdate, flags: fin, id: 5, length: 7 },
    { type: data, flags: syn | fin, id: 7, content: "at once" },
  );
  const texts = await Promise.all(accepted.map((stream) => readText(stream)));
  assert.deepEqual(texts, ["alone", "with data", "update", "at once"]);
  for (const stream of accepted) stream.end();
  await peer.send({ type: data, flags: syn | fin, id: 9, content: "not read" });
  await peer.frames();
  await accepted[4].closeWrite();
  accepted[4].close();
  assert.deepEqual((await peer.frames()).map(({ flags, id }) => [flags, id]), [[ack | fin, 9]]);
  await worker.end();
});

Deno.test("a window that the opening or an update makes larger is used, however the updates come", async () => {
  const worker = new Worker();
  const { peer, accepted } = worker.raw();
  await peer.send({ type: windowUpdate, flags: syn, id: 1, length: 10 });
  const write = accepted[0].write(new Uint8Array(INITIAL_WINDOW_BYTES + 30));
  const sent = async () => (await peer.frames()).reduce((sum, { length }) => sum + length, 0);
  assert.equal(await sent(), INITIAL_WINDOW_BYTES + 10);
  await peer.send({ type: windowUpdate, id: 1, length: 0 }, { type: windowUpdate, id: 1, length: 5 });
  assert.equal(await sent(), 5);
  await peer.send({ type: windowUpdate, id: 1, length: 0xffff_ffff });
  assert.equal(await sent(), 15);
  assert.equal(await write, INITIAL_WINDOW_BYTES + 30);
  await worker.end();
});

Deno.test("a ping is answered with its number, and an answer to none is nothing", async () => {
  const worker = new Worker();
  const { peer, session } = worker.raw();
  await peer.allFrames();
  await peer.send({ type: ping, flags: syn, length: 0xfedcba98 }, { type: ping, flags: ack, length: 77 });
  const [answer, ...more] = await peer.allFrames();
  assert.deepEqual([answer.type, answer.flags, answer.id, answer.length], [ping, ack, 0, 0xfedcba98]);
  assert.deepEqual([more, session.failure, session.isAcknowledged], [[], undefined, false]);
  await worker.end();
});

Deno.test("data for a stream that is not there is answered with a reset and dropped; what ends or widens it is not", async () => {
  const worker = new Worker();
  const { peer, session, accepted } = worker.raw();
  await peer.send(
    { type: data, id: 9, content: "nobody's" },
    { type: data, flags: fin, id: 8 },
    { type: windowUpdate, id: 7, length: 7 },
    { type: windowUpdate, flags: rst, id: 5 },
    { type: data, flags: rst, id: 5, content: "dropped" },
    { type: data, flags: syn, id: 11, content: "somebody's" },
  );
  assert.deepEqual((await peer.frames()).map(({ type, flags, id }) => [type, flags, id]), [[
    windowUpdate,
    rst,
    9,
  ]]);
  assert.equal(await readText(accepted[0], 10), "somebody's");
  assert.equal(session.failure, undefined);
  await worker.end();
});

Deno.test("a stream that is closed within a frame takes nothing of the rest, and the next frame is found", async () => {
  const worker = new Worker();
  const { peer, session, accepted } = worker.raw();
  const bytes = rawFrame({ type: data, flags: syn | fin, id: 1, content: "to be cut" });
  await peer.sendBytes(bytes.subarray(0, -4));
  await settled();
  assert.equal(await readText(accepted[0], 5), "to be");
  accepted[0].close();
  await peer.sendBytes(bytes.subarray(-4));
  await peer.send({ type: data, flags: syn, id: 3, content: "next" });
  assert.equal(await readText(accepted[1], 4), "next");
  await assert.rejects(accepted[0].read(new Uint8Array(9)), Deno.errors.BadResource);
  assert.equal(session.failure, undefined);
  await worker.end();
});

Deno.test("one that the other side has reset and opened again by its number is another stream", async () => {
  const worker = new Worker();
  const { peer, session, accepted } = worker.raw();
  await peer.send({ type: data, flags: syn, id: 1, content: "old" }, {
    type: data,
    flags: rst,
    id: 1,
    content: "!",
  });
  await peer.send({ type: data, flags: syn, id: 1, content: "new" });
  await assert.rejects(accepted[0].write(ascii("x")), ConnectionReset);
  accepted[0].close();
  assert.equal(session.streams, 1);
  assert.deepEqual(await peer.frames(), []);
  await peer.send({ type: data, flags: fin, id: 1, content: "er" });
  assert.equal(await readText(accepted[1]), "newer");
  await worker.end();
});

const opened: RawFrame = { type: data, flags: syn, id: 1, content: "x" };
const tooMuch = "x".repeat(INITIAL_WINDOW_BYTES);
const violations: [name: string, frames: RawFrame[], reason: RegExp][] = [
  ["an unknown type", [{ type: 4, id: 1 }], /version 0 and type 4/],
  ["another version", [{ version: 1, type: data, id: 1 }], /version 1 and type 0/],
  [
    "more than it may send",
    [opened, { type: data, id: 1, content: tooMuch }],
    /stream 1 sends more than it may/,
  ],
  [
    "more at once than there will ever be",
    [{ ...opened, length: 0xffff_ffff }],
    /stream 1 sends more than it may/,
  ],
  [
    "data after the end",
    [opened, { type: data, flags: fin, id: 1 }, { type: data, id: 1, content: "y" }],
    /after its end/,
  ],
  ["a stream that is open already", [opened, opened], /stream 1 must not be opened/],
  ["a stream with an even number", [{ ...opened, id: 2 }], /stream 2 must not be opened/],
  ["the session's own number as a stream", [{ ...opened, id: 0 }], /stream 0 must not be opened/],
];

for (const [name, frames, reason] of violations) {
  Deno.test(`a peer that sends ${name} ends the session, and nothing behind it is taken`, async () => {
    const worker = new Worker();
    const { peer, session, accepted } = worker.raw();
    await peer.send(...frames, { ...opened, id: 99 });
    assert.ok(session.failure instanceof MuxProtocolError);
    assert.match(session.failure.message, reason);
    assert.ok(accepted.every(({ state }) => state.id !== 99));
    assert.equal(session.streams, 0);
    for (const stream of accepted) {
      await assert.rejects(stream.write(ascii("x")), reason);
      stream.close();
    }
    await peer.ended;
    await worker.end();
  });
}

Deno.test("the side that was dialled opens no streams", async () => {
  const worker = new Worker();
  const { peer, session } = worker.raw({ accepts: false });
  await peer.send({ ...opened, id: 2 });
  assert.match(String(session.failure), /^MuxProtocolError: stream 2 must not be opened$/);
  await worker.end();
});

Deno.test("rule 8: a peer that asks and does not read the answers is given up, and nothing behind it is taken", async () => {
  const worker = new Worker();
  const { conn, serverConn, server, accepted } = worker.pair({ capacityBytes: 2 * 1024 * 1024 });
  await settled();
  serverConn.isStalled = true;
  let id = -1;
  while (!server.failure) {
    const question = rawFrame({ type: ping, flags: syn, length: 1 });
    const opening = rawFrame({ ...opened, id: id += 2 });
    const frames = Buffer.concat([opening, ...new Array(2_000).fill(question)]);
    await conn.write(frames).catch(() => {});
    if (id % 20 === 1) await settled();
  }
  assert.match(server.failure.message, /does not read what it is sent/);
  assert.equal(server.streams, 0);
  assert.ok(accepted.length > 0);
  for (const stream of accepted) {
    await assert.rejects(stream.write(ascii("x")), SessionLost);
    stream.close();
  }
  await worker.end();
});

/** What a peer out of its mind might send: bytes, or frames that are nearly right. */
function nonsense(seed: number): Uint8Array {
  const random = seededRandom(seed);
  if (seed % 3 === 0) return random.bytes(1 + random.int(5_000));
  const frames = Array.from({ length: 20 }, () => {
    const isRare = random.float() < 0.02;
    const content = random.float() < 0.7 ? "x".repeat(random.int(random.float() < 0.1 ? 100_000 : 20)) : "";
    const type = isRare ? random.int(256) : [data, data, data, windowUpdate, ping, goAway][random.int(6)];
    return rawFrame({
      version: random.float() < 0.005 ? 1 : 0,
      type,
      flags: random.float() < 0.1 ? random.int(65_536) : [0, 0, syn, ack, fin, rst][random.int(6)],
      id: isRare ? random.int(2 ** 32) : 2 * random.int(50) + 1,
      length: random.float() < 0.02
        ? random.int(2 ** 32)
        : type === data
        ? content.length
        : random.int(1_000),
      content: type === data ? content : "",
    });
  });
  return Uint8Array.from(frames.flatMap((frame) => [...frame]));
}

Deno.test("whatever a peer sends, in whatever pieces, a session only ends, with a reason, and keeps nothing", async () => {
  let broken = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const random = seededRandom(seed);
    const worker = new Worker();
    const most = 1 + random.int(5_000);
    const piece = () => 1 + random.int(most);
    const { peer, session, accepted } = worker.raw({ accepts: seed % 2 === 0, piece });
    const own = [session.open(), session.open()];
    own[0].write(ascii("hello")).catch(() => {});
    await peer.sendBytes(nonsense(seed));
    await settled();
    for (const stream of [...accepted, ...own]) {
      stream.write(new Uint8Array(random.int(50_000))).catch(() => {});
      stream.read(new Uint8Array(random.int(50_000))).catch(() => {});
      if (random.float() < 0.5) stream.end();
    }
    if (session.failure instanceof MuxProtocolError) broken++;
    if (!peer.conn.isClosed) peer.conn.close();
    await settled();
    assert.ok(session.failure, `seed ${seed}`);
    assert.equal(session.streams, 0);
    for (const stream of [...accepted, ...own]) stream.close();
    await worker.end();
  }
  assert.ok(broken > 50 && broken < 250, `${broken} broke the protocol`);
});
