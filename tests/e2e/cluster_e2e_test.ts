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
  // The same node says, signed for the moment, who it is, what it states and what it runs.
  const attested = async (...args: string[]) => {
    const answer = JSON.parse(await n1.ok("attest", ...args, "--json"));
    assert.equal(answer.verified, true);
    return answer.statement;
  };
  assert.equal((await attested("n2")).name, "n2");
  assert.match((await attested("n3", "--type", "state-hash")).root, /^[0-9a-f]{64}$/);
  const { workload, status, image_digest } = await attested("--workload", id);
  assert.deepEqual([workload, status], [id, "running"]);
  assert.match(image_digest, /^sha256:/);
  const elsewhere = await n1.cli(["attest", "n3", "--workload", id]);
  assert.equal(elsewhere.code, 1);
  assert.match(elsewhere.out, /REFUSED: it refused: .*does not run here/);
  await until("every node's beacon is here, with what its machine can do", async () => {
    const { registry, beacons } = JSON.parse(await n3.ok("beacon", "--json"));
    assert.equal(registry, "standalone");
    return beacons.length === 3 && beacons.every((each: Record<string, unknown>) => {
      const capabilities = each.capabilities as string[];
      const works = ["runtime:runc", "arch:"].every((what) =>
        capabilities.some((one) => one.startsWith(what))
      );
      return works && each.verified === true && typeof each.latencyMs === "number";
    });
  });
});
