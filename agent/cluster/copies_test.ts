import assert from "node:assert/strict";
import { seededRandom } from "../../gossip/random.ts";
import { compareClaims, CopyIndex, DuplicateWatch } from "./copies.ts";
import { DUPLICATE_HOLD_MS, END_AGAIN_MS } from "./limits.ts";
import { workload } from "./testing.ts";

const copy = (nodeId: string, generation: bigint, status = "running") => {
  return { nodeId, state: workload("w", { generation, status }) };
};

Deno.test("rule 3c: the highest generation wins, then one that runs, then the lowest node id", () => {
  const ordered = [
    copy("z", 3n, "backing-off"),
    copy("b", 2n),
    copy("c", 2n),
    copy("a", 2n, "starting"),
    copy("a", 1n),
  ];
  const random = seededRandom(1);
  for (let i = 0; i < 50; i++) {
    const shuffled = ordered.toSorted(() => random.float() - 0.5);
    assert.deepEqual(shuffled.sort(compareClaims), ordered);
  }
});

Deno.test("live copies are those on nodes that are there and not being stopped", () => {
  const live = new Set(["a", "b", "c"]);
  const index = new CopyIndex((nodeId) => live.has(nodeId));
  for (const { nodeId, state } of [copy("a", 1n), copy("b", 2n), copy("c", 3n, "stopping"), copy("d", 4n)]) {
    index.set("w", nodeId, state);
  }
  assert.deepEqual(index.live("w").map(({ nodeId }) => nodeId), ["b", "a"]);
  assert.equal(index.of("w").length, 4);
  live.delete("b");
  assert.deepEqual(index.live("w").map(({ nodeId }) => nodeId), ["a"]);
  for (const nodeId of ["a", "b", "c", "d", "e"]) index.set("w", nodeId, undefined);
  assert.deepEqual([index.size, index.of("w"), index.live("w")], [0, [], []]);
});

function watched() {
  const index = new CopyIndex(() => true);
  const watch = new DuplicateWatch({ selfId: "self", copies: index });
  const set = (nodeId: string, generation: bigint, nowMs: number, status = "running") => {
    index.set("w", nodeId, workload("w", { generation, status }));
    watch.check("w", nowMs);
  };
  return { index, watch, set };
}

Deno.test("the loser ends only when the winner has been seen running for a while", () => {
  const { watch, set } = watched();
  set("self", 1n, 0);
  set("other", 2n, 0, "starting");
  assert.equal(watch.nextMs(), Infinity);
  set("other", 2n, 1_000);
  assert.deepEqual(watch.due(1_000 + DUPLICATE_HOLD_MS - 1), []);
  assert.deepEqual(watch.due(1_000 + DUPLICATE_HOLD_MS), [{ id: "w", winner: "other" }]);
  assert.deepEqual(watch.due(1_001 + DUPLICATE_HOLD_MS), []);
  assert.deepEqual(watch.due(1_000 + DUPLICATE_HOLD_MS + END_AGAIN_MS).length, 1);
});

Deno.test("another winner, and a winner that stops running, begin the wait anew", () => {
  const { index, watch, set } = watched();
  set("self", 1n, 0);
  set("other", 2n, 0);
  set("other", 2n, 2_000, "backing-off");
  assert.deepEqual(watch.due(10_000), []);
  set("other", 2n, 10_000);
  set("third", 3n, 12_000);
  assert.deepEqual(watch.due(14_000), []);
  assert.deepEqual(watch.due(15_000), [{ id: "w", winner: "third" }]);
  index.set("w", "third", undefined);
  index.set("w", "other", undefined);
  watch.check("w", 16_000);
  assert.equal(watch.size, 0);
});

Deno.test("rule 3c: of two equal copies exactly one node ends its own", () => {
  const ends = ["a", "b"].map((selfId) => {
    const index = new CopyIndex(() => true);
    const watch = new DuplicateWatch({ selfId, copies: index });
    for (const nodeId of ["a", "b"]) index.set("w", nodeId, workload("w"));
    watch.check("w", 0);
    return watch.due(DUPLICATE_HOLD_MS).length;
  });
  assert.deepEqual(ends, [0, 1]);
});
