import assert from "node:assert/strict";
import { clone } from "@bufbuild/protobuf";
import {
  type BeaconMetadata,
  BeaconMetadataSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type BeaconFacts, BeaconTeller, verifyBeacon } from "./metadata.ts";
import { memoryIdentity } from "./testing.ts";

const facts: BeaconFacts = {
  capabilities: ["arch:amd64", "runtime:runc"],
  latencyMs: 12.34567,
  jitterMs: 1.5,
  packetLossPercent: 0,
  queueDepth: 3,
  pricePerGb: 0.1,
  reputation: 0.5,
  startingReputation: 0.25,
};

Deno.test("a beacon carries what was measured, to a thousandth, and is signed", () => {
  const identity = memoryIdentity();
  const beacon = new BeaconTeller(identity).tell(facts, 1_000);
  assert.equal(beacon.beaconNodeId, identity.nodeId);
  assert.deepEqual([beacon.latencyMs, beacon.jitterMs, beacon.packetLoss], [12.346, 1.5, 0]);
  assert.deepEqual([beacon.queueDepth, beacon.pricePerGb, beacon.reputationScore], [3, 0.1, "0.5"]);
  assert.equal(verifyBeacon(beacon, identity.publicKey), true);
  assert.equal(verifyBeacon(beacon, memoryIdentity().publicKey), false);
});

Deno.test("a beacon with any field changed, by as little as a bit, is refused", () => {
  const identity = memoryIdentity();
  const genuine = new BeaconTeller(identity).tell(facts, 1_000);
  assert.equal(verifyBeacon(clone(BeaconMetadataSchema, genuine), identity.publicKey), true);
  const changes: ((beacon: BeaconMetadata) => void)[] = [
    (beacon) => beacon.beaconNodeId = beacon.beaconNodeId.replace(/.$/, "x"),
    (beacon) => beacon.nodeSignature[3] ^= 1,
    (beacon) => beacon.nodeSignature = beacon.nodeSignature.slice(1),
    (beacon) => beacon.timestamp++,
    (beacon) => beacon.reputationScore = "0.50",
    (beacon) => beacon.nodeCapabilities.push("kvm"),
    (beacon) => beacon.nodeCapabilities = [beacon.nodeCapabilities.join()],
    (beacon) => beacon.latencyMs = nextUp(beacon.latencyMs),
    (beacon) => beacon.jitterMs = nextUp(beacon.jitterMs),
    (beacon) => beacon.packetLoss = -0,
    (beacon) => beacon.packetLoss = NaN,
    (beacon) => beacon.queueDepth ^= 1,
    (beacon) => beacon.pricePerGb = nextUp(beacon.pricePerGb),
    (beacon) => beacon.startingReputation = nextUp(beacon.startingReputation),
    (beacon) => beacon.nodeCapabilities = ["\ud800"],
  ];
  for (const [i, change] of changes.entries()) {
    const changed = clone(BeaconMetadataSchema, genuine);
    change(changed);
    assert.equal(verifyBeacon(changed, identity.publicKey), false, `change ${i}`);
  }
});

Deno.test("a beacon stays as it is while nothing in it has moved far", () => {
  const teller = new BeaconTeller(memoryIdentity());
  const first = teller.tell(facts, 1_000);
  const quiet = { ...facts, latencyMs: 17.9, jitterMs: 6.4, packetLossPercent: 1.9, queueDepth: 18 };
  assert.equal(teller.tell(quiet, 9_000), first);
  for (
    const moved of [
      { latencyMs: 19 },
      { jitterMs: 6.5 },
      { packetLossPercent: 2 },
      { queueDepth: 19 },
      { pricePerGb: 0.11 },
      { reputation: 0.48 },
      { capabilities: ["arch:amd64"] },
    ]
  ) {
    const one = new BeaconTeller(memoryIdentity());
    const before = one.tell(facts, 1_000);
    const after = one.tell({ ...facts, ...moved }, 2_000);
    assert.notEqual(after, before, JSON.stringify(moved));
    assert.equal(after.timestamp, 2_000n);
  }
});

Deno.test("a new key signs the beacon anew", async () => {
  const identity = memoryIdentity();
  const teller = new BeaconTeller(identity);
  teller.tell(facts, 1_000);
  await identity.rotate(1);
  assert.equal(verifyBeacon(teller.tell(facts, 2_000), identity.publicKey), true);
});

/** The next larger double. */
function nextUp(value: number): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  view.setBigUint64(0, view.getBigUint64(0) + 1n);
  return view.getFloat64(0);
}
