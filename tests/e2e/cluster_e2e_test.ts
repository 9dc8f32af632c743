import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { until } from "./live_agent.ts";
import { LiveCluster } from "./live_cluster.ts";

Deno.test("a workload spawned on one node answers at its URL on every node", async () => {
  await using cluster = await LiveCluster.start(3);
  const [n1, n2, n3] = cluster.agents;
  for (const agent of cluster.agents) await agent.load(busyboxImage(), "test/web:1");
  const id = await n1.spawn("--image", "test/web:1", "--ports", "8080:8080", "--node", "n2");
  for (const agent of [n1, n2, n3]) {
    await until(`${agent.name} serves it`, async () => /hello|serving/i.test(await agent.page(id)));
    assert.equal((await agent.list())[0].node, "n2");
  }
});
