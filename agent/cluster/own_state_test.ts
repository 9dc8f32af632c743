import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  BeaconMetadataSchema,
  CapacitySchema,
  TombstoneSchema,
  WorkloadProofSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import {
  HISTORY_VERSIONS,
  MAX_REASON_LENGTH,
  MAX_STATED_TOMBSTONES,
  MAX_TOLD,
  MAX_WORKLOAD_BYTES,
  QUIET_CHANGE_MS,
  TOMBSTONE_MS,
} from "./limits.ts";
import { OwnState, type OwnStateOptions } from "./own_state.ts";
import { local, sizeOf, spawnRequest, workload } from "./testing.ts";

function ownState(options: Partial<OwnStateOptions> = {}): OwnState {
  const node = { id: "a", name: "alpha", ip: "10.0.0.1" };
  return new OwnState({ node, agentVersion: "1", incarnation: 7n, ...options });
}

const at = (ms: number) => ({ steadyMs: ms, wallMs: 1_000_000 + ms });

Deno.test("rule 2a: own state's first version is whole, the next is the difference alone", () => {
  const own = ownState();
  const [first] = own.update(local([workload("a1"), workload("a2")]), at(0));
  assert.deepEqual([first.baseVersion, first.state!.version, first.state!.workloads.length], [0n, 1n, 2]);
  const [second] = own.update(
    local([workload("a1"), workload("a3"), workload("a2", { restarts: 1 })]),
    at(1),
  );
  assert.deepEqual([second.baseVersion, second.state!.version], [1n, 2n]);
  assert.deepEqual(second.state!.workloads.map(({ id }) => id), ["a3", "a2"]);
  assert.ok(second.sameHeader && second.state!.node!.name === "");
  const [third] = own.update(local([workload("a3")]), at(2));
  assert.deepEqual(third.removed.toSorted(), ["a1", "a2"]);
  assert.deepEqual(third.state!.workloads, []);
});

Deno.test("what has not changed makes no version", () => {
  const own = ownState();
  own.update(local([workload("a1")]), at(0));
  assert.deepEqual(own.update(local([workload("a1")]), at(1)), []);
  assert.equal(own.at.version, 1n);
});

Deno.test("the time of a change is that of the change, and stays", () => {
  const own = ownState();
  own.update(local([workload("a1")]), at(5));
  own.update(local([workload("a1"), workload("a2")]), at(9));
  assert.equal(own.workloads.get("a1")!.state.changedAtMs, 1_000_005n);
  assert.equal(own.workloads.get("a2")!.state.changedAtMs, 1_000_009n);
});

Deno.test("a change of capacity alone is told without workloads, one of tags with the whole header", () => {
  const own = ownState();
  own.update(local([workload("a1")]), at(0));
  const [capacity] = own.update(
    local([workload("a1")], { capacity: create(CapacitySchema, { milliCpus: 1 }) }),
    at(1),
  );
  assert.deepEqual([capacity.sameHeader, capacity.state!.capacity!.milliCpus], [true, 1]);
  const [tags] = own.update(
    local([workload("a1")], { capacity: create(CapacitySchema, { milliCpus: 1 }), tags: { zone: "b" } }),
    at(2),
  );
  assert.deepEqual([tags.sameHeader, tags.state!.tags, tags.state!.node!.name], [
    false,
    { zone: "b" },
    "alpha",
  ]);
});

Deno.test("of five hundred workloads one that changes is told alone", () => {
  const own = ownState();
  const all = Array.from({ length: 500 }, (_, i) => workload(`w${i}`));
  own.update(local(all), at(0));
  const updates = own.update(local(all.with(7, workload("w7", { status: "backing-off" }))), at(1));
  assert.deepEqual(updates.map(({ state }) => state!.workloads.map(({ id }) => id)), [["w7"]]);
});

