import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { VmSpawnRequestSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { Mover, type MoverParts } from "./mover.ts";

const { signal } = new AbortController();

/** A workload on node `a`, and what a move of it did. */
function scene(node: MoverParts["node"]) {
  const deeds: string[] = [];
  const mover = new Mover({
    find: (id) => ({ id, nodeId: "a", nodeName: "name-a", generation: 3, createdAtMs: 0, restarts: 0 }),
    node,
    on: () => [],
    request: () => Promise.resolve(create(VmSpawnRequestSchema)),
    place(_request, { to }) {
      deeds.push(`place on ${to}`);
      return Promise.resolve(`name-${to}`);
    },
    evict({ nodeId }, { generation }) {
      deeds.push(`evict from ${nodeId} what is older than ${generation}`);
      return Promise.resolve();
    },
    cordon: () => Promise.resolve(),
  });
  return { deeds, move: () => Array.fromAsync(mover.move("web", { to: "there", signal })) };
}

Deno.test("a move starts the next copy, then ends the old one", async () => {
  const { deeds, move } = scene(() => ({ id: "b", name: "name-b" }));
  assert.deepEqual((await move()).map(({ step, node }) => [step, node]), [
    ["placing", "name-b"],
    ["started", "name-b"],
    ["stopping", "name-a"],
    ["moved", "name-b"],
  ]);
  assert.deepEqual(deeds, ["place on b", "evict from a what is older than 4"]);
});

Deno.test("a move to where the workload is, or to a node that cannot have it, does nothing and says so", async () => {
  const refused = async (node: ReturnType<MoverParts["node"]>, message: string) => {
    const { deeds, move } = scene(() => node);
    await assert.rejects(move(), { message: `Cannot move workload "web": ${message}` });
    assert.deepEqual(deeds, []);
  };
  await refused({ id: "a", name: "name-a" }, 'it is on node "name-a" already');
  await refused({ id: "b", name: "name-b", refusal: "is not there" }, 'node "name-b" is not there');
});
