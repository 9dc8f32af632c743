import assert from "node:assert/strict";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { NodeStateResponseSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ListedCopy, NodeSummary } from "../cluster/reads.ts";
import { member, spawnRequest, workload } from "../cluster/testing.ts";
import { candidate } from "../policy/testing.ts";
import { PolicyNodes } from "./policy_nodes.ts";

function node(id: string, init: Partial<NodeSummary> = {}): NodeSummary {
  const header = create(NodeStateResponseSchema, { node: { id } });
  const base = { isSelf: false, kind: "hypercore", life: "live", workloads: 0, isVerified: true } as const;
  return { id, name: `name-${id}`, header, member: member(id), ...base, ...init };
}

function copy(id: string, nodeId: string, init: Partial<ListedCopy> = {}): ListedCopy {
  const sourceRequest = spawnRequest({ labels: { app: id } });
  const base = { nodeName: `name-${nodeId}`, isSelf: false, isLive: true };
  return { nodeId, ...base, workload: workload(id, { sourceRequest }), ...init };
}

function nodesOf(nodes: NodeSummary[], copies: ListedCopy[] = []) {
  return new PolicyNodes({
    core: { nodes: () => nodes, list: () => copies },
    self: () => candidate({ name: "self" }),
    measured: ({ id }) => id === "a" ? { latencyMs: 7 } : {},
  });
}

const self = node("self", { isSelf: true });
const headerOf = (init: MessageInitShape<typeof NodeStateResponseSchema>) =>
  create(NodeStateResponseSchema, init);

Deno.test("nodes are what their states and this node's measurements say, and each workload counts once", () => {
  const beacon = { latencyMs: 50, pricePerGb: 0.02, reputationScore: "0.8", nodeCapabilities: ["kvm"] };
  const header = headerOf({ beacon, cordoned: true, tags: { zone: "a" } });
  const nodes = nodesOf([self, node("a", { header }), node("b", { header, isVerified: false })], [
    copy("w1", "a"),
    copy("w2", "b", { isLive: false }),
    copy("w3", "self", { isSelf: true }),
  ]);
  const [own, a, b] = nodes.list();
  assert.equal(own.name, "self");
  assert.deepEqual([a.id, a.name, a.latencyMs, a.pricePerGb, a.reputation], ["a", "name-a", 7, 0.02, 0.8]);
  assert.deepEqual([a.cordoned, a.isForeign, a.tags.zone], [true, false, "a"]);
  assert.deepEqual(a.workloads.map(({ id, labels }) => [id, labels.app]), [["w1", "w1"]]);
  assert.deepEqual([b.latencyMs, b.reputation, b.workloads], [50, undefined, []]);
  assert.equal(nodes.list()[1].workloads[0], a.workloads[0]);
});

Deno.test("dead nodes are no candidates, a Go node is, and a stock Serf agent only when it is asked for", () => {
  const nodes = nodesOf([
    self,
    node("dead", { life: "failed" }),
    node("young", { header: undefined }),
    node("go", { kind: "foreign", isVerified: false }),
    node("serf", { kind: "foreign", header: undefined }),
  ]);
  const listed = nodes.list().map(({ id, isForeign }) => [id, isForeign]);
  assert.deepEqual(listed, [["id-self", undefined], ["young", false], ["go", true]]);
  assert.deepEqual(nodes.list({ node: "name-serf" }).at(-1)!.id, "serf");
});
