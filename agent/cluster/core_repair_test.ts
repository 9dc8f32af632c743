import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { NodeStateResponseSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { encodeFragments } from "./go_fragments.ts";
import { HEARTBEAT_MS, QUORUM_REGAINED_MS, TAKEOVER_MS } from "./limits.ts";
import { GOSSIP } from "./tags.ts";
import { Bench, core, local, member, spawnRequest, START_MS, workload } from "./testing.ts";

const secret = (generation = 1n) =>
  workload("aaaaaaaaaaaa", { generation, sourceRequest: spawnRequest({ env: ["KEY=***"] }) });

Deno.test("rule 3e: a tombstone outlives the node that stated it, and reaches who slept through both", () => {
  const bench = new Bench();
  const [a, b] = ["a", "b", "c", "d"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  bench.cut.add("a");
  bench.setStatus("a", "failed");
  bench.feed("b", b.tombstone(bench.nowMs, { id: "aaaaaaaaaaaa", generation: 1n }));
  bench.advance(5_000);
  bench.cut.add("b");
  bench.setStatus("b", "failed");
  bench.advance(5_000);
  bench.cut.delete("a");
  bench.setStatus("a", "alive");
  bench.advance(60_000);
  assert.ok(bench.seen("a", "end-stopped").length > 0);
});

Deno.test("rule 3e: a tombstone holds for every generation", () => {
  const bench = new Bench();
  const [a, b] = ["a", "b"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa", { generation: 9n })])));
  bench.feed("b", b.tombstone(bench.nowMs, { id: "aaaaaaaaaaaa", generation: 1n }));
  bench.advance(1_000);
  assert.deepEqual(bench.seen("a", "end-stopped").map(({ id, generation }) => [id, generation]), [
    ["aaaaaaaaaaaa", 9n],
  ]);
  assert.equal(bench.cores.get("a")!.isStopped("aaaaaaaaaaaa"), true);
});

Deno.test("tombstones from disk are stated again by the next life of an agent", () => {
  const before = core("a");
  before.tombstone(START_MS, { id: "aaaaaaaaaaaa", generation: 1n });
  const again = core("a", { incarnation: 2_000n, tombstones: before.tombstones() });
  assert.deepEqual(again.ownUpdate().state!.tombstones.map(({ id }) => id), ["aaaaaaaaaaaa"]);
  assert.throws(() => core("a", { tombstones: "damaged" }), /Cannot read the tombstones/);
});

Deno.test("a workload with secrets is given in trust, and started elsewhere with all of them", () => {
  const bench = new Bench();
  const [a] = ["a", "b", "c", "d", "e"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([secret()])));
  bench.advance(1_000);
  const [{ id, to }] = bench.seen("a", "entrust");
  assert.deepEqual([id, to.length], ["aaaaaaaaaaaa", 3]);
  const request = spawnRequest({ env: ["KEY=value"] });
  for (const nodeId of to) {
    const { effects, refusal } = bench.cores.get(nodeId)!.entrusted(bench.nowMs, {
      id,
      ownerNodeId: "a",
      request,
    });
    assert.equal(refusal, undefined);
    bench.feed(nodeId, effects);
    bench.feed("a", a.entrustDone(bench.nowMs, { id, nodeId }));
  }
  bench.cut.add("a");
  bench.setStatus("a", "failed");
  bench.advance(4_000);
  const [start] = bench.log.filter(({ effect }) => effect.kind === "reschedule");
  assert.equal(start.nodeId, to[0]);
  assert.ok(start.effect.kind === "reschedule");
  assert.deepEqual(start.effect.request.env, ["KEY=value"]);
});

Deno.test("a workload whose secrets were given to nobody is not started elsewhere; a note says why", () => {
  const bench = new Bench();
  const [a] = ["a", "b"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([secret()])));
  bench.advance(1_000);
  bench.cut.add("a");
  bench.setStatus("a", "failed");
  bench.advance(120_000);
  assert.equal(bench.seen("b", "reschedule").length, 0);
  const notes = bench.seen("b", "note").filter(({ text }) => text.includes("not given in trust"));
  assert.equal(notes.length, 1);
});

/** Five nodes that ask for a majority; of these some fail one after the other. */
function failing(...failed: string[]) {
  const bench = new Bench();
  for (const id of ["a", "b", "c", "d", "e"]) bench.add(id, { respawnQuorum: "majority" });
  bench.feed("a", bench.cores.get("a")!.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  for (const id of failed) bench.cut.add(id);
  for (const id of failed) {
    bench.setStatus(id, "failed");
    bench.advance(4_000);
  }
  const started = () => bench.log.filter(({ effect }) => effect.kind === "reschedule").length;
  return { bench, started };
}

Deno.test("rule 4d: with a majority asked for, the smaller side starts nothing, not even before it has noticed", () => {
  const { bench, started } = failing("a", "b", "c");
  assert.equal(started(), 0);
  bench.advance(120_000);
  assert.equal(started(), 0);
});

Deno.test("rule 4d: with a majority asked for, the larger side acts once most were heard since the death, one of them", () => {
  const { bench, started } = failing("a", "b");
  for (let waitedMs = 0; started() === 0; waitedMs += 500) {
    assert(waitedMs < HEARTBEAT_MS, "within a heartbeat");
    bench.advance(500);
  }
  assert.equal(started(), 1);
});

Deno.test("rule 4d: a smaller side that becomes the larger waits for who else comes back", () => {
  for (const isBack of [true, false]) {
    const { bench } = failing("a", "b", "c");
    // c itself was never told that it was on a smaller side.
    const started = () => ["d", "e"].flatMap((id) => bench.seen(id, "reschedule")).length;
    const back = (id: string) => {
      bench.cut.delete(id);
      bench.setStatus(id, "alive");
    };
    back("c");
    bench.advance(QUORUM_REGAINED_MS - 1_000);
    assert.equal(started(), 0);
    if (isBack) back("a");
    bench.advance(3 * TAKEOVER_MS);
    assert.equal(started() > 0, !isBack);
  }
});

Deno.test("rule 4d: a node that came back is left alone", () => {
  const bench = new Bench();
  const [a] = ["a", "b"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  bench.setStatus("a", "failed");
  bench.advance(200);
  bench.setStatus("a", "alive");
  bench.advance(60_000);
  assert.equal(bench.seen("b", "reschedule").length, 0);
});

Deno.test("one that failed and was made to leave is still dead: its workloads are started elsewhere", () => {
  const bench = new Bench();
  const [a] = ["a", "b"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  bench.cut.add("a");
  bench.setStatus("a", "failed");
  bench.setStatus("a", "left");
  bench.advance(20_000);
  assert.ok(bench.seen("b", "reschedule").length > 0);
});

Deno.test("a member that is pruned takes its workloads with it", () => {
  const bench = new Bench();
  const [a, b] = ["a", "b"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.cut.add("a");
  bench.members.delete("a");
  bench.shareMembers();
  bench.advance(20_000);
  assert.deepEqual([b.list(), b.routes(), b.nodes().length], [[], [], 1]);
});

Deno.test("rule 2e: a clock that is set makes nobody look silent", () => {
  const bench = new Bench();
  const a = bench.add("a");
  const b = bench.add("b");
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.feed("b", b.localChanged(bench.nowMs, local([])));
  bench.advance(10_000);
  b.tick(bench.nowMs + 3_600_000);
  b.tick(bench.nowMs + 3_600_500);
  assert.equal(b.nodes()[1].life, "live");
});

Deno.test("an agent whose clock went back outbids its own earlier state", () => {
  const bench = new Bench();
  bench.add("b");
  const a = bench.add("a", { incarnation: 5_000n });
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(2_000);
  const again = bench.add("a", { incarnation: 3_000n });
  bench.feed("a", again.localChanged(bench.nowMs, local([workload("bbbbbbbbbbbb")])));
  bench.advance(10_000);
  assert.ok(again.version.incarnation > 5_000n);
  assert.deepEqual(bench.cores.get("b")!.list().map(({ workload: { id } }) => id), ["bbbbbbbbbbbb"]);
});

Deno.test("rule 9a: a Go node's state is taken from its fragments, and ours is told in them while it is there", () => {
  const a = core("a");
  a.localChanged(START_MS, local([workload("aaaaaaaaaaaa")]));
  a.members(START_MS, [member("a"), member("go", { name: "go", tags: {} })]);
  const sent = a.tick(START_MS + 5_000).filter(({ kind }) => kind === "event")
    .flatMap((effect) =>
      effect.kind === "event" && effect.name === GOSSIP.stateBroadcast ? [effect.payload] : []
    );
  assert.equal(sent.length, 1);
  const told = fromBinary(NodeStateResponseSchema, sent[0]);
  assert.equal(told.node!.id, "name-a");
  assert.match(
    told.node!.ip,
    /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}_complete$/,
  );
  assert.deepEqual(told.workloads.map(({ id }) => id), ["aaaaaaaaaaaa"]);
  const go = (ids: string[]) =>
    encodeFragments({ name: "go", uuid: "u", workloads: ids.map((id) => workload(id)) })
      .flatMap((payload) => a.userEvent(START_MS + 5_001, GOSSIP.stateBroadcast, payload));
  go(["g1", "g2"]);
  assert.deepEqual(a.routesOf("g1").map(({ target }) => target), [{ kind: "node", nodeId: "go" }]);
  go(["g2"]);
  assert.deepEqual(a.list().map(({ workload: { id } }) => id).sort(), ["aaaaaaaaaaaa", "g2"]);
  a.members(START_MS + 5_002, [member("a"), member("go", { name: "go", tags: {}, status: "failed" })]);
  assert.deepEqual(a.routesOf("g2"), []);
});

Deno.test("whatever gossip brings is taken, refused or ignored, and nothing is thrown", () => {
  const a = core("a");
  a.members(START_MS, [member("a"), member("b")]);
  for (const name of [GOSSIP.stateDelta, GOSSIP.heartbeat, GOSSIP.stateBroadcast, "deploy"]) {
    for (const payload of [new Uint8Array(), new Uint8Array([255]), new Uint8Array(2_000).fill(10)]) {
      a.userEvent(START_MS, name, payload);
    }
  }
  assert.ok(a.sizes.refused > 0);
  assert.equal(a.list().length, 0);
});

Deno.test("a workload is found by id, by name, and by the beginning of an id that is its alone", () => {
  const bench = new Bench();
  const [a, b] = ["a", "b"].map((id) => bench.add(id));
  const named = (id: string, name: string) => workload(id, { sourceRequest: spawnRequest({ name }) });
  bench.feed(
    "a",
    a.localChanged(bench.nowMs, local([named("aa1111111111", "web"), workload("aa2222222222")])),
  );
  bench.feed(
    "b",
    b.localChanged(bench.nowMs, local([named("bb1111111111", "db"), named("bb2222222222", "aa")])),
  );
  const find = (text: string) => {
    const found = b.find(text);
    return found.kind === "found" ? found.id : found.kind === "ambiguous" ? found.ids : undefined;
  };
  assert.equal(find("aa1111111111"), "aa1111111111");
  assert.equal(find("web"), "aa1111111111");
  assert.equal(find("aa2"), "aa2222222222");
  assert.equal(find("aa"), "bb2222222222");
  assert.deepEqual(find("bb"), ["bb1111111111", "bb2222222222"]);
  assert.equal(find("cc"), undefined);
  assert.equal(find(""), undefined);
});