Deno.test("a change of several workloads takes several packets; one of too many is not told but fetched", () => {
  const own = ownState();
  own.update(local([]), at(0));
  const few = Array.from({ length: 60 }, (_, i) => workload(`w${i}`));
  const updates = own.update(local(few), at(1));
  assert.ok(updates.length > 1 && updates.length <= 8);
  assert.deepEqual(updates.map(({ baseVersion }) => baseVersion), updates.map((_, i) => BigInt(i + 1)));
  const before = own.at;
  assert.deepEqual(own.update(local(Array.from({ length: 300 }, (_, i) => workload(`v${i}`))), at(2)), []);
  assert.equal(own.at.version, before.version + 1n);
  const difference = own.since(before);
  assert.equal(difference.state!.workloads.length, 300);
  assert.equal(difference.removed.length, 60);
});

Deno.test("a difference goes back as far as the history, and no further", () => {
  const own = ownState();
  own.update(local([workload("a1")]), at(0));
  const first = own.at;
  for (let i = 1; i < HISTORY_VERSIONS; i++) own.update(local([workload("a1", { restarts: i })]), at(i));
  assert.equal(own.since(first).baseVersion, 1n);
  own.update(local([workload("a1", { restarts: 1 })]), at(1));
  own.update(local([workload("a1", { restarts: 2 })]), at(1));
  assert.equal(own.since(first).baseVersion, 0n);
  assert.equal(own.since({ incarnation: 6n, version: own.at.version }).baseVersion, 0n);
  assert.equal(own.since({ incarnation: 7n, version: own.at.version + 1n }).baseVersion, 0n);
  const nothing = own.since(own.at);
  assert.deepEqual([nothing.baseVersion, nothing.state!.workloads], [own.at.version, []]);
});

Deno.test("proofs and beacon data make a version of their own once a minute at most", () => {
  const own = ownState();
  const proof = (hash: string) => create(WorkloadProofSchema, { proofHash: hash });
  own.update(local([workload("a1", { proof: proof("x") })]), at(0));
  assert.deepEqual(own.update(local([workload("a1", { proof: proof("y") })]), at(10)), []);
  assert.equal(own.quietDueMs, QUIET_CHANGE_MS);
  const changedAtMs = own.workloads.get("a1")!.state.changedAtMs;
  const [later] = own.update(local([workload("a1", { proof: proof("y") })]), at(QUIET_CHANGE_MS));
  assert.equal(later.state!.workloads[0].proof!.proofHash, "y");
  assert.equal(later.state!.workloads[0].changedAtMs, changedAtMs);
  const beacon = create(BeaconMetadataSchema, { latencyMs: 3 });
  const quiet = local([workload("a1", { proof: proof("y") })], { beacon });
  assert.deepEqual(own.update(quiet, at(QUIET_CHANGE_MS + 1)), []);
  assert.equal(own.update(quiet, at(2 * QUIET_CHANGE_MS))[0].state!.beacon!.latencyMs, 3);
  // But what a node can do and what it costs is told at once.
  const able = {
    ...quiet,
    beacon: create(BeaconMetadataSchema, { latencyMs: 3, nodeCapabilities: ["kvm"] }),
  };
  const [told] = own.update(able, at(2 * QUIET_CHANGE_MS + 1));
  assert.deepEqual(told.state!.beacon!.nodeCapabilities, ["kvm"]);
});

