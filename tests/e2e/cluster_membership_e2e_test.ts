import assert from "node:assert/strict";
import { TestLan } from "../support/lan.ts";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";
import { aliveNames, isWhole, type ListedMember, memberOf, step } from "./live_cluster.ts";
import { refuses } from "./refusals.ts";

const HOSTS = 4;
/** All answers to a query come within this, milliseconds. */
const ANSWER_MS = 6_000;

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
  /** What a command that fails must leave as it was. A member's status is not of it: that changes by itself, too. */
  const facts = async () => {
    const members: ListedMember[] = JSON.parse(await n1.ok("members", "--json"));
    const rings = await Promise.all([n1, n2].map(async (agent) => await agent.ok("keys", "show", "--json")));
    return { members: members.map(({ name, cordoned }) => ({ name, cordoned })), rings };
  };

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
    assert.equal(await goneAs(n1, "n3"), "left");
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
    await refuses(n1, [
      ...["cordon", "drain"].map((verb) => ({
        args: [verb, "n3", "--json"],
        code: 1 as const,
        err: /: Cannot reach node "n3": connection refused$/m,
      })),
      {
        args: ["move", id, "--to", "n1"],
        code: 1,
        err: new RegExp(`"${id}": its node "n3" is not there$`, "m"),
      },
      {
        args: ["rtt", "n2", "n3"],
        code: 1,
        err: /Cannot tell the round-trip time to "n2": "n3" is failed$/m,
      },
    ], facts);
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

  await step(
    test,
    "force-leave declares a failed node gone, --prune forgets it; it is back when it starts again",
    async () => {
      await refuses(n1, [
        { args: ["force-leave", "nobody"], code: 1, err: /Cannot make node "nobody" leave: no member has / },
        ...["n1", "n2"].map((name) => ({
          args: ["force-leave", name, "--prune", "--json"],
          code: 1 as const,
          err: new RegExp(`Cannot make node "${name}" leave: it is alive; run "hypercore leave" on it$`, "m"),
        })),
      ], facts);
      await n3.end("SIGKILL");
      await until("n1 sees it failed", async () => (await memberOf(n1, "n3"))?.status === "failed");
      assert.deepEqual(JSON.parse(await n1.ok("force-leave", "n3", "--json")), { node: "n3" });
      for (const agent of [n1, n2]) {
        await until(
          `${agent.name} sees it left`,
          async () => (await memberOf(agent, "n3"))?.status === "left",
        );
      }
      assert.deepEqual(JSON.parse(await n2.ok("force-leave", "n3", "--prune", "--json")), { node: "n3" });
      for (const agent of [n1, n2]) {
        await until(`${agent.name} has forgotten it`, async () => await memberOf(agent, "n3") === undefined);
      }
      await n3.run();
      await isWhole(agents);
    },
  );

  await step(
    test,
    "events and queries of operators reach every node, and the agents' own names are refused",
    async () => {
      await using followers = new AsyncDisposableStack();
      const streams = await Promise.all(agents.map(async (agent) => followers.use(await follow(agent))));
      assert.deepEqual(JSON.parse(await n1.ok("event", "deploy", "version 7", "--json")), { name: "deploy" });
      for (const { name, shows } of streams) {
        const wanted = { kind: "user", what: "deploy", payload: "version 7" };
        await until(`${name} shows the event`, () => shows(wanted));
      }
      const ask = async (...args: string[]) =>
        JSON.parse(await n2.ok("query", "anyone", "--timeout", `${ANSWER_MS}`, "--json", ...args));
      const [all, one] = await Promise.all([ask(), ask("--node", "n3")]);
      assert.deepEqual(all.acks.toSorted(), ["n1", "n2", "n3"]);
      assert.deepEqual(one, { acks: ["n3"], responses: [] });
      const long = "x".repeat(3_000);
      await refuses(n1, [
        {
          args: ["event", "hypercore_state_delta", "x"],
          code: 1,
          err: /"hypercore_state_delta": .*agents' own/,
        },
        { args: ["event", "", "x", "--json"], code: 1, err: /Cannot send event "": it needs a name/ },
        {
          args: ["event", "e", long, "--json"],
          code: 1,
          err: /event "e": 3001 bytes exceed the limit of 2048/,
        },
        { args: ["query", "", "--json"], code: 1, err: /Cannot ask "": a query needs a name/ },
        {
          args: ["query", "q", long, "--json"],
          code: 1,
          err: /query "q": \d+ bytes exceed the limit of 1024/,
        },
        { args: ["query", "q", "--node", "nobody"], code: 1, err: /node "nobody": no member has this name/ },
        {
          args: ["query", "q", "--tag", "zone=["],
          code: 1,
          err: /tag "zone": "\[" is no regular expression/,
        },
        {
          args: ["query", "q", "--timeout", "0"],
          code: 2,
          err: /--timeout .*"0" is not a whole number from 1/,
        },
      ], facts);
      for (const { name, shows } of streams) assert(!shows({ kind: "user", what: "e" }), name);
    },
  );

  await step(test, "rtt, reachability and info tell what the cluster is like", async () => {
    for (const to of [[], ["n3"]]) {
      const isKnown = async () => (await n1.cli(["rtt", "n2", ...to])).code === 0;
      await until("the round-trip time is known", isKnown);
    }
    const rtt = JSON.parse(await n1.ok("rtt", "n2", "--json"));
    assert(rtt.rttMs >= 0);
    assert.deepEqual([rtt.from, rtt.to], ["n2", "n1"]);
    await refuses(n1, [
      {
        args: ["rtt", "nobody", "--json"],
        code: 1,
        err: /Cannot find node "nobody": no member has this name/,
      },
      { args: ["rtt", "n2", "nobody"], code: 1, err: /Cannot find node "nobody": no member has this name/ },
      { args: ["members", "--status", "gone"], code: 2, err: /--status: "gone" is none of alive, leaving, / },
    ], facts);
    const { members, acked, missing } = JSON.parse(await n1.ok("reachability", "--json"));
    assert.equal(members, 3);
    assert.deepEqual(acked.toSorted(), ["n1", "n2", "n3"]);
    assert.deepEqual(missing, []);
    await until("n2 knows what n3 runs", async () => (await n2.list()).length === 1);
    const info = JSON.parse(await n2.ok("info", "--json"));
    assert.equal(info.node, "n2");
    assert.equal(info.nodeId, ids[1]);
    assert.equal(info.gossipAddress, `${TestLan.address(1)}:7946`);
    assert.equal(info.gossipEncrypted, true);
    assert.equal(info.membersAlive, 3);
    assert.equal(info.clusterWorkloads, 1);
    assert.match(await n1.ok("rtt", "n2", "n3"), /^n2 and n3: \d+\.\d{3} ms$/m);
    assert.match(await n1.ok("reachability"), /^3 of 3 living members answered$/m);
    assert.match(await n2.ok("info"), /^gossip +10\.77\.0\.2:7946, encrypted$/m);
    assert.match(await n2.ok("members"), /^n2\* /m);
  });

  await step(
    test,
    "keys are installed, used and removed in the whole cluster, and everything goes on",
    async () => {
      const old = joinLine.split("@")[0];
      const { key } = JSON.parse(await n1.ok("keygen", "--json"));
      assert.equal(Uint8Array.fromBase64(key).length, 32);
      const stranger = (await n1.ok("keygen")).trim();
      const everyone = { members: 3, answers: 3, errors: {}, keys: [] };
      const keys = async (agent: LiveAgent, ...args: string[]) =>
        JSON.parse(await agent.ok("keys", ...args, "--json"));
      assert.deepEqual(await keys(n1, "install", key), everyone);
      const both = [{ key: old, nodes: 3, primaryOn: 3 }, { key, nodes: 3, primaryOn: 0 }];
      const byKey = (a: { key: string }, b: { key: string }) => a.key < b.key ? -1 : 1;
      assert.deepEqual((await keys(n3, "list")).keys.toSorted(byKey), both.toSorted(byKey));
      assert.deepEqual(await keys(n2, "use", key), everyone);
      const inUse = { key, nodes: 1, primaryOn: 1 };
      for (const agent of agents) {
        const { members, answers, errors, keys: own } = await keys(agent, "show");
        assert.deepEqual([members, answers, errors], [1, 1, {}]);
        assert.deepEqual(own, [inUse, { key: old, nodes: 1, primaryOn: 0 }]);
      }
      /** Each node's reason, by name. */
      const everywhere = (reason: RegExp) => (out: string) => {
        const { members, answers, errors } = JSON.parse(out);
        assert.deepEqual([members, answers, Object.keys(errors).toSorted()], [3, 3, ["n1", "n2", "n3"]]);
        for (const each of Object.values<string>(errors)) assert.match(each, reason);
      };
      await refuses(n1, [
        {
          args: ["keys", "remove", key, "--json"],
          code: 1,
          err: /Cannot remove the key everywhere: .*n1: removing the primary key is not allowed/,
          out: everywhere(/^removing the primary key is not allowed$/),
        },
        {
          args: ["keys", "use", stranger, "--json"],
          code: 1,
          err: /Cannot use the key everywhere: .*n2: requested key is not in the keyring/,
          out: everywhere(/^requested key is not in the keyring$/),
        },
        {
          args: ["keys", "remove", stranger, "--json"],
          code: 1,
          err: /no member that answers has this key$/m,
        },
        {
          args: ["keys", "install", "!", "--json"],
          code: 2,
          err: /keys install: the gossip key is not base64$/m,
        },
        {
          args: ["keys", "use", "c2hvcnQ="],
          code: 2,
          err: /keys use: the gossip key has 5 bytes; it must have /,
        },
        { args: ["keys", "remove", "--json"], code: 2, err: /keys remove: give the key$/m },
        { args: ["keys", "list", key], code: 2, err: /keys list: takes no key$/m },
        {
          args: ["keys", "turn", key],
          code: 2,
          err: /'turn' is invalid .*show, list, install, use, remove, rotate/,
        },
      ], facts);
      assert.deepEqual(await keys(n3, "remove", old), everyone);
      assert.deepEqual((await keys(n1, "list")).keys, [{ key, nodes: 3, primaryOn: 3 }]);
      assert.match(
        await n2.ok("keys", "show"),
        new RegExp(`join with: .*--join ${RegExp.escape(key)}@10.77.0.2:7946`),
      );
      for (const agent of agents) assert.match(await agent.page(id), /Hello/);
      await n1.ok("exec", id, "true");
      await n3.end("SIGTERM");
      n3.flags = [...n3.flags, "--join", `${key}@${TestLan.address(0)}`];
      await n3.run();
      await isWhole(agents);
    },
  );

  await step(
    test,
    "join makes a running agent a member, and every node's event stream tells it",
    async () => {
      await using stream = await follow(n3);
      const key = (await n1.ok("keys", "show")).split(" ")[0];
      const n4 = await prepare(3, "--encrypt", key);
      await n4.run();
      const nobody = `${TestLan.address(0)}:1`;
      await refuses(n4, [
        {
          args: ["join", `${key}@${TestLan.address(0)}`],
          code: 2,
          err: /a running agent has its key; leave it out/,
        },
        { args: ["join", nobody, "--json"], code: 1, err: new RegExp(`Cannot join "${nobody}": .*refused`) },
        { args: ["join", "10.77.0.1:0"], code: 2, err: /"10\.77\.0\.1:0" has a port outside 1 to 65535/ },
        { args: ["join", "no host"], code: 2, err: /"no host" is not an address to join/ },
      ], async () => await aliveNames(n4));
      assert.deepEqual(JSON.parse(await n4.ok("join", TestLan.address(0), "--json")), { joined: 1 });
      await isWhole([...agents, n4]);
      await until("the stream tells it", () => stream.shows({ kind: "member", node: "n4", what: "joined" }));
      assert.deepEqual(JSON.parse(await n4.ok("leave", "--json")), { left: true });
      await n4.ended();
      await until("the stream tells it", () => stream.shows({ kind: "member", node: "n4", what: "left" }));
      await isWhole(agents);
    },
  );

  await step(test, "leave makes an agent go in order and end; its containers run on", async () => {
    assert.match(await n3.ok("leave"), /left; the agent ends/);
    await n3.ended();
    assert.equal(await goneAs(n1, "n3"), "left");
    assert.equal(n3.shimPids(id).length, 1);
    await n3.run();
    await isWhole(agents);
    await n1.ok("stop", id);
    await until("it is gone everywhere", async () => {
      return (await Promise.all(agents.map((agent) => agent.list()))).every((list) => list.length === 0);
    });
  });
});

