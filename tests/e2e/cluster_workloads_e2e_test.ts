import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { TestLan } from "../support/lan.ts";
import {
  ECHO_COMMAND,
  echoImage,
  streamedDown,
  streamedUp,
  talkWebSocket,
  upgraded,
} from "./echo_workload.ts";
import type { LiveAgent } from "./live_agent.ts";
import { findOn, listOn, LiveCluster, memberOf, step } from "./live_cluster.ts";
import { Load } from "./load.ts";
import { refuses } from "./refusals.ts";

Deno.test("workloads of three agents that are one cluster", async (test) => {
  await using cluster = await LiveCluster.start(3, {
    flags: ["--profile", "lan"],
    flagsOf: (i) => [
      ...["--tag", `zone=${["a", "a", "b"][i]}`, "--tag", "disk=ssd"],
      ...i === 1 ? ["--vcpu-limit", "2"] : [],
    ],
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
    everywhere(`${id} is gone`, async (agent) => await findOn(agent, id) === undefined);
  const known = (id: string) =>
    everywhere(`${id} is known`, async (agent) => await findOn(agent, id) !== undefined);
  /** Once all agree where it is, any of them can be told what to do with it next. */
  const knownOn = (node: string) =>
    everywhere(`it is on ${node}`, async (agent) => (await findOn(agent, web))?.node === node);
  let web = "";

  await step(test, "rule 6: constraints, spread and --node say where a workload goes", async () => {
    const nodeOf = async (...args: string[]) =>
      JSON.parse(await n1.ok("spawn", "--json", "--dry-run", "--image", "test/web:1", ...args)).node;
    assert.equal(await nodeOf("--constraint", "zone=b"), "n3");
    assert.equal(await nodeOf("--constraint", "zone!=a", "--constraint", "disk=~^s"), "n3");
    assert.equal(await nodeOf("--node", "n2"), "n2");
    web = await n1.spawn("--image", "test/web:1", "--ports", "8080:8080", "--name", "web", "--node", "n3");
    await known(web);
    assert.notEqual(await nodeOf("--spread", "zone"), "n3");
  });

  await step(
    test,
    "rule 6: the caller gets one error with every node's reason when none takes it",
    async () => {
      const { code, err } = await n2.cli(["spawn", "--image", "test/web:1", "--mem", "8000000"]);
      assert.equal(code, 1);
      // Nodes with the same reason are named together.
      for (const { name } of agents) assert.match(err, new RegExp(`\\b${name}\\b[^:]*: .*memory`));
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
    await known(first.id);
    assert.deepEqual(JSON.parse(await n3.ok(...args)), first);
    for (const agent of agents) assert.equal((await listOn(agent)).length, 2);
    await n3.ok("stop", first.id, "--grace", "0");
    await gone(first.id);
  });

  await step(test, "rule 2: the list is the same on every node", async () => {
    const [one, ...others] = await Promise.all(agents.map(listOn));
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
      const hostname = await n3.ok("exec", web, "hostname");
      for (const agent of [n1, n2]) {
        await Promise.all([web, web.slice(0, 6), "web"].map(async (word) => {
          assert.equal(await agent.ok("logs", word), "serving on port 8080\n");
          assert.equal(await agent.ok("exec", word, "hostname"), hostname);
          assert.equal(JSON.parse(await agent.ok("inspect", word)).id, web);
        }));
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
      await known(id);
      const follower = n2.spawnCli(["logs", "-f", id]);
      let followed = "";
      const following = (async () => {
        for await (const text of follower.stdout.pipeThrough(new TextDecoderStream())) followed += text;
      })();
      const attached = await n1.cli(["attach", id], { stdin: "one\nend\n" });
      assert.match(attached.out, /got one\ngot end/);
      assert.equal(attached.code, 3);
      await cluster.until("the follower is at work", () => followed.includes("got end\n"));
      await n2.ok("stop", id);
      await Promise.all([following, follower.status, follower.stderr.cancel()]);
      assert.match(followed, /^got one\ngot end\n/);
      await gone(id);
    },
  );

  await step(
    test,
    "rule 7: WebSockets, other upgrades and bodies that are streamed either way pass through the hop; the client's address is not forgeable",
    async () => {
      await n3.load(echoImage(), "test/echo:1");
      const args = ["--image", "test/echo:1", "--ports", "8080:8080", "--node", "n3"];
      const id = await n1.spawn(...args, "--", ...ECHO_COMMAND);
      await everywhere("it is served", async (agent) => /^host:/im.test(await agent.page(id)));
      const forged = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6"];
      const headers = [`Host: ${id}.example.com`, ...forged, "X-Real-IP: 6.6.6.6"];
      // From n2, through n1's proxy, to n3.
      const seen = await n2.curl(
        ...headers.flatMap((header) => ["-H", header]),
        `http://${TestLan.address(0)}:8080/`,
      );
      assert.match(seen, /^x-forwarded-for: (.*, )?10\.77\.0\.2$/im);
      assert.match(seen, /^x-forwarded-proto: http$/im);
      assert.match(seen, new RegExp(`^host: ${id}\\.example\\.com$`, "im"));
      assert.doesNotMatch(seen, /^(x-real-ip|forwarded): .*6\.6\.6\.6/im);
      assert.equal(
        await upgraded(n1, id, "ping over the hop\n"),
        "HTTP/1.1 101 Switching Protocols\nping over the hop\n",
      );
      assert.deepEqual(await talkWebSocket(n1, id), {
        text: "hällo",
        isLongWhole: true,
        binary: "0 1 128 255",
        fragments: "one two",
        pong: "are you there?",
        ping: "and you?",
        heardPong: "and you?",
        ownClose: "4001 moved on",
        theirClose: "4002 gone",
      });
      assert.equal(await streamedDown(n1, id, () => n2.ok("exec", id, "touch", "/tmp/go")), "first\nlast\n");
      assert.equal(await streamedUp(n1, id), "whole\n");
      await n1.ok("exec", id, "rm", "/tmp/go");
      const { address } = JSON.parse(await n1.ok("inspect", id));
      let ended: Promise<void> | undefined;
      const body = await streamedDown(n1, id, async () => {
        ended = n3.end("SIGTERM");
        await cluster.until("it is ending", async () => {
          return (await Deno.readTextFile(n3.logFile)).includes("stopping signal=SIGTERM");
        });
        await n3.curl(`http://${address}:8080/go`);
      });
      assert.equal(body, "first\nlast\n", "what is under way when an agent is told to end");
      await ended;
      await n3.run();
      await cluster.isWhole();
      await n1.ok("stop", id, "--grace", "0");
      await gone(id);
    },
  );

  await step(
    test,
    "a workload that cannot move stays as it is, and who asked is told why, in JSON too",
    async () => {
      const big = await n1.spawn("--image", "test/web:1", "--cpu", "2", "--node", "n2");
      await cluster.until("n1 knows that n2 is full", async () => await findOn(n1, big) !== undefined);
      assert.deepEqual(JSON.parse(await n2.ok("cordon", "n1", "--json")), { node: "n1", cordoned: true });
      assert.equal(JSON.parse(await n1.ok("info", "--json")).cordoned, true);
      await everywhere("n1 is cordoned", async (agent) => (await memberOf(agent, "n1"))?.cordoned === true);
      const full = "n2: Cannot admit the workload: 1 vCPUs are asked for, 0 of 2 are left";
      const stays = (node: string) => (out: string) =>
        assert.deepEqual(JSON.parse(out), { id: web, step: "placing", node, detail: "" });
      const unplaced = (reasons: string) => `Cannot place "web": no node takes it (${reasons})`;
      const says = (text: string) => new RegExp(`^hypercore: ${RegExp.escape(text)}$`, "m");
      const nobody = says('Cannot find node "nobody": no node has this name or id');
      await refuses(
        n3,
        [
          {
            args: ["move", "nothing", "--json"],
            code: 1,
            err: /Cannot find workload "nothing": no such id or name/,
          },
          { args: ["move", "no id!"], code: 2, err: /id: "no id!" is not a workload's id or name/ },
          { args: ["move", "web", "--to", "nobody", "--json"], code: 1, err: nobody },
          ...["cordon", "uncordon", "drain"].map((verb) => ({
            args: [verb, "nobody", "--json"],
            code: 1 as const,
            err: nobody,
          })),
          {
            args: ["move", "web", "--to", "n3", "--json"],
            code: 1,
            err: says(`Cannot move workload "${web}": it is on node "n3" already`),
          },
          {
            args: ["move", "web", "--to", "n1", "--json"],
            code: 1,
            err: says(unplaced("n1: it is cordoned")),
            out: stays("n1"),
          },
          {
            args: ["move", "web", "--to", "n2", "--json"],
            code: 1,
            err: says(unplaced(full)),
            out: stays("n2"),
          },
          {
            args: ["move", "web", "--json"],
            code: 1,
            err: says(unplaced(`n1: it is cordoned; ${full}`)),
            out: stays(""),
          },
        ],
        async () =>
          (await listOn(n1)).map(({ id, node, status, generation }) => ({ id, node, status, generation })),
      );
      const drained = await n1.cli(["drain", "n3", "--json"]);
      assert.equal(drained.code, 1);
      const steps = drained.out.trim().split("\n").map((line) => JSON.parse(line));
      const detail = unplaced(`n1: it is cordoned; ${full}`);
      assert.deepEqual(steps.at(-1), { id: web, step: "failed", node: "", detail });
      assert.match(drained.err, says(`Cannot drain "n3": ${web}: ${detail}`));
      // It takes nothing new, and keeps what it could not get rid of.
      assert.equal((await memberOf(n3, "n3"))?.cordoned, true);
      assert.equal((await findOn(n3, web))?.node, "n3");
      for (const node of ["n1", "n3"]) await n2.ok("uncordon", node);
      await everywhere("nobody is cordoned", async (agent) => {
        return !(await agent.ok("members")).includes("cordoned");
      });
      await n1.ok("stop", big, "--grace", "0");
      await gone(big);
    },
  );

  await step(
    test,
    "rule 7: no request fails while a workload moves, and routes go before the container",
    async () => {
      await everywhere("it is served", async (agent) => /Hello/.test(await agent.page("web")));
      await using load = new Load(agents.map(({ host }) => host), `${web}.example.com`);
      await load.until(30);
      for (const node of ["n1", "n2", "n3"]) {
        const from = (await findOn(n2, web))?.node;
        const steps = (await n2.ok("move", "web", "--to", node, "--json")).trim().split("\n");
        assert.deepEqual(steps.map((line) => JSON.parse(line)), [
          { id: web, step: "placing", node, detail: "" },
          { id: web, step: "started", node, detail: "" },
          { id: web, step: "stopping", node: from, detail: "" },
          { id: web, step: "moved", node, detail: "" },
        ]);
        await knownOn(node);
        await load.until(30);
      }
      const { answered, failures } = await load.end();
      assert.deepEqual(failures, []);
      assert(answered >= 120);
      const before = await n3.inventory();
      assert.deepEqual(before.containers, [web]);
    },
  );

  await step(
    test,
    "rule 1 and 7: a rolling restart of all agents fails no request on nodes that are up, withdraws the routes to who ends before its ports close, and restarts no container",
    async () => {
      const local = agents;
      const ids = await Promise.all(local.map(async ({ name }, i) =>
        i === 2 ? web : await n1.spawn(
          "--image",
          "test/web:1",
          "--ports",
          "8080:8080",
          "--name",
          `on-${name}`,
          "--node",
          name,
        )
      ));
      for (const id of ids) {
        await everywhere(`${id} is served`, async (agent) => /Hello/.test(await agent.page(id)));
      }
      const pids = agents.map((agent, i) => agent.shimPids(ids[i]));
      const inspected = async () =>
        await Promise.all(agents.map(async (agent, i) => JSON.parse(await agent.ok("inspect", ids[i])).pid));
      const pidsBefore = await inspected();
      for (const [i, agent] of agents.entries()) {
        const up = agents.filter((each) => each !== agent);
        const hosts = ids.filter((_, each) => each !== i).map((id) => `${id}.example.com`);
        await using load = new Load(up.map(({ host }) => host), ...hosts);
        await using leaving = new Load(agents.map(({ host }) => host), `${ids[i]}.example.com`);
        await Promise.all([load.until(20), leaving.until(20)]);
        await agent.end("SIGTERM");
        await Promise.all([load.until(20), leaving.until(20)]);
        // Who asks elsewhere is never sent to a port that is closed: first all is served, then nothing is known of it.
        const { phases } = await leaving.end();
        for (const { host } of up) assert.deepEqual(phases.get(host.name), ["200", "404"]);
        const closed = "000 Failed to connect to 127.0.0.1 port 8080";
        // What the kernel has taken in and the proxy has not is reset as the port closes.
        const own = phases.get(agent.host.name)!.filter((answer) => !/reset by peer/.test(answer));
        assert.deepEqual(own, ["200", closed]);
        await agent.run();
        await cluster.isWhole();
        await load.until(20);
        assert.deepEqual((await load.end()).failures, [], `while ${agent.name} was restarted`);
        for (const id of ids) {
          await everywhere(`${id} is served again`, async (each) => /Hello/.test(await each.page(id)));
        }
      }
      assert.deepEqual(agents.map((agent, i) => agent.shimPids(ids[i])), pids);
      assert.deepEqual(await inspected(), pidsBefore);
      for (const listed of await listOn(n2)) assert.equal(listed.restarts, 0);
      for (const id of ids.slice(0, 2)) await n3.ok("stop", id, "--grace", "0");
      for (const id of ids.slice(0, 2)) await gone(id);
    },
  );

  await step(
    test,
    "a node that is drained is left empty, and its end fails no request on the others",
    async () => {
      await using load = new Load([n1.host, n2.host], `${web}.example.com`);
      await load.until(20);
      const steps = (await n1.ok("drain", "n3", "--json")).trim().split("\n").map((line) => JSON.parse(line));
      assert.deepEqual(steps.map(({ step }) => step), ["placing", "started", "stopping", "moved"]);
      assert.match(steps[3].node, /^n[12]$/);
      assert.deepEqual(steps[3], { id: web, step: "moved", node: steps[3].node, detail: "" });
      assert.deepEqual((await n3.inventory()).containers, []);
      const { code, err } = await n1.cli(["spawn", "--image", "test/web:1", "--node", "n3"]);
      assert.equal(code, 1);
      assert.match(err, /n3: it is cordoned/);
      await n3.end("SIGTERM");
      await load.until(20);
      assert.deepEqual((await load.end()).failures, []);
      await n3.run();
      await cluster.isWhole();
      assert.deepEqual(JSON.parse(await n1.ok("uncordon", "n3", "--json")), { node: "n3", cordoned: false });
      await everywhere(
        "n3 takes workloads",
        async (agent) => !(await agent.ok("members")).includes("cordoned"),
      );
      await n1.ok("move", "web", "--to", "n3");
      await knownOn("n3");
    },
  );

  await step(
    test,
    "rule 3: what was stopped while its owner was cut off never comes back after the heal",
    async () => {
      await cluster.lan.cut([2], [0, 1]);
      const { code, err } = await n1.cli(["stop", "web"]);
      assert(code === 0 || /ends as soon as it can be reached/.test(err), err);
      await cluster.until("the others forget it", async () => {
        return (await Promise.all([n1, n2].map((agent) => findOn(agent, web)))).every((each) =>
          each === undefined
        );
      });
      assert.match(await n3.page(web), /Hello/);
      await cluster.lan.heal();
      await gone(web);
      await cluster.until(
        "its container is gone",
        async () => (await n3.inventory()).containers.length === 0,
      );
      await cluster.isWhole();
      for (const agent of agents) assert.deepEqual(await listOn(agent), []);
    },
  );

  await step(
    test,
    "rule 1 and 3: a restart of the whole cluster, and a power cut, keep everything",
    async () => {
      const ids = await Promise.all(
        agents.map(({ name }) => n1.spawn("--image", "test/web:1", "--ports", "8080:8080", "--node", name)),
      );
      await everywhere("all are known", async (agent) => (await listOn(agent)).length === 3);
      const before = await listOn(n1);
      const isBack = async (restarts: number) => {
        await cluster.isWhole();
        await everywhere("each runs where it was", async (agent) => {
          const view = await listOn(agent);
          return before.every(({ id, node, url }) =>
            view.some((each) =>
              each.id === id && each.node === node && each.url === url && each.status === "running" &&
              each.restarts === restarts
            )
          );
        });
        for (const id of ids) {
          await everywhere("it is served", async (agent) => /Hello/.test(await agent.page(id)));
        }
        for (const agent of agents) assert.equal((await listOn(agent)).length, 3);
      };
      const pids = ids.map((id, i) => agents[i].shimPids(id));
      await Promise.all(agents.map((agent) => agent.end("SIGTERM")));
      await Promise.all(agents.map((agent) => agent.run()));
      await isBack(0);
      assert.deepEqual(ids.map((id, i) => agents[i].shimPids(id)), pids);
      await Promise.all(agents.map((agent) => agent.killMachine()));
      assert.deepEqual(ids.flatMap((id, i) => agents[i].shimPids(id)), []);
      await Promise.all(agents.map((agent) => agent.run()));
      await isBack(1);
    },
  );
});
