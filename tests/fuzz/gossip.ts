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
import { publicOf, sealRing } from "../../gossip/codec/sealed_ring.ts";
import {
  decodeSerfPushPull,
  emptySerfPushPull,
  encodeSerfPushPull,
  readKeyring,
} from "../../gossip/codec/serf_push_pull.ts";
import { StreamCodec } from "../../gossip/codec/stream.ts";
import { decodeTags } from "../../gossip/codec/tags.ts";
import { Endpoint } from "../../gossip/endpoint.ts";
import { type Random, seededRandom } from "../../gossip/random.ts";
import { Re2 } from "../../gossip/regexp/match.ts";
import { RegExpError } from "../../gossip/regexp/parse.ts";
import { World } from "../sim/world.ts";
import { AllocationMeter, weigh } from "./allocation.ts";

/** Output bound given to LZW in the fuzzer. */
const LZW_LIMIT = 64 * 1024;
/** A fresh core after this many packets, so that what one did does not pile up. */
const CORE_PACKETS = 20_000;
const KEY = Uint8Array.from({ length: 16 }, (_, i) => i);

/** Bytes that a decoder may allocate for each byte of its input, and besides. */
const BYTES_PER_BYTE = 256;
const BYTES_BESIDES = 64 * 1024;
/** The same for what unpacks: LZW makes up to this many bytes of one, within its limit; buffers grow by doubling. */
const LZW_BYTES_PER_BYTE = 4_096;
const GROWTH = 4;

const SECRET = Uint8Array.from({ length: 32 }, (_, i) => 40 + i);

/** A decoder; gives what it decoded, if anything. */
type Decode = (bytes: Uint8Array) => unknown;

interface Target {
  decode: Decode;
  /** What it may unpack; 0 where it unpacks nothing. */
  unpacks: number;
}

/** What the fuzzer found: how many inputs were taken and refused. */
export interface FuzzReport {
  cases: number;
  accepted: number;
  refused: number;
  /** Bytes that one case allocated at most. */
  mostBytes: number;
}

/**
 * Feeds `cases` damaged messages to every decoder and to a whole core. Throws the first error that is not the typed
 * one, and where more memory is allocated than the input may cost, with the input in hex.
 */
export function fuzzGossip(options: { seed: number; cases: number }): FuzzReport {
  using meter = new AllocationMeter();
  const random = seededRandom(options.seed);
  const corpus = vectors.map((vector) => vector.hex).filter((hex) => hex).map((hex) => fromHex(hex!));
  corpus.push(...ownForms(random));
  const targets = makeTargets(random, meter);
  const report: FuzzReport = { cases: options.cases, accepted: 0, refused: 0, mostBytes: 0 };
  for (let i = 0; i < options.cases; i++) {
    const bytes = damage(corpus[random.int(corpus.length)], corpus, random);
    const target = targets[i % targets.length];
    const where = () => `decoder ${i % targets.length}, "${hex(bytes)}", seed ${options.seed}, case ${i}`;
    let decoded: unknown;
    meter.reset();
    try {
      decoded = target.decode(bytes);
      report.accepted++;
    } catch (cause) {
      if (!(cause instanceof DecodeError) && !(cause instanceof RegExpError)) {
        throw new Error(`A decoder throws something else: ${where()}`, { cause });
      }
      report.refused++;
    }
    const allocated = meter.bytes + weigh(decoded, bytes);
    report.mostBytes = Math.max(report.mostBytes, allocated);
    if (allocated > allowance(target, bytes.length)) {
      throw new Error(`${allocated} bytes were allocated for ${bytes.length}: ${where()}`);
    }
  }
  return report;
}

/** Bytes that a decoder may allocate for an input of `length` bytes. */
function allowance({ unpacks }: Target, length: number): number {
  const unpacked = Math.min(unpacks, LZW_BYTES_PER_BYTE * length);
  return BYTES_BESIDES + BYTES_PER_BYTE * length + GROWTH * unpacked;
}

/** What no captured agent sends: the parts of a push/pull that are ours, and a ring sealed for one node. */
function ownForms(random: Random): Uint8Array[] {
  const keyring = { version: 3, keys: [KEY], retired: [random.bytes(32)] };
  const sealedRing = sealRing(keyring, { to: publicOf(SECRET), secret: random.bytes(32), random });
  const doors: [string, Uint8Array][] = [["away", random.bytes(32)]];
  return [sealedRing, encodeSerfPushPull({ ...emptySerfPushPull(), keyring, sealedRing, doors, from: "n" })];
}

function makeTargets(random: Random, meter: AllocationMeter): Target[] {
  const lzw = new LzwDecoder();
  const reader = new MsgpackReader({ strings: rememberStrings() });
  const plain = new StreamCodec({ random });
  const sealed = new StreamCodec({ random, keyring: new Keyring([KEY]) });
  const from = new Endpoint(new Uint8Array([10, 0, 0, 2]), 7946);
  let world = new World({ seed: 1, nodes: 3, profile: "lan", eager: true });
  let taken = 0;
  const core: Decode = (bytes) => {
    if (taken++ % CORE_PACKETS === 0) {
      world = new World({ seed: taken, nodes: 3, profile: "lan", eager: true });
      world.startKnown();
      meter.reset();
    }
    const [node] = world.nodes;
    const error = node.core.memberlist.receivePacket(world.nowMs + taken, from, bytes);
    node.core.memberlist.tick(world.nowMs + taken);
    node.core.memberlist.takeEffects();
    node.core.takeEvents();
    if (error) throw error;
  };
  const stream = (codec: StreamCodec): Decode => (bytes) => {
    const whole = codec.reader({ accepted: true });
    const middle = random.int(bytes.length + 1);
    const message = whole.push(bytes.subarray(0, middle)) ?? whole.push(bytes.subarray(middle));
    if (message?.kind !== "pushPull") return message;
    if (message.message.nodes.length > bytes.length) {
      throw new Error("more nodes were decoded than there were bytes");
    }
    const [target] = world.nodes;
    target.core.memberlist.receiveStream(world.nowMs, 1, message);
    target.core.memberlist.takeEffects();
    target.core.takeEvents();
  };
  const packed = (decode: (reader: MsgpackReader) => unknown): Target => ({
    decode: (bytes) => decode(reader.reset(bytes, Math.min(1, bytes.length))),
    unpacks: 0,
  });
  const packets = { decode: core, unpacks: LIMITS.decompressedPacketBytes };
  const plainly = (decode: Decode): Target => ({ decode, unpacks: 0 });
  return [
    packets,
    packets,
    packets,
    packets,
    { decode: stream(plain), unpacks: LIMITS.streamBytes },
    { decode: stream(sealed), unpacks: LIMITS.streamBytes },
    { decode: (bytes) => lzw.decode(bytes, LZW_LIMIT), unpacks: LZW_LIMIT },
    packed(decodePushPull),
    packed(decodeSerfPushPull),
    packed(readKeyring),
    packed(decodeConflictResponse),
    packed(decodeKeyResponse),
    packed(decodeRelayHeader),
    plainly((bytes) => decodeFilter(bytes)),
    plainly((bytes) => decodeTags(bytes)),
    plainly((bytes) => new Re2(new TextDecoder().decode(bytes.subarray(0, 64))).test("web-1")),
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
