import assert from "node:assert/strict";
import { createSecretKey } from "node:crypto";
import { seededRandom } from "../random.ts";
import { Compressor } from "./compress.ts";
import { DecodeError } from "./error.ts";
import { Keyring, KeyringError } from "./keyring.ts";
import { Gcm192 } from "./gcm192.ts";
import { LIMITS } from "./limits.ts";
import { LzwDecoder, LzwEncoder } from "./lzw.ts";
import * as messages from "./messages.ts";
import { MsgpackReader, rememberStrings } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { PacketCodec } from "./packet.ts";
import * as serf from "./serf_messages.ts";
import { StreamCodec } from "./stream.ts";
import { decodeTags, encodeTags } from "./tags.ts";
import { concatBytes, toHex } from "./text.ts";

const random = seededRandom(99);
const NAMES = [
  "",
  "a",
  "node-1",
  "x".repeat(31),
  "y".repeat(32),
  "z".repeat(300),
  "größe",
  "名前",
  "\u{1F600}",
];
const INTEGERS = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1];

function one<T>(values: readonly T[]): T {
  return values[random.int(values.length)];
}

Deno.test("every integer form of either dialect reads as its value", () => {
  const forms: [number, number[]][] = [
    [5, [0x05]],
    [5, [0xcc, 5]],
    [5, [0xd0, 5]],
    [588, [0xd1, 0x02, 0x4c]],
    [588, [0xcd, 0x02, 0x4c]],
    [8e9, [0xd3, 0, 0, 0, 1, 0xdc, 0xd6, 0x50, 0]],
    [8e9, [0xcf, 0, 0, 0, 1, 0xdc, 0xd6, 0x50, 0]],
    [-1, [0xff]],
    [-2, [0xd0, 0xfe]],
    [-2, [0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]],
    [1.5, [0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]],
    [0, [0xc0]],
  ];
  for (const [value, bytes] of forms) {
    assert.equal(new MsgpackReader().reset(new Uint8Array(bytes)).number(), value);
  }
  for (const value of [...INTEGERS, Number.MAX_SAFE_INTEGER, -1, -33, -70_000]) {
    const written = new MsgpackWriter().int(value).finish();
    assert.equal(new MsgpackReader().reset(written).number(), value);
  }
});

Deno.test("strings and bytes read alike from raw, str8, bin and arrays of small integers", () => {
  for (
    const head of [[0xa2], [0xd9, 2], [0xc4, 2], [0xda, 0, 2], [0xc5, 0, 2], [0xdb, 0, 0, 0, 2], [
      0xc6,
      0,
      0,
      0,
      2,
    ]]
  ) {
    const bytes = new Uint8Array([...head, 0x68, 0x69]);
    assert.equal(new MsgpackReader().reset(bytes).string(), "hi");
    assert.deepEqual(new MsgpackReader().reset(bytes).copy(10), new Uint8Array([0x68, 0x69]));
  }
  assert.deepEqual(
    new MsgpackReader().reset(new Uint8Array([0x92, 1, 0xcc, 200])).copy(10),
    new Uint8Array([1, 200]),
  );
});

Deno.test("what is written is read again: memberlist and Serf messages of random content", () => {
  const reader = new MsgpackReader({ strings: rememberStrings() });
  for (let i = 0; i < 5_000; i++) {
    const suspect = { incarnation: one(INTEGERS), node: one(NAMES), from: one(NAMES) };
    assert.deepEqual(messages.decodeAccusation(reader.reset(messages.encodeSuspect(suspect), 1)), suspect);
    const alive = {
      incarnation: one(INTEGERS),
      node: one(NAMES.slice(1)),
      addr: random.bytes(one([4, 16])),
      port: random.int(65_536),
      meta: random.bytes(random.int(513)),
      vsn: random.bytes(6),
    };
    assert.deepEqual(messages.decodeAlive(reader.reset(messages.encodeAlive(alive), 1)), alive);
    const event = {
      ltime: one([...INTEGERS, 2 ** 40]),
      name: one(NAMES),
      payload: one([undefined, random.bytes(random.int(400))]),
      coalesce: random.int(2) === 0,
    };
    assert.deepEqual(serf.decodeUserEvent(reader.reset(serf.encodeUserEvent(event), 1)), event);
  }
});

