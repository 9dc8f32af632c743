import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { VmSpawnRequestSchema } from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { startNodes, type TestNode } from "./testing.ts";

const names = ({ running }: TestNode) =>
  running.cluster.calls.list().states.flatMap(({ workloads }) =>
    workloads.map(({ sourceRequest }) => sourceRequest?.name)
  );

Deno.test("what a node was asked to do on another is done for whoever looks at it next, before gossip tells of it", async () => {
  await using cluster = await startNodes(["n1", "n2"]);
  const [n1, n2] = cluster.nodes;
  // Nothing of what happens on n2 is told to anybody.
  n2.running.cluster.membership.broadcast = () => {};
  const { calls, core } = n1.running.cluster;
  const request = create(VmSpawnRequestSchema, {
    imageRef: "web:1",
    memory: 64,
    name: "web",
    node: "n2",
    ports: { "80": 8080 },
  });
  for (let i = 0; i < 2; i++) {
    const { id } = await calls.spawn(request);
    assert.deepEqual(names(n1), ["web"]);
    assert.equal(core.routesOf(id).length, Object.keys(request.ports).length);
    await calls.stop("web");
    assert.deepEqual(names(n1), []);
  }
});
