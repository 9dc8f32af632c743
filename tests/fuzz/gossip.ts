import vectors from "../../gossip/testdata/vectors.json" with { type: "json" };
import { DecodeError } from "../../gossip/codec/error.ts";
import { decodeFilter } from "../../gossip/codec/filter.ts";
import { Keyring } from "../../gossip/codec/keyring.ts";
import { LIMITS } from "../../gossip/codec/limits.ts";
import { LzwDecoder } from "../../gossip/codec/lzw.ts";
import { MsgpackReader, rememberStrings } from "../../gossip/codec/msgpack_reader.ts";
import { decodePushPull } from "../../gossip/codec/push_pull.ts";
import {
  decodeConflictResponse,
  decodeKeyResponse,
  decodeRelayHeader,
} from "../../gossip/codec/serf_internal.ts";
import { decodeSerfPushPull } from "../../gossip/codec/serf_push_pull.ts";
import { StreamCodec } from "../../gossip/codec/stream.ts";
import { decodeTags } from "../../gossip/codec/tags.ts";
import { Endpoint } from "../../gossip/endpoint.ts";
import { type Random, seededRandom } from "../../gossip/random.ts";
import { Re2 } from "../../gossip/regexp/match.ts";
import { RegExpError } from "../../gossip/regexp/parse.ts";
import { World } from "../sim/world.ts";

/** Output bound given to LZW in the fuzzer. */
const LZW_LIMIT = 64 * 1024;
/** A fresh core after this many packets, so that what one did does not pile up. */
const CORE_PACKETS = 20_000;
const KEY = Uint8Array.from({ length: 16 }, (_, i) => i);

type Target = (bytes: Uint8Array) => void;

/** What the fuzzer found: how many inputs were taken and refused. */
export interface FuzzReport {
  cases: number;
  accepted: number;
  refused: number;
}

/**
 * Feeds `cases` damaged messages to every decoder and to a whole core. Throws the first error that is not the typed
 * one, with the input in hex.
 */
export function fuzzGossip(options: { seed: number; cases: number }): FuzzReport {
  const random = seededRandom(options.seed);
  const corpus = vectors.map((vector) => vector.hex).filter((hex) => hex).map((hex) => fromHex(hex!));
  const targets = makeTargets(random);
  const report: FuzzReport = { cases: options.cases, accepted: 0, refused: 0 };
  for (let i = 0; i < options.cases; i++) {
    const bytes = damage(corpus[random.int(corpus.length)], corpus, random);
    try {
      targets[i % targets.length](bytes);
      report.accepted++;
    } catch (cause) {
      if (!(cause instanceof DecodeError) && !(cause instanceof RegExpError)) {
        const target = i % targets.length;
        throw new Error(`Decoder ${target} throws on "${hex(bytes)}" (seed ${options.seed}, case ${i})`, {
          cause,
        });
      }
      report.refused++;
    }
  }
  return report;
}

function makeTargets(random: Random): Target[] {
  const lzw = new LzwDecoder();
  const reader = new MsgpackReader({ strings: rememberStrings() });
  const plain = new StreamCodec({ random });
  const sealed = new StreamCodec({ random, keyring: new Keyring([KEY]) });
  const from = new Endpoint(new Uint8Array([10, 0, 0, 2]), 7946);
  let world = new World({ seed: 1, nodes: 3, profile: "lan", eager: true });
  let packets = 0;
  const core: Target = (bytes) => {
    if (packets++ % CORE_PACKETS === 0) {
      world = new World({ seed: packets, nodes: 3, profile: "lan", eager: true });
      world.startKnown();
    }
    const [node] = world.nodes;
    const error = node.core.memberlist.receivePacket(world.nowMs + packets, from, bytes);
    node.core.memberlist.tick(world.nowMs + packets);
    node.core.memberlist.takeEffects();
    node.core.takeEvents();
    if (error) throw error;
  };
  const stream = (codec: StreamCodec): Target => (bytes) => {
    const whole = codec.reader({ accepted: true });
    const middle = random.int(bytes.length + 1);
    const message = whole.push(bytes.subarray(0, middle)) ?? whole.push(bytes.subarray(middle));
    if (message?.kind !== "pushPull") return;
    node(message.message.nodes.length);
    const [target] = world.nodes;
    target.core.memberlist.receiveStream(world.nowMs, 1, message);
    target.core.memberlist.takeEffects();
    target.core.takeEvents();
  };
  const node = (count: number) => {
    if (count > LIMITS.pushPullNodes) throw new Error(`${count} nodes were decoded`);
  };
  const packed = (decode: (reader: MsgpackReader) => unknown): Target => (bytes) => {
    decode(reader.reset(bytes, Math.min(1, bytes.length)));
  };
  return [
    core,
    core,
    core,
    core,
    stream(plain),
    stream(sealed),
    (bytes) => {
      const out = lzw.decode(bytes, LZW_LIMIT);
      if (out.length > LZW_LIMIT) throw new Error(`LZW gave ${out.length} bytes`);
    },
    packed(decodePushPull),
    packed(decodeSerfPushPull),
    packed(decodeConflictResponse),
    packed(decodeKeyResponse),
    packed(decodeRelayHeader),
    (bytes) => decodeFilter(bytes),
    (bytes) => decodeTags(bytes),
    (bytes) => new Re2(new TextDecoder().decode(bytes.subarray(0, 64))).test("web-1"),
  ];
}

function damage(original: Uint8Array, corpus: readonly Uint8Array[], random: Random): Uint8Array {
  let bytes: Uint8Array = original.slice();
  for (let rounds = 1 + random.int(3); rounds > 0; rounds--) {
    const at = random.int(bytes.length + 1);
    switch (random.int(7)) {
      case 0:
        bytes = bytes.slice(0, at);
        break;
      case 1:
        if (at < bytes.length) bytes[at] = random.int(256);
        break;
      case 2:
        if (at < bytes.length) bytes[at] ^= 1 << random.int(8);
        break;
      case 3:
        bytes = join(bytes.subarray(0, at), random.bytes(1 + random.int(8)), bytes.subarray(at));
        break;
      case 4:
        bytes = join(bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random.int(8))));
        break;
      case 5: {
        const other = corpus[random.int(corpus.length)];
        bytes = join(bytes.subarray(0, at), other.subarray(random.int(other.length + 1)));
        break;
      }
      case 6:
        // A msgpack tag that announces a lot.
        if (at < bytes.length) bytes[at] = [0xdf, 0xdd, 0xdb, 0xc6, 0xde, 0xdc, 0xcf, 0xd3][random.int(8)];
        break;
    }
  }
  return bytes;
}

function join(...parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

if (import.meta.main) {
  const cases = Number(Deno.args[0] ?? 20_000_000);
  const seed = Number(Deno.args[1] ?? Math.floor(Math.random() * 0x7fff_ffff));
  console.log(JSON.stringify({ seed, ...fuzzGossip({ seed, cases }) }));
}
