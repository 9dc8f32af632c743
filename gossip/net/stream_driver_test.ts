import assert from "node:assert/strict";
import { StreamCodec } from "../codec/stream.ts";
import { encodeAck } from "../codec/messages.ts";
import { silentLog } from "../log.ts";
import { seededRandom } from "../random.ts";
import { Bench } from "../testing.ts";
import { Driver } from "./driver.ts";
import { ByteBudget, MAX_SERVED_STREAMS_PER_NETWORK, readMessage } from "./stream_driver.ts";
import { type ByteStream, systemClock, type Transport, type TransportHandler } from "./transport.ts";

const codec = new StreamCodec({ random: seededRandom(1) });

/** A stream of these pieces, then its end. */
function streamOf(pieces: readonly Uint8Array[]): ByteStream {
  const left = [...pieces];
  return {
    read(into) {
      const piece = left.shift();
      if (piece === undefined) return Promise.resolve(null);
      into.set(piece);
      return Promise.resolve(piece.length);
    },
    write: (bytes) => Promise.resolve(bytes.length),
    close() {},
  };
}

Deno.test("streams that together hold too much are refused, and what is done gives its share back", async () => {
  const ack = encodeAck({ seqNo: 1, payload: new Uint8Array(100) });
  const budget = new ByteBudget(ack.length + 50);
  const read = (pieces: Uint8Array[]) =>
    readMessage(streamOf(pieces), codec.reader({ accepted: true }), budget);
  for (let i = 0; i < 3; i++) assert.equal((await read([ack.subarray(0, 60), ack.subarray(60)])).kind, "ack");
  const large = encodeAck({ seqNo: 1, payload: new Uint8Array(300) });
  await assert.rejects(
    () => read([large.subarray(0, 100), large.subarray(100)]),
    /Cannot receive stream: streams of/,
  );
  await assert.rejects(() => read([ack.subarray(0, 60)]), /it ended early/);
  assert.equal((await read([ack])).kind, "ack");
});

/** A driver on a network on which nobody is but who is said to come. */
function driverAlone(options: { receivingBytes?: number } = {}) {
  const core = new Bench().add("a", 1);
  let handler: TransportHandler | undefined;
  const transport: Transport = {
    local: { host: "127.0.0.1", port: 1 },
    dropped: 0,
    start: (given) => void (handler = given),
    send() {},
    dial: () => Promise.reject(new Error("nobody listens")),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const driver = new Driver({
    core,
    transport,
    clock: systemClock,
    log: silentLog,
    onEvent() {},
    ...options,
  });
  driver.start();
  return { driver, core, handler: handler! };
}

Deno.test("a stream that would hold too much together with others is closed and counted", async () => {
  const { driver, core, handler } = driverAlone({ receivingBytes: 100 });
  await using _driver = driver;
  const closed = Promise.withResolvers<void>();
  const large = encodeAck({ seqNo: 1, payload: new Uint8Array(300) });
  handler.stream({ ...streamOf([large.subarray(0, 200)]), close: () => closed.resolve() }, "127.0.0.1");
  await closed.promise;
  assert.equal(core.memberlist.counters.streamsRefused, 1);
});

Deno.test("rule 8: streams that come from ever new addresses of one IPv6 /64 leave places to others", async () => {
  const { driver, core, handler } = driverAlone();
  await using _driver = driver;
  /** A stream that says nothing until it is closed. */
  const silent = (): ByteStream => {
    const ended = Promise.withResolvers<null>();
    return { ...streamOf([]), read: () => ended.promise, close: () => ended.resolve(null) };
  };
  for (let n = 1; n <= 1_000; n++) handler.stream(silent(), `2001:db8::${n.toString(16)}`);
  assert.equal(core.memberlist.counters.streamsRefused, 1_000 - MAX_SERVED_STREAMS_PER_NETWORK);
  for (let n = 1; n <= 60; n++) handler.stream(silent(), `2001:db8:1::${n.toString(16)}`);
  assert.equal(core.memberlist.counters.streamsRefused, 1_000 - MAX_SERVED_STREAMS_PER_NETWORK);
});
