import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import type { LiveAgent } from "./live_agent.ts";
import { LiveCluster, step } from "./live_cluster.ts";

interface Listed {
  id: string;
  name: string;
  node: string;
  status: string;
  image: string;
  url: string;
  restarts: number;
  generation: number;
  ports: Record<string, number>;
}

async function list(agent: LiveAgent): Promise<Listed[]> {
  return await agent.list() as unknown as Listed[];
}

async function find(agent: LiveAgent, id: string): Promise<Listed | undefined> {
  return (await list(agent)).find((each) => each.id === id);
}

Deno.test("workloads of three agents that are one cluster", async (test) => {
  await using cluster = await LiveCluster.start(3, {
    flags: ["--profile", "lan"],
    flagsOf: (i) => ["--tag", `zone=${["a", "a", "b"][i]}`, "--tag", "disk=ssd"],
  });
  const { agents } = cluster;
  const [n1, n2, n3] = agents;
  await Promise.all(agents.map((agent) => agent.load(busyboxImage(), "test/web:1")));
  const everywhere = (what: string, holds: (agent: LiveAgent) => Promise<boolean>) =>
    cluster.until(
      `${what} on every node`,
      async () => (await Promise.all(agents.map(holds))).every((each) => each),
    );
  const gone = (id: string) =>
    everywhere(`${id} is gone`, async (agent) => await find(agent, id) === undefined);
  let web = "";

  await step(test, "rule 6: constraints, spread and --node say where a workload goes", async () => {
    const nodeOf = async (...args: string[]) =>
      JSON.parse(await n1.ok("spawn", "--json", "--dry-run", "--image", "test/web:1", ...args)).node;
    assert.equal(await nodeOf("--constraint", "zone=b"), "n3");
    assert.equal(await nodeOf("--constraint", "zone!=a", "--constraint", "disk=~^s"), "n3");
    assert.equal(await nodeOf("--node", "n2"), "n2");
    web = await n1.spawn("--image", "test/web:1", "--ports", "8080:8080", "--name", "web", "--node", "n3");
    await everywhere("it is known", async (agent) => await find(agent, web) !== undefined);
    assert.notEqual(await nodeOf("--spread", "zone"), "n3");
  });

  await step(
    test,
    "rule 6: the caller gets one error with every node's reason when none takes it",
    async () => {
      const { code, err } = await n2.cli(["spawn", "--image", "test/web:1", "--mem", "8000000"]);
      assert.equal(code, 1);
      for (const { name } of agents) assert.match(err, new RegExp(`${name}: .*memory`));
      assert.equal(err.trim().split("\n").length, 1, err);
      const nowhere = await n2.cli(["spawn", "--image", "test/web:1", "--constraint", "zone=c"]);
      assert.equal(nowhere.code, 1);
      for (const { name } of agents) {
        assert.match(nowhere.err, new RegExp(`\\b${name}\\b.*: constraint "zone=c"`));
      }
    },
  );

  await step(test, "a name is one workload's in the whole cluster", async () => {
    const { code, err } = await n2.cli(["spawn", "--image", "test/web:1", "--name", "web"]);
    assert.equal(code, 1);
    assert.match(err, new RegExp(`the name "web" belongs to ${web}`));
  });

  await step(test, "a request id that comes again on another node is answered, not done twice", async () => {
    const args = ["spawn", "--json", "--image", "test/web:1", "--request-id", "order-17"];
    const first = JSON.parse(await n1.ok(...args, "--node", "n2"));
    await cluster.until("n3 knows it", async () => await find(n3, first.id) !== undefined);
    assert.deepEqual(JSON.parse(await n3.ok(...args)), first);
    assert.equal((await list(n1)).length, 2);
    await n3.ok("stop", first.id, "--grace", "0");
    await gone(first.id);
  });

  await step(test, "rule 2: the list is the same on every node", async () => {
    const [one, ...others] = await Promise.all(agents.map(list));
    assert.deepEqual(one.map(({ id, name, node, status, image }) => ({ id, name, node, status, image })), [
      { id: web, name: "web", node: "n3", status: "running", image: "test/web:1" },
    ]);
    // Proofs come to the others a round later.
    const stated = (view: typeof one) => view.map((each) => ({ ...each, proof: undefined }));
    for (const other of others) assert.deepEqual(stated(other), stated(one));
  });

  await step(
    test,
    "logs, exec, attach and inspect from any node, by id, unique prefix and name",
    async () => {
      for (const agent of [n1, n2]) {
        for (const word of [web, web.slice(0, 6), "web"]) {
          assert.equal(await agent.ok("logs", word), "serving on port 8080\n");
          assert.equal(await agent.ok("exec", word, "hostname"), await n3.ok("exec", web, "hostname"));
          assert.equal(JSON.parse(await agent.ok("inspect", word)).id, web);
        }
        const { code, out } = await agent.cli(["exec", "-i", "web", "sh", "-c", "cat; exit 7"], {
          stdin: "over",
        });
        assert.deepEqual([code, out], [7, "over"]);
      }
      const nobody = await n1.cli(["exec", "nobody", "true"]);
      assert.equal(nobody.code, 125);
      assert.match(nobody.err, /no such id or name in the cluster/);
    },
  );

  await step(
    test,
    "logs -f and attach of another node's workload end when it ends, attach with its exit code",
    async () => {
      const args = ["--image", "test/web:1", "--stdin", "--node", "n3", "--", "sh", "-c"];
      const id = await n1.spawn(
        ...args,
        "while read -r line; do echo got $line; [ $line = end ] && exit 3; done",
      );
      await cluster.until("n2 knows it", async () => await find(n2, id) !== undefined);
      const follower = n2.spawnCli(["logs", "-f", id]);
      const attached = await n1.cli(["attach", id], { stdin: "one\nend\n" });
      assert.match(attached.out, /got one\ngot end/);
      assert.equal(attached.code, 3);
      await n2.ok("stop", id);
      const followed = await follower.output();
      assert.match(new TextDecoder().decode(followed.stdout), /^got one\ngot end\n/);
      await gone(id);
    },
  );
});