/** What has become of a member when an agent no longer takes it for one. */
async function goneAs(agent: LiveAgent, name: string): Promise<string | undefined> {
  let status: string | undefined;
  await until(`${agent.name} sees that ${name} is gone`, async () => {
    status = (await memberOf(agent, name))?.status;
    return status !== "alive" && status !== "leaving";
  });
  return status;
}

/** Follows what happens in the cluster, as one agent tells it; resolves when the agent tells something. */
async function follow(agent: LiveAgent) {
  const child = agent.spawnCli(["events", "--json"]);
  const seen: Record<string, unknown>[] = [];
  const read = (async () => {
    let rest = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      seen.push(...lines.map((line) => JSON.parse(line)));
    }
  })();
  const stream = {
    name: agent.name,
    /** Whether there was an event with all of this. */
    shows: (wanted: Record<string, unknown>) =>
      seen.some((event) => Object.entries(wanted).every(([key, value]) => event[key] === value)),
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      await Promise.all([child.status, read, child.stderr.cancel()]);
    },
  };
  // Something to see, so that it is certain that all that follows is seen.
  await until(`${agent.name} tells what happens`, async () => {
    await agent.ok("event", `ready-${agent.name}`);
    return stream.shows({ what: `ready-${agent.name}` });
  });
  return stream;
}
