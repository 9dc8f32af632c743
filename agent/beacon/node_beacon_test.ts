import assert from "node:assert/strict";
import { silentLog } from "../../runtime/log.ts";
import { create } from "@bufbuild/protobuf";
import { NodeStateResponseSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import type { NodeSummary } from "../cluster/reads.ts";
import { idBytes } from "./node_id.ts";
import { MIN_LOSS_SAMPLES, type ProbeResult } from "./line_quality.ts";
import { verifyBeacon } from "./metadata.ts";
import { NodeBeacon } from "./node_beacon.ts";
import { memoryIdentity } from "./testing.ts";

const engine = {
  runtimes: () => Promise.resolve(["runc"]),
  health: () => Promise.resolve({ version: "1.7.24" }),
};

/** The id of a peer of a test. */
const idOf = (name: string) => `00000000-0000-8000-8000-${name.charCodeAt(0).toString(16).padStart(12, "0")}`;

const member = (name: string): ClusterMember => {
  return { id: idOf(name), name, status: "alive", address: { host: "::1", port: 1 }, tags: {} };
};

/** A beacon among peers whose probes a test makes up. */
async function beaconAmong(peers: Record<string, number>, nodes: NodeSummary[] = []) {
  let probed: (outcome: ProbeResult) => void = () => {};
  let happened: (member: ClusterMember, what: string) => void = () => {};
  const queueDepth = { total: 0 };
  const identity = memoryIdentity();
  const changes = { count: 0 };
  const beacon = await NodeBeacon.open({
    identity,
    nodeName: "n1",
    version: "test",
    engine,
    config: { pricePerGb: 0.25, reputation: 0.7 },
    onChange: () => changes.count++,
    log: silentLog,
  });
  beacon.connect({
    serf: {
      queueDepth,
      listenProbes(listener) {
        probed = listener;
        return () => {};
      },
      rttMs: (name) => peers[name],
      isAlive: (name) => name in peers,
    },
    named: (name) => member(name),
    listen({ memberEvent }) {
      happened = memberEvent!;
      return () => {};
    },
  }, { nodes: () => nodes });
  return {
    beacon,
    identity,
    changes,
    queueDepth,
    probe: (node: string, rttMs?: number) =>
      probed({ node, via: rttMs === undefined ? "failed" : "direct", rttMs }),
    fails: (name: string) => happened(member(name), "failed"),
  };
}

/** What is measured of the line to a peer. */
function line(beacon: NodeBeacon, name: string) {
  const { reputation: _reputation, ...figures } = beacon.measured({
    id: idOf(name),
    name,
    header: undefined,
    isVerified: true,
  });
  return figures;
}

Deno.test("a beacon says what its probes measured, what the machine can do and what the operator asks", async () => {
  const { beacon, identity, changes, queueDepth, probe, fails } = await beaconAmong({ b: 3, c: 4 });
  await using _beacon = beacon;
  const first = beacon.metadata();
  assert.ok(verifyBeacon(first, identity.publicKey));
  assert.ok(first.nodeCapabilities.includes("runtime:runc"));
  assert.ok(first.nodeCapabilities.includes("containerd:1.7.24"));
  assert.deepEqual([first.pricePerGb, first.reputationScore, first.latencyMs], [0.25, "0.7", 0]);

  for (let i = 0; i < 2 * MIN_LOSS_SAMPLES; i++) probe("b", i % 2 ? 40 : undefined);
  queueDepth.total = 100;
  beacon.refresh();
  const second = beacon.metadata();
  assert.deepEqual([second.latencyMs, second.packetLoss, second.queueDepth], [40, 50, 100]);
  assert.equal(changes.count, 1);
  assert.deepEqual(line(beacon, "b"), { latencyMs: 40, jitterMs: 0, packetLossPercent: 50 });
  assert.deepEqual(line(beacon, "c"), { latencyMs: 4 });
  assert.deepEqual(line(beacon, "nobody"), {});

  fails("b");
  beacon.refresh();
  assert.deepEqual([beacon.metadata().latencyMs, beacon.metadata().packetLoss], [0, 0]);
});

Deno.test("a beacon has nothing new to say while nothing moves", async () => {
  const { beacon, changes, probe } = await beaconAmong({ b: 3 });
  await using _beacon = beacon;
  for (let i = 0; i < 20; i++) probe("b", 3);
  beacon.refresh();
  const told = beacon.metadata();
  const before = changes.count;
  for (let i = 0; i < 1_000; i++) {
    probe("b", 2 + (i % 3));
    beacon.refresh();
  }
  assert.equal(beacon.metadata(), told);
  // How much it saw of the other is told each time that it is twice as much: 1, 2, 4, 8, 16 and 32.
  assert.ok(changes.count - before <= 6, `${changes.count - before} changes`);
});

/** A node whose state says these observations. */
function speaker(name: string, of: Record<string, number>, init: Partial<NodeSummary> = {}): NodeSummary {
  const observations = Object.entries(of).map(([subject, score]) => {
    return { nodeId: idBytes(idOf(subject)), score, weight: 100 };
  });
  return {
    id: idOf(name),
    name,
    isSelf: false,
    kind: "hypercore",
    life: "live",
    member: member(name),
    header: create(NodeStateResponseSchema, { beacon: { startingReputation: 0.5 }, observations }),
    workloads: 0,
    isVerified: true,
    ...init,
  };
}

Deno.test("what a node saw goes into its state, and what others say counts where their states are verified", async () => {
  const nodes = [
    speaker("b", { x: 0 }),
    speaker("c", { x: 100 }),
    speaker("d", { x: 1_000 }, { isVerified: false }),
    speaker("e", { x: 1_000 }, { life: "failed" }),
  ];
  const { beacon, probe, changes } = await beaconAmong({ b: 1, c: 1 }, nodes);
  await using _beacon = beacon;
  const x = speaker("x", {});
  assert.equal(beacon.measured(x).reputation, 0.5);
  // Who has no identity has no reputation: it would leave a bad one behind with its name.
  assert.equal("reputation" in beacon.measured({ ...x, isVerified: false }), false);
  beacon.refresh();
  assert.equal(beacon.judge(x).observers, 2);
  assert.ok(beacon.measured(x).reputation! < 0.45);
  const before = changes.count;
  for (let i = 0; i < 10; i++) beacon.note(idOf("b"), "spawn-kept");
  for (let i = 0; i < 10; i++) probe("c");
  beacon.refresh();
  assert.ok(changes.count > before);
  const shared = beacon.observations();
  assert.deepEqual(shared.map(({ nodeId, score }) => [nodeId.at(-1), score]), [
    ["c".charCodeAt(0), 0],
    ["b".charCodeAt(0), 1_000],
  ]);
  beacon.refresh();
  assert.equal(beacon.observations(), shared);
});
