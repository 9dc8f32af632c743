import assert from "node:assert/strict";
import { silentLog } from "../../runtime/log.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { MIN_LOSS_SAMPLES, type ProbeResult } from "./line_quality.ts";
import { verifyBeacon } from "./metadata.ts";
import { NodeBeacon } from "./node_beacon.ts";
import { memoryIdentity } from "./testing.ts";

const engine = {
  runtimes: () => Promise.resolve(["runc"]),
  health: () => Promise.resolve({ version: "1.7.24" }),
};

/** A beacon among peers whose probes a test makes up. */
async function beaconAmong(peers: Record<string, number>) {
  let probed: (outcome: ProbeResult) => void = () => {};
  let happened: (member: ClusterMember, what: string) => void = () => {};
  const queueDepth = { total: 0 };
  const identity = memoryIdentity();
  const changes = { count: 0 };
  const beacon = await NodeBeacon.open({
    identity,
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
    listen({ memberEvent }) {
      happened = memberEvent!;
      return () => {};
    },
  });
  return {
    beacon,
    identity,
    changes,
    queueDepth,
    probe: (node: string, rttMs?: number) =>
      probed({ node, via: rttMs === undefined ? "failed" : "direct", rttMs }),
    fails: (name: string) =>
      happened({ id: name, name, status: "failed", address: { host: "::1", port: 1 }, tags: {} }, "failed"),
  };
}

Deno.test("a beacon says what its probes measured, what the machine can do and what the operator asks", async () => {
  const { beacon, identity, changes, queueDepth, probe, fails } = await beaconAmong({ b: 3, c: 4 });
  using _beacon = beacon;
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
  assert.deepEqual(beacon.measured("b"), { latencyMs: 40, jitterMs: 0, packetLossPercent: 50 });
  assert.deepEqual(beacon.measured("c"), { latencyMs: 4 });
  assert.deepEqual(beacon.measured("nobody"), {});

  fails("b");
  beacon.refresh();
  assert.deepEqual([beacon.metadata().latencyMs, beacon.metadata().packetLoss], [0, 0]);
});

Deno.test("a beacon has nothing new to say while nothing moves", async () => {
  const { beacon, changes, probe } = await beaconAmong({ b: 3 });
  using _beacon = beacon;
  for (let i = 0; i < 20; i++) probe("b", 3);
  beacon.refresh();
  const told = beacon.metadata();
  const before = changes.count;
  for (let i = 0; i < 100; i++) {
    probe("b", 2 + (i % 3));
    beacon.refresh();
  }
  assert.equal(beacon.metadata(), told);
  assert.equal(changes.count, before);
});
