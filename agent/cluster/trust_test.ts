import assert from "node:assert/strict";
import { ENTRUST_RETRY_MS, MAX_ENTRUSTS, MAX_TRUSTED, TRUST_KEEP_MS } from "./limits.ts";
import { Rendezvous } from "./rendezvous.ts";
import { spawnRequest } from "./testing.ts";
import { Entrusting, TrustStore } from "./trust.ts";

Deno.test("requests are kept in trust up to the limits, and as long as somebody has the workload", () => {
  const store = new TrustStore();
  const request = spawnRequest({ env: ["KEY=secret"] });
  for (let i = 0; i < MAX_TRUSTED; i++) assert.equal(store.keep(`w${i}`, "a", request), undefined);
  assert.match(store.keep("more", "a", request)!, /kept already/);
  assert.equal(store.keep("w0", "b", request), undefined);
  store.sweep(0, (id) => id === "w0");
  store.sweep(TRUST_KEEP_MS - 1, (id) => id === "w0");
  assert.equal(store.size, MAX_TRUSTED);
  store.sweep(TRUST_KEEP_MS, (id) => id === "w0");
  assert.deepEqual([store.size, store.get("w0")?.env], [1, ["KEY=secret"]]);
  const huge = spawnRequest({ env: ["X=".padEnd(1 << 20, "x")] });
  let refusal: string | undefined;
  for (let i = 0; i < 100 && refusal === undefined; i++) refusal = store.keep(`h${i}`, "a", huge);
  assert.match(refusal!, /bytes/);
});

Deno.test("the first three in line are entrusted, a restarted one again, and those that come into line", () => {
  const entrusting = new Entrusting();
  const incarnations = new Map([["a", 1n], ["b", 1n], ["c", 1n], ["d", 1n]]);
  const incarnationOf = (nodeId: string) => incarnations.get(nodeId);
  const plan = (nodes: string[]) =>
    entrusting.plan(["w"], {
      line: new Rendezvous(["self", ...nodes]),
      selfId: "self",
      nowMs: 0,
      incarnationOf,
    });
  const give = (nowMs: number) => {
    const to = entrusting.due(nowMs, incarnationOf).get("w") ?? [];
    for (const nodeId of to) entrusting.done("w", nodeId, { ok: true, nowMs });
    return to;
  };
  plan(["a", "b", "c", "d"]);
  const first = give(0);
  assert.equal(first.length, 3);
  assert.deepEqual(give(1), []);
  incarnations.set(first[0], 2n);
  plan(["a", "b", "c", "d"]);
  assert.deepEqual(give(2), [first[0]]);
  const fourth = ["a", "b", "c", "d"].find((nodeId) => !first.includes(nodeId))!;
  plan(["a", "b", "c", "d"].filter((nodeId) => nodeId !== first[1]));
  assert.deepEqual(give(3), [fourth]);
  entrusting.plan([], { line: new Rendezvous([]), selfId: "self", nowMs: 0, incarnationOf });
  assert.equal(entrusting.size, 0);
});

Deno.test("an entrusting that failed is tried again; only so many are under way", () => {
  const entrusting = new Entrusting();
  const ids = Array.from({ length: 40 }, (_, i) => `w${i}`);
  const options = { line: new Rendezvous(["self", "a"]), selfId: "self", nowMs: 0, incarnationOf: () => 1n };
  entrusting.plan(ids, options);
  const due = entrusting.due(0, () => 1n);
  assert.equal(due.size, MAX_ENTRUSTS);
  assert.equal(entrusting.due(1, () => 1n).size, 0);
  for (const id of due.keys()) entrusting.done(id, "a", { ok: id !== "w0", nowMs: 10 });
  assert.equal(entrusting.due(11, () => 1n).size, 40 - MAX_ENTRUSTS);
  assert.deepEqual([...entrusting.due(10 + ENTRUST_RETRY_MS, () => 1n).keys()][0], "w0");
});
