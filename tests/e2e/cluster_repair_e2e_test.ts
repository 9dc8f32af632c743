import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import type { LiveAgent } from "./live_agent.ts";
import { findOn, LiveCluster } from "./live_cluster.ts";

/** Of a workload. */
const OWN_POLICY = {
  name: "own",
  mode: "enforce",
  rules: { not_nodes: ["n1"] },
  network: { egress: [{ protocol: "tcp", ports: [4443] }] },
};

Deno.test("rule 3 and 4: a dead node's workload is started once elsewhere, with its id, URL, secrets and policy, and once after heal", async () => {
  await using cluster = await LiveCluster.start(3, {
    flags: ["--respawn-on-node-failure", "--profile", "lan"],
  });
  const [n1, n2, n3] = cluster.agents;
  for (const agent of cluster.agents) await agent.load(busyboxImage(), "test/web:1");
  // A workload that only one node may have would not go elsewhere.
  for (const name of ["n1", "n2"]) await n1.ok("cordon", name);
  await cluster.until("n1 knows who is cordoned", async () => {
    return (await n1.ok("members")).match(/cordoned/g)?.length === 2;
  });
  const policy = `${n1.dir}/own.json`;
  await Deno.writeTextFile(policy, JSON.stringify(OWN_POLICY));
  const flags = ["--ports", "8080:8080", "--env", "SECRET=s3cret", "--policy", policy];
  const id = await n1.spawn("--image", "test/web:1", ...flags);
  for (const name of ["n1", "n2"]) await n1.ok("uncordon", name);
  await cluster.until("n1 knows it", async () => (await findOn(n1, id))?.node === "n3");
  const before = (await findOn(n1, id))!;
  // Its secrets are in no state that is gossiped: who may have to start it is given its request.
  for (const agent of [n1, n2]) {
    await cluster.until(`${agent.name} has its request in trust`, async () => {
      return /^hypercore_cluster_size\{kind="trusted"\} 1$/m.test(
        await agent.curl("http://127.0.0.1:8001/metrics"),
      );
    });
  }

  await cluster.lan.cut([2], [0, 1]);
  await cluster.until("it runs elsewhere", async () => {
    const now = await findOn(n1, id);
    return now !== undefined && now.node !== "n3" && now.status === "running";
  });
  const after = (await findOn(n1, id))!;
  assert.equal(after.url, before.url);
  assert(after.generation > before.generation);
  // The policy it was spawned with goes with it: where it may run, and what it may reach.
  assert.equal(after.node, "n2");
  const owner = n2;
  const rules = async (agent: LiveAgent) => (await agent.host.run("nft", "list", "ruleset")).stdout;
  assert.match(await rules(n2), /tcp dport 4443/);
  assert.match(await owner.ok("exec", id, "/bin/sh", "-c", "echo $SECRET"), /s3cret/);
  for (const agent of [n1, n2]) {
    await cluster.until(`${agent.name} serves it`, async () => /Hello/.test(await agent.page(id)));
  }
  // The other side goes on with its own copy, which it cannot know to be outdated.
  assert.match(await n3.page(id), /Hello/);

  await cluster.lan.heal();
  await cluster.until("one copy is left, and everybody says so", async () => {
    const views = await Promise.all(cluster.agents.map((agent) => findOn(agent, id)));
    return views.every((view) => view?.node === owner.name && view.status === "running") &&
      (await n3.inventory()).containers.length === 0;
  });
  for (const agent of cluster.agents) {
    await cluster.until(`${agent.name} serves it`, async () => /Hello/.test(await agent.page(id)));
  }
  await n3.ok("stop", id);
  await cluster.until("it is gone everywhere", async () => {
    const views = await Promise.all(cluster.agents.map((agent) => findOn(agent, id)));
    return views.every((view) => view === undefined);
  });
});
