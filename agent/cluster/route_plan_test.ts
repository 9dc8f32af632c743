import assert from "node:assert/strict";
import { CopyIndex } from "./copies.ts";
import { RoutePlan } from "./route_plan.ts";
import { spawnRequest, workload } from "./testing.ts";

function planned() {
  const dead = new Set<string>();
  const index = new CopyIndex((nodeId) => !dead.has(nodeId));
  const plan = new RoutePlan({ selfId: "self", copies: index });
  const set = (id: string, nodeId: string, init?: Parameters<typeof workload>[1] | null) => {
    index.set(id, nodeId, init === null ? undefined : workload(id, init));
    plan.touch(id);
  };
  return { dead, plan, set };
}

Deno.test("a workload is routed by its id and name on each of its host ports", () => {
  const { plan, set } = planned();
  set("b", "n1", { sourceRequest: spawnRequest({ name: "web", ports: { 443: 8443, 80: 8080 } }) });
  set("a", "self");
  assert.equal(plan.update(), true);
  assert.deepEqual(plan.list(), [
    { id: "a", aliases: [], hostPort: 80, target: { kind: "local" }, fallbacks: [] },
    { id: "b", aliases: ["web"], hostPort: 80, target: { kind: "node", nodeId: "n1" }, fallbacks: [] },
    { id: "b", aliases: ["web"], hostPort: 443, target: { kind: "node", nodeId: "n1" }, fallbacks: [] },
  ]);
});

Deno.test("rule 7b: only running copies on nodes that are there are routed to", () => {
  const { dead, plan, set } = planned();
  for (const status of ["starting", "backing-off", "stopping"]) set(status, "n1", { status });
  set("w", "n1");
  plan.update();
  assert.deepEqual(plan.list().map(({ id }) => id), ["w"]);
  dead.add("n1");
  plan.touch("w");
  assert.equal(plan.update(), true);
  assert.deepEqual(plan.list(), []);
});

Deno.test("rule 7a: the local copy comes first, the others are fallbacks by their claims", () => {
  const { plan, set } = planned();
  set("w", "n1", { generation: 3n });
  set("w", "n2", { generation: 2n });
  set("w", "self", { generation: 1n });
  plan.update();
  assert.deepEqual(plan.of("w").map(({ target, fallbacks }) => [target, ...fallbacks]), [
    [{ kind: "local" }, { kind: "node", nodeId: "n1" }, { kind: "node", nodeId: "n2" }],
  ]);
  set("w", "self", { generation: 1n, status: "stopping" });
  assert.equal(plan.update(), true);
  assert.deepEqual(plan.of("w")[0].target, { kind: "node", nodeId: "n1" });
  assert.equal(plan.of("w")[0].fallbacks.length, 1);
});

Deno.test("what changes nothing in the routes is no change, and the list stays the same object", () => {
  const { plan, set } = planned();
  set("w", "n1");
  plan.update();
  const list = plan.list();
  set("w", "n1", { restarts: 7 });
  assert.equal(plan.update(), false);
  assert.equal(plan.list(), list);
  set("w", "n1", null);
  assert.equal(plan.update(), true);
  assert.deepEqual(plan.list(), []);
});
