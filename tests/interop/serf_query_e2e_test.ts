import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { encodeClusterMessage } from "../../agent/control/cluster_messages.ts";
import { startNodes } from "../../agent/testing.ts";
import {
  ClusterEvent,
  VmSpawnRequestSchema,
  VmStopRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { listed } from "./go_node.ts";
import { installSerf, SerfAgent, until } from "./serf_agent.ts";

await installSerf();

Deno.test("rule 9a: a stock serf agent spawns and stops on our nodes by hypercore_query, sees them, and is never chosen", async (t) => {
  await using cluster = await startNodes(["n1", "n2"]);
  const [n1, n2] = cluster.nodes;
  await using serf = await SerfAgent.start("stock");
  const { host, port } = n1.running.cluster.membership.self.address;
  await serf.run("join", `${host}:${port}`);
  const spawn = (fields: { node?: string; dryRun?: boolean; imageRef?: string }) =>
    encodeClusterMessage(
      ClusterEvent.SPAWN,
      VmSpawnRequestSchema,
      create(VmSpawnRequestSchema, { cores: 1, memory: 64, imageRef: "web:1", ...fields }),
    );
  let id = "";

  await t.step("the agent and our nodes are members of each other", async () => {
    await until("all are alive to the agent", async () => {
      const members = await serf.members();
      return ["n1", "n2", "stock"].every((name) => members.get(name)?.startsWith("alive"));
    });
    await until("n2 has the agent", () => {
      return [...n2.running.cluster.membership.members().values()].some(({ name, status }) => {
        return name === "stock" && status === "alive";
      });
    });
  });

  await t.step("a dry run is answered by each node and starts nothing", async () => {
    const output = await serf.queryRaw("hypercore_query", spawn({ dryRun: true }));
    assert.match(output, /Response from 'n1': .*VmSpawnResponse/s);
    assert.match(output, /Response from 'n2': .*VmSpawnResponse/s);
    assert.equal(listed(n1).size, 0);
  });

  await t.step("a spawn for one node is done by that one, the other says why it does not", async () => {
    const output = await serf.queryRaw("hypercore_query", spawn({ node: "n2" }));
    assert.match(output, /Response from 'n1': .*ErrorResponse/s);
    await until("n1 lists it", () => listed(n1).size === 1);
    const [[spawned, owner]] = listed(n1);
    assert.equal(owner, "n2");
    assert(output.includes(spawned), output);
    id = spawned;
  });

  await t.step("a stop is done by the node that runs it, and the others keep silent", async () => {
    const stop = encodeClusterMessage(
      ClusterEvent.STOP,
      VmStopRequestSchema,
      create(VmStopRequestSchema, { id }),
    );
    const output = await serf.queryRaw("hypercore_query", stop);
    assert.match(output, /Response from 'n2': .*api\.Node/s);
    assert.doesNotMatch(output, /Response from 'n1'/);
    await until("n1 lists it no more", () => listed(n1).size === 0);
  });

  await t.step("bytes that are no message are refused, and other queries left alone", async () => {
    const garbage = await serf.queryRaw("hypercore_query", Uint8Array.of(0xff, 0xfe, 0xfd));
    assert.match(garbage, /Response from 'n1': .*ErrorResponse/s);
    assert.match(await serf.queryRaw("other", Uint8Array.of(1)), /Total Responses: 0/);
  });

  await t.step("the agent is never chosen for a workload, and hears our events", async () => {
    const spawned = await n1.call("cluster.services.api.ClusterService/Spawn", { imageRef: "web:2" });
    assert.notEqual(spawned.node, "stock");
    await until("it has our states", () => serf.log.includes("hypercore_state_broadcast"));
  });
});
