import assert from "node:assert/strict";
import { TestLan } from "../support/lan.ts";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";
import { aliveNames, isWhole, memberOf, step } from "./live_cluster.ts";

const HOSTS = 4;

Deno.test("membership of three agents with the key that the first one made", async (test) => {
  await using undo = new AsyncDisposableStack();
  const lan = undo.use(await TestLan.create(HOSTS));
  const prepare = async (i: number, ...flags: string[]) =>
    undo.use(
      await LiveAgent.prepare({
        host: lan.hosts[i],
        name: `n${i + 1}`,
        flags: ["--cluster-bind-addr", `${TestLan.address(i)}:7946`, "--profile", "lan", ...flags],
      }),
    );
  const n1 = await prepare(0);
  await n1.run();
  let joinLine = "";

  await step(
    test,
    "an agent that gossips beyond loopback makes a key and prints the ready join line",
    async () => {
      const log = await Deno.readTextFile(n1.logFile);
      joinLine = /hypercore agent --join (\S+@10\.77\.0\.1:7946)/.exec(log)?.[1] ?? "";
      const [key] = joinLine.split("@");
      assert.equal(Uint8Array.fromBase64(key).length, 32);
      const shown = await n1.ok("keys", "show");
      assert(shown.includes(`join with: hypercore agent --join ${joinLine}\n`), shown);
      const { mode } = await Deno.stat(`${n1.dataDir}/gossip.keyring`);
      assert.equal(mode! & 0o777, 0o600);
    },
  );

  await step(
    test,
    "a joiner without the key gets one error that says where to find it, and exit code 1",
    async () => {
      const stranger = await prepare(3, "--join", TestLan.address(0));
      const { code, err, out } = await stranger.runToEnd();
      assert.equal(code, 1);
      assert.equal(out, "");
      assert.equal(err.match(/^\S+ error /gm)?.length, 1, err);
      assert.match(err, /Cannot join .*10\.77\.0\.1.*key is missing.*hypercore keys show/);
    },
  );

  const n2 = await prepare(1, "--join", joinLine);
  const n3 = await prepare(2, "--join", joinLine);
  const agents = [n1, n2, n3];
  let ids: string[] = [];

  await step(test, "agents that start before their seed join it when it comes", async () => {
    await n1.end("SIGTERM");
    await Promise.all([n2.run(), n3.run()]);
    await until("they are alone", async () => (await aliveNames(n2)).length === 1);
    await n1.run();
    await isWhole(agents);
    ids = await Promise.all(agents.map(async (agent) => (await memberOf(agent, agent.name))!.id));
    assert.equal(new Set(ids).size, 3);
    for (const agent of agents) {
      const members = await Promise.all(agents.map(({ name }) => memberOf(agent, name)));
      assert.deepEqual(members.map((member) => member?.id), ids);
      assert.deepEqual(
        members.map((member) => member?.address),
        [0, 1, 2].map((i) => `${TestLan.address(i)}:7946`),
      );
      assert(members.every((member) => member?.kind === "hypercore" && member.status === "alive"));
      assert.equal(members.filter((member) => member?.isSelf).length, 1);
    }
  });

  await n3.load(busyboxImage(), "test/web:1");
  const id = await n3.spawn("--image", "test/web:1", "--ports", "8080:8080");
  await until("n1 serves it", async () => /Hello/.test(await n1.page(id)));

  await step(test, "SIGTERM says goodbye: left, not failed, and nobody is routed to it", async () => {
    await n3.end("SIGTERM");
    assert.equal((await memberOf(n1, "n3"))?.status, "left");
    assert.doesNotMatch(await n1.page(id), /Hello/);
    assert.doesNotMatch(await n2.page(id), /Hello/);
    const left = (await n1.list()).find((workload) => workload.id === id);
    assert.equal(left?.status, "unreachable");
  });

  await step(
    test,
    "a restarted agent rejoins from its snapshot, without --join, as the same node",
    async () => {
      const { flags } = n3;
      n3.flags = flags.filter((flag) => flag !== "--join" && flag !== joinLine);
      await n3.run();
      await isWhole(agents);
      assert.equal((await memberOf(n1, "n3"))?.id, ids[2]);
      await until("n1 serves it again", async () => /Hello/.test(await n1.page(id)));
    },
  );

  await step(test, "kill -9 is a failure, and the node is back as soon as its agent is", async () => {
    await n3.end("SIGKILL");
    await until("n1 sees it failed", async () => (await memberOf(n1, "n3"))?.status === "failed");
    await n3.run();
    await isWhole(agents);
    assert.equal((await memberOf(n1, "n3"))?.id, ids[2]);
    await until("n2 serves it again", async () => /Hello/.test(await n2.page(id)));
  });

  await step(
    test,
    "a node is back at another address, as the same node, and its workloads answer",
    async () => {
      await n3.end("SIGKILL");
      const address = "10.77.0.30";
      const host = lan.hosts[2];
      await host.run("ip", "address", "delete", `${TestLan.address(2)}/24`, "dev", "lan0");
      await host.run("ip", "address", "add", `${address}/24`, "dev", "lan0");
      n3.flags = n3.flags.map((flag) => flag === `${TestLan.address(2)}:7946` ? `${address}:7946` : flag);
      await n3.run();
      await isWhole(agents);
      for (const agent of agents) {
        await until(`${agent.name} knows the address`, async () => {
          return (await memberOf(agent, "n3"))?.address === `${address}:7946`;
        });
        assert.equal((await memberOf(agent, "n3"))?.id, ids[2]);
        await until(`${agent.name} serves it`, async () => /Hello/.test(await agent.page(id)));
      }
    },
  );
});
