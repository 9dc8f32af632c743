import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import vectors from "../testdata/vectors.json" with { type: "json" };
import { seededRandom } from "../random.ts";
import { Compressor } from "./compress.ts";
import { encodeCompound } from "./compound.ts";
import { decodePingPayload, encodePingPayload } from "./coordinate.ts";
import { decodeFilter, encodeFilter } from "./filter.ts";
import { Keyring } from "./keyring.ts";
import { LzwDecoder, LzwEncoder } from "./lzw.ts";
import * as messages from "./messages.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { PacketCodec } from "./packet.ts";
import { encodePushPull } from "./push_pull.ts";
import * as internal from "./serf_internal.ts";
import * as serf from "./serf_messages.ts";
import { decodeSerfPushPull, encodeSerfPushPull } from "./serf_push_pull.ts";
import { encodeUserStream, StreamCodec } from "./stream.ts";
import { concatBytes, equalBytes, toHex } from "./text.ts";
import { MessageType } from "./types.ts";

interface Vector {
  name: string;
  hex?: string | null;
  // deno-lint-ignore no-explicit-any
  decoded: any;
}

const KEY = fromHex("000102030405060708090a0b0c0d0e0f");
const KEY_V010 = new TextEncoder().encode("0123456789abcdef");
const random = seededRandom(1);
const reader = new MsgpackReader();

function fromHex(hex: string): Uint8Array {
  return (Uint8Array as unknown as { fromHex(hex: string): Uint8Array }).fromHex(hex);
}

/** Decodes one unwrapped memberlist message and encodes it again. */
function again(message: Uint8Array): Uint8Array {
  reader.reset(message, 1);
  switch (message[0]) {
    case MessageType.ping:
      return messages.encodePing(messages.decodePing(reader));
    case MessageType.indirectPing:
      return messages.encodeIndirectPing(messages.decodeIndirectPing(reader));
    case MessageType.ack: {
      const ack = messages.decodeAck(reader);
      if (ack.payload !== undefined) {
        assert.deepEqual(
          encodePingPayload(decodePingPayload(new MsgpackReader().reset(ack.payload))),
          ack.payload.slice(),
        );
      }
      return messages.encodeAck(ack);
    }
    case MessageType.nack:
      return messages.encodeNack(messages.decodeNack(reader));
    case MessageType.suspect:
      return messages.encodeSuspect(messages.decodeAccusation(reader));
    case MessageType.dead:
      return messages.encodeDead(messages.decodeAccusation(reader));
    case MessageType.alive:
      return messages.encodeAlive(messages.decodeAlive(reader));
    case MessageType.user:
      return concatBytes([message.subarray(0, 1), serfAgain(message.subarray(1))]);
    default:
      throw new Error(`message type ${message[0]}`);
  }
}

/** Decodes one Serf message and encodes it again. */
function serfAgain(message: Uint8Array): Uint8Array {
  const own = new MsgpackReader().reset(message, 1);
  switch (message[0]) {
    case serf.SerfType.leave:
      return serf.encodeLeave(serf.decodeIntent(own));
    case serf.SerfType.userEvent:
      return serf.encodeUserEvent(serf.decodeUserEvent(own));
    case serf.SerfType.query: {
      const query = serf.decodeQuery(own);
      for (const filter of query.filters) {
        const decoded = decodeFilter(filter);
        assert.deepEqual(encodeFilter(decoded), filter);
      }
      if (query.payload?.[0] === serf.SerfType.keyRequest) {
        const key = internal.decodeKeyRequest(new MsgpackReader().reset(query.payload, 1));
        assert.deepEqual(internal.encodeKeyRequest(key), query.payload);
      }
      return serf.encodeQuery(query);
    }
    case serf.SerfType.queryResponse: {
      const response = serf.decodeQueryResponse(own);
      const payload = response.payload;
      if (payload?.[0] === serf.SerfType.conflictResponse) {
        const member = internal.decodeConflictResponse(new MsgpackReader().reset(payload, 1));
        assert.deepEqual(internal.encodeConflictResponse(member), payload);
      } else if (payload?.[0] === serf.SerfType.keyResponse) {
        const keys = internal.decodeKeyResponse(new MsgpackReader().reset(payload, 1));
        assert.deepEqual(internal.encodeKeyResponse(keys), payload);
      }
      return serf.encodeQueryResponse(response);
    }
    case serf.SerfType.relay: {
      const header = internal.decodeRelayHeader(own);
      return internal.encodeRelay(header, serfAgain(message.subarray(own.at)));
    }
    default:
      throw new Error(`Serf type ${message[0]}`);
  }
}

function codecs(name: string): { packets: PacketCodec; streams: StreamCodec; keyring?: Keyring } {
  const label = name.startsWith("v010-label") ? "dc1" : "";
  const encrypted = name.startsWith("enc-") || name.includes("-enc-");
  const keyring = encrypted ? new Keyring([name.startsWith("v010") ? KEY_V010 : KEY]) : undefined;
  const options = { random, keyring, label, compression: true };
  return { packets: new PacketCodec(options), streams: new StreamCodec(options), keyring };
}

