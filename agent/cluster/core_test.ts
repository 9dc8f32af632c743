import assert from "node:assert/strict";
import { Bench, local, member, START_MS, workload } from "./testing.ts";

Deno.test("rule 2b: a change on one node is in every other node's view at once", () => {
  const bench = new Bench();
  const [a, b, c] = ["a", "b", "c"].map((id) => bench.add(id));
  bench.feed("a", a.localChanged(bench.nowMs, local([])));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("0123456789ab")])));
  for (const each of [a, b, c]) {
    assert.deepEqual(each.list().map(({ nodeId, workload: { id } }) => [nodeId, id]), [[
      "a",
      "0123456789ab",
    ]]);
  }
  assert.deepEqual(b.routes().map(({ id, hostPort, target }) => ({ id, hostPort, target })), [
    { id: "0123456789ab", hostPort: 80, target: { kind: "node", nodeId: "a" } },
  ]);
  assert.deepEqual(a.routes()[0].target, { kind: "local" });
  bench.feed("a", a.localChanged(bench.nowMs, local([])));
  assert.deepEqual([b.list(), b.routes()], [[], []]);
});

Deno.test("rule 2d: a node that joins later learns all states from one that is there", () => {
  const bench = new Bench();
  const a = bench.add("a");
  const b = bench.add("b");
  bench.advance(5_000);
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.feed("b", b.localChanged(bench.nowMs, local([workload("bbbbbbbbbbbb")])));
  const c = bench.add("c");
  bench.advance(1_000);
  assert.equal(bench.seen("c", "fetch-all").length, 1);
  assert.deepEqual(c.list().map(({ workload: { id } }) => id), ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]);
});

Deno.test("rule 2c: who missed versions notices by the next heartbeat and fetches the difference", () => {
  const bench = new Bench();
  const a = bench.add("a");
  const b = bench.add("b");
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(2_000);
  bench.cut.add("b");
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa"), workload("cccccccccccc")])));
  bench.cut.delete("b");
  const before = bench.seen("b", "fetch").length;
  bench.advance(6_000);
  assert.equal(b.list().length, 2);
  const fetches = bench.seen("b", "fetch").slice(before);
  assert.equal(fetches.length, 1);
  assert.ok(fetches[0].since !== undefined);
});