Deno.test("values of the environment and policies are never told, and a long request is cut; all are marked", () => {
  const own = ownState();
  const args = [...Array(900)].map(() => "argument");
  own.update(
    local([
      workload("a1", { sourceRequest: spawnRequest({ env: ["KEY=secret"] }), reason: "x".repeat(9_999) }),
      workload("a2", { sourceRequest: spawnRequest({ args }) }),
      workload("a3"),
      workload("a4", {
        sourceRequest: spawnRequest({ policyJson: '{"name":"own"}', labels: { team: "a" } }),
      }),
      workload("a5", { sourceRequest: spawnRequest({ args, labels: { team: "a" } }) }),
    ]),
    at(0),
  );
  const [a1, a2, a3, a4, a5] = ["a1", "a2", "a3", "a4", "a5"].map((id) => own.workloads.get(id)!.state);
  assert.deepEqual([a1.sourceRequest!.env, a1.requestIsCut, a1.reason.length], [
    ["KEY=***"],
    true,
    MAX_REASON_LENGTH,
  ]);
  assert.deepEqual([a2.sourceRequest!.args, a2.requestIsCut], [[], true]);
  assert.ok(sizeOf(a2) <= MAX_WORKLOAD_BYTES && a2.sourceRequest!.ports[80] === 8080);
  assert.equal(a3.requestIsCut, false);
  assert.deepEqual([a4.sourceRequest!.policyJson, a4.requestIsCut], ["", true]);
  for (const { sourceRequest } of [a4, a5]) assert.deepEqual(sourceRequest!.labels, { team: "a" });
});

Deno.test("tombstones are part of the state, bounded and for a day", () => {
  const own = ownState();
  own.update(local([]), at(0));
  const bury = (id: string, wallMs: number) =>
    own.bury(create(TombstoneSchema, { id, generation: 1n, stoppedAtMs: BigInt(wallMs) }), wallMs);
  const [update] = bury("t0", 1_000);
  assert.deepEqual(update.state!.tombstones.map(({ id }) => id), ["t0"]);
  for (let i = 1; i <= MAX_STATED_TOMBSTONES; i++) bury(`t${i}`, 1_000);
  assert.equal([...own.tombstones].length, MAX_STATED_TOMBSTONES);
  bury("late", 1_000 + TOMBSTONE_MS);
  assert.deepEqual(Array.from(own.tombstones, ({ id }) => id), ["late"]);
});

Deno.test("an incarnation that others hold of this node is outbid", () => {
  const own = ownState();
  own.update(local([workload("a1")]), at(0));
  own.outbid(100n, 1_000);
  assert.equal(own.at.incarnation, 101n);
  assert.equal(own.since({ incarnation: 7n, version: 1n }).baseVersion, 0n);
  assert.equal(own.whole().state!.incarnation, 101n);
});

Deno.test("hundreds who ask for the same are answered from one signature; after a change it is another", () => {
  let signed = 0;
  const sign = () => `signature ${++signed}`;
  const own = ownState({ signer: { publicKey: new Uint8Array(32), rotations: [], sign } });
  own.update(local([workload("a1")]), at(0));
  const base = own.at;
  own.update(local([workload("a1"), workload("a2")]), at(1));
  const before = signed;
  const answers = Array.from({ length: 100 }, () => [own.whole(), own.since(base)]);
  assert.equal(signed, before + 2);
  assert.equal(new Set(answers.map(([whole]) => whole)).size, 1);
  assert.deepEqual(answers[99][1].state!.workloads.map(({ id }) => id), ["a2"]);
  own.update(local([workload("a2")]), at(2));
  assert.deepEqual(own.whole().state!.workloads.map(({ id }) => id), ["a2"]);
  assert.deepEqual([own.since(base).state!.version, own.since(base).removed], [3n, ["a1"]]);
  own.bury(create(TombstoneSchema, { id: "a1", generation: 1n, stoppedAtMs: 1_000_000n }), 1_000_002);
  assert.deepEqual(own.whole().state!.tombstones.map(({ id }) => id), ["a1"]);
  own.outbid(9n, 1_000_003);
  assert.equal(own.whole().state!.incarnation, 10n);
});

Deno.test("answers about one version are kept for so many who ask differently, and no more", () => {
  const own = ownState();
  for (let i = 0; i <= MAX_TOLD; i++) own.update(local([workload(`a${i}`)]), at(i));
  const since = (version: number) => own.since({ incarnation: 7n, version: BigInt(version) });
  const first = since(1);
  for (let version = 2; version <= MAX_TOLD; version++) since(version);
  assert.equal(since(1), first);
  own.whole();
  assert.notEqual(since(1), first);
  assert.deepEqual(since(1), first);
});