Deno.test("LZW gives back whatever went in, and the same through packets with every wrapper", () => {
  const encoder = new LzwEncoder();
  const decoder = new LzwDecoder();
  const keyring = new Keyring([random.bytes(32), random.bytes(16)]);
  const codecs = [{}, { compression: true }, { keyring }, { keyring, label: "dc1", compression: true }]
    .map((options) => ({
      packets: new PacketCodec({ random, ...options }),
      streams: new StreamCodec({ random, ...options }),
    }));
  for (let i = 0; i < 300; i++) {
    const alphabet = one([2, 16, 256]);
    const input = Uint8Array.from({ length: random.int(6_000) }, () => random.int(alphabet));
    assert.deepEqual(decoder.decode(encoder.encode(input), input.length), input);
    const parts = Array.from(
      { length: 1 + random.int(300) },
      () => concatBytes([new Uint8Array([8]), random.bytes(5)]),
    );
    const { packets, streams } = one(codecs);
    const back: Uint8Array[] = [];
    packets.open(packets.seal(parts), (packet, start, end) => back.push(packet.slice(start, end)));
    assert.deepEqual(back, parts);
    const sealed = streams.seal(messages.encodeAck({ seqNo: i, payload: input }), { dialing: true });
    const ack = streams.reader({ accepted: true }).push(sealed);
    assert.ok(ack?.kind === "ack" && ack.message.seqNo === i);
  }
});

Deno.test("each limit is one: what exceeds it is a decode error, and nothing of its size is allocated", () => {
  const bomb = new Compressor().compress(new Uint8Array(LIMITS.decompressedPacketBytes + 1));
  assert.throws(() => new PacketCodec({ random }).open(bomb, () => {}), DecodeError);
  let nested: Uint8Array = messages.encodeNack({ seqNo: 1 });
  for (let i = 0; i <= LIMITS.nesting; i++) nested = new Compressor().compress(nested);
  assert.throws(() => new PacketCodec({ random }).open(nested, () => {}), /nested too deep/);
  for (
    const announced of [[0xdf, 255, 255, 255, 255], [0xdd, 255, 255, 255, 255], [0xdb, 255, 255, 255, 255]]
  ) {
    assert.throws(() => new MsgpackReader().reset(new Uint8Array(announced)).skip(), DecodeError);
  }
  const frame = new Uint8Array([10, 0xff, 0xff, 0xff, 0xff]);
  const streams = new StreamCodec({ random, keyring: new Keyring([random.bytes(16)]) });
  assert.throws(() => streams.reader({ accepted: true }).push(frame), /exceeds the limit/);
  const long = new MsgpackWriter().byte(4).map(1).string("Node").string("n".repeat(LIMITS.nameBytes + 1))
    .finish();
  assert.throws(() => messages.decodeAlive(new MsgpackReader().reset(long, 1)), DecodeError);
});

Deno.test("a key ring keeps its primary, takes keys of three sizes, and opens what any of them sealed", () => {
  const [a, b] = [random.bytes(16), random.bytes(24)];
  const ring = new Keyring([a, b]);
  const sealed = new Keyring([b]).seal(new Uint8Array([1, 2]), { nonce: random.bytes(12) });
  assert.deepEqual(ring.open(sealed), { plaintext: new Uint8Array([1, 2]), key: b });
  assert.throws(() => ring.remove(a), KeyringError);
  assert.throws(() => ring.use(random.bytes(32)), KeyringError);
  assert.throws(() => ring.install(random.bytes(5)), /key size must be 16, 24 or 32 bytes/);
  ring.use(b);
  ring.remove(a);
  assert.deepEqual(ring.keys(), [b]);
});

Deno.test("tags that exceed 512 bytes are refused, and meta data that is no map is the role", () => {
  assert.throws(() => encodeTags(new Map([["k", "v".repeat(600)]])), RangeError);
  assert.deepEqual(decodeTags(new TextEncoder().encode("web")), new Map([["role", "web"]]));
  assert.deepEqual(decodeTags(encodeTags(new Map([["a", "b"]]))), new Map([["a", "b"]]));
});

Deno.test("AES-192-GCM gives NIST's results, and refuses what was changed", () => {
  const gcm = new Gcm192(createSecretKey(new Uint8Array(24)));
  const nonce = new Uint8Array(12);
  assert.equal(toHex(gcm.seal(new Uint8Array(0), { nonce }).tag), "cd33b28ac773f74ba00ed1f312572435");
  const { body, tag } = gcm.seal(new Uint8Array(16), { nonce });
  assert.equal(toHex(body), "98e7247c07f0fe411c267e4384b0f600");
  assert.equal(toHex(tag), "2ff58d80033927ab8ef4d4587514f0fb");
  const aad = new Uint8Array([1, 2, 3]);
  const sealed = gcm.seal(new Uint8Array(100), { nonce, aad });
  assert.deepEqual(gcm.open(sealed.body, { nonce, aad, tag: sealed.tag }), new Uint8Array(100));
  assert.equal(gcm.open(sealed.body, { nonce, tag: sealed.tag }), undefined);
});
