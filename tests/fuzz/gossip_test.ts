import assert from "node:assert/strict";
import { Compressor } from "../../gossip/codec/compress.ts";
import { LIMITS } from "../../gossip/codec/limits.ts";
import { PacketCodec } from "../../gossip/codec/packet.ts";
import { encodeCompound } from "../../gossip/codec/compound.ts";
import { DecodeError } from "../../gossip/codec/error.ts";
import { seededRandom } from "../../gossip/random.ts";
import { AllocationMeter, weigh } from "./allocation.ts";
import { fuzzGossip } from "./gossip.ts";

Deno.test("a million damaged messages give nothing but the typed decode error, and cost no more memory than they may", () => {
  const report = fuzzGossip({ seed: 20261124, cases: 1_000_000 });
  assert.ok(report.accepted > 1_000, "the damage is so great that nothing gets past the first check");
  assert.ok(report.refused > 1_000, "the damage is so small that nothing is refused");
});

Deno.test("the meter sees what is allocated and lost again, and gives the constructor back", () => {
  const original = Uint8Array;
  {
    using meter = new AllocationMeter();
    assert.ok(new Uint8Array(1_000) instanceof original);
    assert.equal(meter.bytes, 1_000);
  }
  assert.equal(Uint8Array, original);
  const input = new Uint8Array(100);
  assert.ok(weigh({ own: new Uint8Array(5_000) }, input) > 5_000);
  assert.ok(weigh({ shared: input.subarray(10) }, input) < 200);
});

Deno.test("a packet of many bombs unpacks no more than one may", () => {
  const bomb = new Compressor().compress(new Uint8Array(100_000));
  const packet = encodeCompound(Array.from({ length: 100 }, () => bomb));
  assert.ok(packet.length < LIMITS.packetBytes);
  const codec = new PacketCodec({ random: seededRandom(1) });
  using meter = new AllocationMeter();
  assert.throws(() => codec.open(packet, () => {}), DecodeError);
  assert.ok(meter.bytes < 8 * LIMITS.decompressedPacketBytes, `${meter.bytes} bytes were allocated`);
});
