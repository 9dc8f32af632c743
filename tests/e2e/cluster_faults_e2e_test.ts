import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { killAndWait } from "./live_agent.ts";
import { findOn, listOn, LiveCluster, step } from "./live_cluster.ts";
import { Load } from "./load.ts";

Deno.test("five agents that fall, are cut off and come back", async (test) => {
  await using cluster = await LiveCluster.start(5, {
    flags: ["--profile", "lan", "--respawn-on-node-failure", "--respawn-quorum", "majority"],
  });
  const { agents, lan } = cluster;
  const [n1, n2, n3, n4, n5] = agents;
  await Promise.all(agents.map((agent) => agent.load(busyboxImage(), "test/web:1")));
  // With --node a workload would be that node's for ever.
  const ids = await Promise.all(
    agents.map(() => n1.spawn("--image", "test/web:1", "--ports", "8080:8080")),
  );
  const hostOf = (id: string) => `${id}.example.com`;
  const hosts = (...some: typeof agents) => some.map(({ host }) => host);
  /** Names of the nodes where a workload's container is, whatever anyone says. */
  const copies = (id: string) =>
    agents.filter((agent) => agent.shimPids(id).length > 0).map(({ name }) => name);
  /** Each workload runs once, all say where, and all serve it. */
  const settled = async () => {
    await cluster.isWhole();
    await cluster.until("each runs once, as everyone knows", async () => {
      const views = await Promise.all(agents.map(listOn));
      return ids.every((id) => {
        const [node, ...more] = copies(id);
        return more.length === 0 &&
          views.every((view) =>
            view.some((each) => each.id === id && each.node === node && each.status === "running")
          );
      });
    });
    await cluster.until("each is served everywhere", async () => {
      const pages = await Promise.all(agents.flatMap((agent) => ids.map((id) => agent.page(id))));
      return pages.every((page) => /Hello/.test(page));
    });
  };
  const startedElsewhere = async (id: string, lost: string) => {
    await cluster.until(`${id} is started elsewhere`, async () => {
      const view = await findOn(n1, id);
      return view !== undefined && view.node !== lost && view.status === "running";
    });
  };
  /** Brings the workload of each of these nodes to it. */
  const placeOn = async (...some: typeof agents) => {
    for (const agent of some) {
      const id = ids[agents.indexOf(agent)];
      if (!copies(id).includes(agent.name)) await n1.ok("move", id, "--to", agent.name);
    }
    await settled();
    for (const agent of some) {
      assert.deepEqual(copies(ids[agents.indexOf(agent)]), [agent.name], await cluster.logs());
    }
  };
  await settled();
  await placeOn(...agents);
  const urls = await Promise.all(ids.map(async (id) => (await findOn(n1, id))!.url));

  await step(test, "kill -9 of containerd: no request to what it runs fails", async () => {
    await using load = new Load(hosts(n1, n2, n3), hostOf(ids[2]));
    const [shims, pid] = [n3.shimPids(ids[2]), n3.containerdPid];
    await killAndWait(pid);
    await load.until(30);
    // It has a pid before it answers.
    await cluster.until("containerd is back", async () => n3.containerdPid !== pid && await n3.isReady());
    await n1.ok("exec", ids[2], "true");
    await load.until(30);
    assert.deepEqual((await load.end()).failures, []);
    assert.deepEqual(n3.shimPids(ids[2]), shims);
  });

  await step(
    test,
    "an agent that hangs: who asks is told so in time or answered by the copy that is started elsewhere, and one is left when it goes on",
    async () => {
      const ask = () =>
        n1.curl("-m", "90", "-w", "%{http_code}", "-H", `Host: ${hostOf(ids[4])}`, "http://127.0.0.1:8080/");
      // Leaves a connection to the node behind, which does not tell that nobody listens any more.
      await ask();
      n5.signal("SIGSTOP");
      const answers = await Promise.all([ask(), ask(), ask()]);
      const served = answers.filter((answer) => /Hello[^]*200$/.test(answer));
      assert(served.length > 0, answers.join("\n"));
      for (const answer of answers.filter((each) => !served.includes(each))) {
        assert.match(answer, /^\{"error":"the workload's node did not accept .{1,200}\}\n504$/);
      }
      await startedElsewhere(ids[4], "n5");
      const [replica] = copies(ids[4]).filter((name) => name !== "n5");
      n5.signal("SIGCONT");
      await settled();
      assert.deepEqual(copies(ids[4]), [replica]);
    },
  );

  await step(
    test,
    "rule 3 and 4: what ran with an agent that was killed, or on a machine that lost its power, is started once elsewhere, and no request fails when they are back",
    async () => {
      await placeOn(n5);
      await Promise.all([n5.end("SIGKILL"), n4.killMachine()]);
      assert.deepEqual(copies(ids[3]), []);
      for (const i of [3, 4]) await startedElsewhere(ids[i], `n${i + 1}`);
      assert.equal(copies(ids[4]).length, 2, "the container of the dead agent runs on");
      const replica = copies(ids[4]).find((name) => name !== "n5");
      for (const agent of [n1, n2, n3]) {
        for (const id of ids) {
          await cluster.until(`${agent.name} serves it`, async () => /Hello/.test(await agent.page(id)));
        }
      }
      await using load = new Load(hosts(n1, n2, n3), ...[0, 1, 2, 4].map((i) => hostOf(ids[i])));
      await Promise.all([n4.run(), n5.run()]);
      // What n4 starts when it is back and what was started elsewhere may be the second of each: either may stay.
      await settled();
      assert.deepEqual(copies(ids[4]), [replica], "the later start counts");
      assert.deepEqual((await load.end()).failures, []);
    },
  );

  await step(
    test,
    "rule 4: of two halves only the majority starts anew what the other has, and after the heal each runs once",
    async () => {
      await placeOn(...agents);
      await lan.cut([3, 4], [0, 1, 2]);
      for (const i of [3, 4]) await startedElsewhere(ids[i], `n${i + 1}`);
      await cluster.until("the minority knows that it is one", async () => {
        const views = await Promise.all([n4, n5].map(listOn));
        return views.every((view) => view.filter(({ status }) => status === "unreachable").length === 3);
      });
      for (const i of [3, 4]) assert.match(await agents[i].page(ids[i]), /Hello/);
      for (const i of [0, 1, 2]) assert.deepEqual(copies(ids[i]), [`n${i + 1}`], await cluster.logs());
      await lan.heal();
      await settled();
      for (const i of [0, 1, 2]) assert.deepEqual(copies(ids[i]), [`n${i + 1}`], await cluster.logs());
    },
  );

  await step(
    test,
    "a node that hears all and is heard by nobody is replaced, and back after the heal",
    async () => {
      await placeOn(n5);
      await lan.cut([4], [0, 1, 2, 3], { oneWay: true });
      await startedElsewhere(ids[4], "n5");
      await lan.heal();
      await settled();
    },
  );

  await step(test, "rule 3: through all of this every URL stayed", async () => {
    for (const agent of agents) {
      const view = await listOn(agent);
      assert.deepEqual(ids.map((id) => view.find((each) => each.id === id)?.url), urls);
    }
  });
});