for (const vector of vectors as Vector[]) {
  const { name } = vector;
  if (vector.hex == null || vector.hex === "") continue;
  const bytes = fromHex(vector.hex);

  if (name.startsWith("lzw-")) {
    Deno.test(`vector ${name}: LZW both ways`, () => {
      const input = new TextEncoder().encode(vector.decoded.input_utf8);
      assert.deepEqual(new LzwEncoder().encode(input), bytes);
      assert.deepEqual(new LzwDecoder().decode(bytes, 1000), input);
    });
  } else if (name.startsWith("tcp-") || name.startsWith("enc-tcp-") || (name.includes("-tcp-"))) {
    Deno.test(`vector ${name}: a stream decodes, whole and byte by byte, and encodes again`, () => {
      const { streams } = codecs(name);
      const accepted = name.includes("request") || name.includes("sent-by") || name === "enc-tcp-v1-ping" ||
        name === "enc-tcp-v0-ping" || name === "tcp-user-message-ours";
      const message = streams.reader({ accepted }).push(bytes);
      assert.ok(message !== undefined);
      const slow = streams.reader({ accepted });
      for (let i = 0; i < bytes.length - 1; i++) assert.equal(slow.push(bytes.subarray(i, i + 1)), undefined);
      assert.deepEqual(slow.push(bytes.subarray(bytes.length - 1)), message);
      const plain = message.kind === "pushPull"
        ? encodePushPull(message.message)
        : message.kind === "user"
        ? encodeUserStream(message.message)
        : message.kind === "ack"
        ? messages.encodeAck(message.message)
        : message.kind === "ping"
        ? messages.encodePing(message.message)
        : messages.encodeStreamError(message.message);
      const expected = name.includes("v1-ping") || name.includes("v0-ping")
        ? vector.decoded.plaintext
        : bytes[0] === MessageType.compress
        ? toHex(new Compressor().decompress(bytes, 1 << 20))
        : bytes[0] === MessageType.encrypt || bytes[0] === MessageType.hasLabel
        ? undefined
        : vector.hex;
      if (expected !== undefined && !name.startsWith("v010")) assert.equal(toHex(plain), expected);
      const once = streams.reader({ accepted }).push(streams.seal(plain, { dialing: accepted }));
      assert.deepEqual(once, message);
      if (message.kind === "pushPull") {
        const state = decodeSerfPushPull(new MsgpackReader().reset(message.message.userState, 1));
        const back = decodeSerfPushPull(new MsgpackReader().reset(encodeSerfPushPull(state), 1));
        assert.deepEqual(back, state);
        const nodes = vector.decoded.nodes;
        if (nodes) {
          assert.deepEqual(
            message.message.nodes.map((node) => node.node),
            nodes.map((node: { Name: string }) => node.Name),
          );
        }
      }
    });
  } else if (name.startsWith("hypercore-")) {
    continue; // Payloads of the layer above.
  } else if (name.startsWith("response-internal") || name.startsWith("query-internal")) {
    Deno.test(`vector ${name}: decodes and encodes again, byte for byte`, () => {
      assert.equal(toHex(again(bytes)), vector.hex);
    });
  } else {
    Deno.test(`vector ${name}: a packet decodes and its messages encode again, byte for byte`, () => {
      const { packets } = codecs(name);
      const inner: Uint8Array[] = [];
      packets.open(bytes, (packet, start, end) => inner.push(packet.slice(start, end)));
      assert.ok(inner.length > 0);
      for (const message of inner) {
        if (name.startsWith("v010")) {
          // go-msgpack 2 writes signed integers; ours are the unsigned form, which it reads.
          const own = again(message);
          assert.deepEqual(again(own), own);
        } else assert.equal(toHex(again(message)), toHex(message));
      }
      const sealed = packets.seal(inner);
      const back: Uint8Array[] = [];
      packets.open(sealed, (packet, start, end) => back.push(packet.slice(start, end)));
      assert.deepEqual(back, inner);
      if (vector.decoded.rawhex && bytes[0] === MessageType.compress && inner.length > 1) {
        assert.equal(toHex(encodeCompound(inner)), vector.decoded.rawhex);
        assert.equal(toHex(new Compressor().compress(encodeCompound(inner))), vector.hex);
      }
    });
  }
}

for (const name of ["lzw-4", "lzw-5", "lzw-6"]) {
  Deno.test(`vector ${name}: LZW is byte-identical to Go's on generated input`, () => {
    const vector = (vectors as Vector[]).find((candidate) => candidate.name === name)!;
    const { lcg_n: length, lcg_mod: mod } = vector.decoded;
    const input = new Uint8Array(length);
    let x = 1;
    for (let i = 0; i < length; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      input[i] = (x >>> 24) % mod;
    }
    assert.equal(sha256(input), vector.decoded.in_sha256);
    const packed = new LzwEncoder().encode(input);
    assert.equal(packed.length, vector.decoded.out_len);
    assert.equal(sha256(packed), vector.decoded.out_sha256);
    assert.ok(equalBytes(new LzwDecoder().decode(packed, length), input));
  });
}

Deno.test("vectors enc-udp: sealing with the same key and nonce gives the captured bytes", () => {
  const vector = (vectors as Vector[]).find((candidate) => candidate.name === "enc-udp-v1-ping")!;
  const ping = messages.encodePing({ seqNo: 5, node: "enc-a" });
  assert.equal(toHex(new Keyring([KEY]).seal(ping, { nonce: fromHex(vector.decoded.nonce) })), vector.hex);
});

Deno.test("every captured vector has its test: here, or where its payload belongs", () => {
  assert.equal(vectors.length, 78);
  const elsewhere = (vectors as Vector[]).filter(({ name, hex }) =>
    name.startsWith("hypercore-") || (!hex && !name.startsWith("lzw-"))
  );
  // Coordinates are tested beside their code, payloads of the layer above in tests/interop.
  assert.deepEqual(elsewhere.map(({ name }) => name), [
    "vivaldi",
    "hypercore-clustermessage-spawn",
    "hypercore-nodestate-complete",
  ]);
});

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