Deno.test("rule 4a: a failed node's workload is started again by exactly one node", () => {
  const bench = new Bench();
  const nodes = ["a", "b", "c", "d"].map((id) => bench.add(id));
  bench.feed("a", nodes[0].localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  bench.cut.add("a");
  bench.setStatus("a", "failed");
  bench.advance(4_000);
  const starts = bench.log.filter(({ effect }) => effect.kind === "reschedule");
  assert.equal(starts.length, 1);
  const { nodeId, effect } = starts[0];
  assert.ok(effect.kind === "reschedule");
  assert.deepEqual([effect.id, effect.generation, effect.from], ["aaaaaaaaaaaa", 2n, "a"]);
  // It runs on b; nobody else starts it.
  const moved = workload("aaaaaaaaaaaa", { generation: 2n });
  bench.feed("b", nodes[1].localChanged(bench.nowMs, local([moved])));
  bench.feed(nodeId, bench.cores.get(nodeId)!.rescheduled(bench.nowMs, { id: effect.id, generation: 2n }));
  bench.advance(60_000);
  assert.equal(bench.log.filter(({ effect }) => effect.kind === "reschedule").length, 1);
  assert.deepEqual(nodes[2].routes()[0].target, { kind: "node", nodeId: "b" });
});

Deno.test("rule 3d: after a partition the older copy ends, when the newer has been seen running", () => {
  const bench = new Bench();
  const a = bench.add("a");
  const b = bench.add("b");
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.feed("b", b.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa", { generation: 2n })])));
  assert.equal(a.routes()[0].fallbacks.length, 1);
  bench.advance(2_900);
  assert.equal(bench.seen("a", "end-duplicate").length, 0);
  bench.advance(200);
  assert.deepEqual(bench.seen("a", "end-duplicate").map(({ id, winner }) => [id, winner]), [[
    "aaaaaaaaaaaa",
    "b",
  ]]);
  assert.equal(bench.seen("b", "end-duplicate").length, 0);
});

Deno.test("rule 3e: a stopped workload stays stopped: a node that slept through the stop ends its copy", () => {
  const bench = new Bench();
  const a = bench.add("a");
  const b = bench.add("b");
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  bench.cut.add("a");
  bench.setStatus("a", "failed");
  bench.feed("b", b.tombstone(bench.nowMs, { id: "aaaaaaaaaaaa", generation: 1n }));
  bench.advance(60_000);
  assert.equal(bench.seen("b", "reschedule").length, 0);
  // Nobody can say that it is over yet, but nobody wants it any more either.
  assert.deepEqual(b.list(), []);
  for (const text of ["aaaaaaaaaaaa", "aaa"]) assert.equal(b.find(text).kind, "none");
  bench.cut.delete("a");
  bench.setStatus("a", "alive");
  bench.advance(10_000);
  assert.ok(bench.seen("a", "end-stopped").length > 0);
  assert.ok(bench.seen("b", "save-tombstones").length > 0);
});

Deno.test("rule 2c: differences that overtake each other are made good by a fetch, within a second", () => {
  const bench = new Bench();
  const a = bench.add("a");
  const b = bench.add("b");
  bench.feed("a", a.localChanged(START_MS, local([workload("aaaaaaaaaaaa", { status: "starting" })])));
  bench.feed("b", b.localChanged(START_MS, local([])));
  bench.advance(10_000);
  const said = ["running", "backing-off"].map((status) => {
    const effects = a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa", { status })]));
    return effects.find((effect) => effect.kind === "event")!;
  });
  for (const { name, payload } of said.reverse()) bench.feed("b", b.userEvent(bench.nowMs, name, payload));
  assert.equal(b.list()[0].workload.status, "running");
  bench.advance(1_000);
  assert.equal(b.list()[0].workload.status, "backing-off");
});

Deno.test("rule 2e: an idle cluster stays as it is: nobody is taken for silent", () => {
  const bench = new Bench();
  for (let i = 0; i < 10; i++) bench.add(`n${i}`);
  for (const [id, each] of bench.cores) bench.feed(id, each.localChanged(bench.nowMs, local([])));
  bench.advance(10 * 60_000);
  for (const each of bench.cores.values()) {
    assert.ok(each.nodes().every(({ life }) => life === "live"));
    assert.equal(each.sizes.fetches, 0);
  }
});

/** `a`, which has a workload, has been cut off from `b` for nine seconds. */
function cutOff({ refuses }: { refuses: boolean }) {
  const bench = new Bench();
  bench.refuses = refuses;
  const a = bench.add("a");
  const b = bench.add("b");
  bench.feed("a", a.localChanged(START_MS, local([workload("aaaaaaaaaaaa")])));
  bench.feed("b", b.localChanged(START_MS, local([])));
  bench.advance(10_000);
  bench.cut.add("a");
  bench.advance(9_000);
  assert.equal(b.nodes()[1].life, "live");
  return { bench, b };
}

Deno.test("rule 2f: a silent node is asked, and is stale when it does not answer; members it has are not routed to", () => {
  const { bench, b } = cutOff({ refuses: true });
  bench.advance(12_000);
  assert.equal(b.nodes()[1].life, "stale");
  assert.deepEqual(b.routes(), []);
  bench.cut.delete("a");
  bench.advance(6_000);
  assert.equal(b.nodes()[1].life, "live");
  assert.equal(b.routes().length, 1);
});

Deno.test("rule 2f: a silent node that lets the question wait is stale after three heartbeats, and a second or two", () => {
  const { bench, b } = cutOff({ refuses: false });
  bench.advance(8_000);
  assert.equal(b.nodes()[1].life, "stale");
});

Deno.test("a leaving node's workloads are not started elsewhere", () => {
  const bench = new Bench();
  const a = bench.add("a");
  bench.add("b");
  bench.feed("a", a.localChanged(START_MS, local([workload("aaaaaaaaaaaa")])));
  bench.advance(1_000);
  bench.cut.add("a");
  bench.setStatus("a", "left");
  bench.advance(120_000);
  assert.equal(bench.seen("b", "reschedule").length, 0);
  assert.equal(bench.cores.get("b")!.list()[0].isLive, false);
});

Deno.test("a member that says nothing of the protocol does not need to be heard", () => {
  const bench = new Bench();
  const a = bench.add("a");
  bench.feed("a", a.localChanged(START_MS, local([workload("aaaaaaaaaaaa")])));
  bench.members.set("go", member("go", { tags: {} }));
  bench.shareMembers();
  bench.advance(120_000);
  assert.equal(a.nodes()[1].life, "live");
});
