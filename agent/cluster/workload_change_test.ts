import assert from "node:assert/strict";
import { Bench, local, START_MS, workload } from "./testing.ts";
import { changeOf } from "./workload_change.ts";

Deno.test("rule 5b: what happens to a workload is told from its node's states", () => {
  const running = workload("aaaaaaaaaaaa", { status: "running" });
  assert.equal(changeOf(undefined, running)?.type, "spawned");
  assert.equal(changeOf(running, running), undefined);
  const backingOff = workload("aaaaaaaaaaaa", { status: "backing-off", reason: "exit code 1" });
  assert.deepEqual(changeOf(running, backingOff), { type: "restart-scheduled", detail: "exit code 1" });
  const again = workload("aaaaaaaaaaaa", { status: "running", restarts: 1 });
  assert.deepEqual(changeOf(backingOff, again), { type: "started", detail: "restart 1" });
  assert.equal(changeOf(again, undefined)?.type, "stopped");
  assert.equal(changeOf(undefined, undefined), undefined);
});

Deno.test("a node's changes are events on every other node; what there was when it was met is none", () => {
  const bench = new Bench();
  const a = bench.add("a");
  bench.feed("a", a.localChanged(START_MS, local([workload("aaaaaaaaaaaa")])));
  bench.add("b");
  bench.advance(10_000);
  const told = () =>
    bench.seen("b", "workload").map((effect) =>
      effect.kind === "workload" && [effect.id, effect.change.type]
    );
  assert.deepEqual(told(), []);
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("aaaaaaaaaaaa"), workload("bbbbbbbbbbbb")])));
  bench.feed("a", a.localChanged(bench.nowMs, local([workload("bbbbbbbbbbbb")])));
  assert.deepEqual(told(), [["bbbbbbbbbbbb", "spawned"], ["aaaaaaaaaaaa", "stopped"]]);
  bench.feed("a", a.localChanged(bench.nowMs, { ...local([workload("bbbbbbbbbbbb")]), cordoned: true }));
  assert.equal(
    bench.seen("b", "note").map((effect) => effect.kind === "note" && effect.text).at(-1),
    'Node "name-a" takes no new workloads',
  );
});
