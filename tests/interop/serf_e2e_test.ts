import assert from "node:assert/strict";
import { createSerf, type Serf, type SerfEvent, type SerfOptions } from "../../gossip/mod.ts";
import { freePort } from "../support/free_port.ts";
import { ANSWER_FLAG, ANSWER_MS, installSerf, SerfAgent, until } from "./serf_agent.ts";

const KEY = Uint8Array.from({ length: 32 }, (_, i) => i);
/** For all members to do something with a key; it ends when they have, milliseconds. */
const KEYS_MS = 30_000;
const NEW_KEY = Uint8Array.from({ length: 32 }, (_, i) => 100 + i);

await installSerf();

async function ours(name: string, options: Partial<SerfOptions> = {}): Promise<Serf & { seen: SerfEvent[] }> {
  const serf = await createSerf({ name, bind: { host: "127.0.0.1", port: 0 }, profile: "lan", ...options });
  const seen: SerfEvent[] = [];
  serf.listen((event) => seen.push(event));
  return Object.assign(serf, { seen });
}

function here(serf: Serf): string {
  return `127.0.0.1:${serf.local.port}`;
}

function statusOf(serf: Serf, name: string): string | undefined {
  return serf.member(name)?.status;
}

Deno.test("ours joins an agent, tags go both ways and change", async () => {
  await using agent = await SerfAgent.start("real", ["-tag=role=web", "-tag=dc=east"]);
  await using node = await ours("ours", { tags: { a: "b" } });
  assert.equal(await node.join([agent.address]), 1);
  assert.deepEqual(node.member("real")?.tags, new Map([["role", "web"], ["dc", "east"]]));
  await until(
    "the agent sees our tags",
    async () => (await agent.members()).get("ours") === 'alive {"a":"b"}',
  );
  node.setTags({ a: "c", d: "e" });
  await until(
    "the agent sees our new tags",
    async () => (await agent.members()).get("ours")?.includes('"c"'),
  );
  await agent.run("tags", "-set=ver=2", "-delete=dc");
  await until("we see the agent's new tags", () => node.member("real")?.tags.get("ver") === "2");
  assert.equal(node.member("real")?.tags.has("dc"), false);
});

Deno.test("an agent joins ours; events and queries go both ways", async () => {
  await using node = await ours("ours", { tags: { role: "db" } });
  await using agent = await SerfAgent.start("real", ["-tag=role=web"]);
  await agent.run("join", here(node));
  await until("we see the agent", () => statusOf(node, "real") === "alive");
  node.listen((event) => {
    if (event.kind === "query") node.respond(event, `answer to ${event.name}`);
  });

  await agent.run("event", "-coalesce=false", "deploy", "v42");
  await until(
    "the event comes",
    () => node.seen.some((event) => event.kind === "user" && event.name === "deploy"),
  );
  node.userEvent("from-ours", "payload");
  await until("the agent gets our event", () => agent.log.includes("from-ours"));

  const all = await agent.run("query", "-format=json", ANSWER_FLAG, "ask", "what");
  const { Acks, Responses } = JSON.parse(all) as { Acks: string[]; Responses: Record<string, string> };
  assert.deepEqual([Acks.sort(), Responses], [["ours", "real"], { ours: "answer to ask" }]);
  const filtered = await agent.run(
    "query",
    "-format=json",
    ANSWER_FLAG,
    "-no-ack",
    "-tag=role=d.$",
    "ask2",
  );
  assert.deepEqual(JSON.parse(filtered).Responses, { ours: "answer to ask2" });
  const none = await agent.run("query", "-format=json", ANSWER_FLAG, "-no-ack", "-node=someone", "ask3");
  assert.deepEqual(JSON.parse(none).Responses, {});

  const pong = await node.query("_serf_ping", { requestAck: true, timeoutMs: ANSWER_MS });
  assert.deepEqual(pong.acks.sort(), ["ours", "real"]);
  // Its time for the answers is not to be chosen.
  await until("the agent reaches all", async () => (await agent.tryRun("reachability")).ok);
  assert.ok((node.rttMs("real") ?? 0) >= 0);
});

Deno.test("answers are relayed through a third member, by agents and by ours", async () => {
  await using node = await ours("ours");
  await using second = await ours("second");
  await using agent = await SerfAgent.start("real");
  await node.join([agent.address]);
  await second.join([agent.address]);
  await until(
    "all see all",
    () => statusOf(node, "second") === "alive" && statusOf(second, "ours") === "alive",
  );
  second.listen((event) => event.kind === "query" && second.respond(event, "relayed"));
  const result = await agent.run("query", "-format=json", ANSWER_FLAG, "-relay-factor=2", "ask", "x");
  assert.deepEqual(JSON.parse(result).Responses, { second: "relayed" });
  const own = await node.query("ask", { relayFactor: 2, requestAck: true, timeoutMs: ANSWER_MS });
  assert.deepEqual(own.acks.sort(), ["ours", "real", "second"]);
});

Deno.test("leave is seen as left each way", async () => {
  await using node = await ours("ours");
  await using agent = await SerfAgent.start("real");
  await using other = await SerfAgent.start("other");
  await node.join([agent.address]);
  await other.run("join", agent.address);
  await until("we see both", () => statusOf(node, "other") === "alive");
  await other.run("leave");
  await until("the agent left", () => statusOf(node, "other") === "left");
  await node.leave();
  await until("we left", async () => await agent.status("ours") === "left");
});

Deno.test("kill -9 is detected each way, and force-leave ends it", async () => {
  await using node = await ours("ours");
  const victim = await ours("victim");
  await using agent = await SerfAgent.start("real");
  await using doomed = await SerfAgent.start("doomed");
  await node.join([agent.address]);
  await victim.join([agent.address]);
  await doomed.run("join", agent.address);
  await until(
    "all four are seen",
    () => node.members().filter((member) => member.status === "alive").length === 4,
  );
  await doomed.kill("SIGKILL");
  await victim[Symbol.asyncDispose]();
  await until("we see the dead agent", () => statusOf(node, "doomed") === "failed");
  await until("the agent sees our dead node", async () => await agent.status("victim") === "failed");
  await node.forceLeave("doomed");
  await until("our force-leave reaches the agent", async () => await agent.status("doomed") === "left");
  await agent.run("force-leave", "-prune", "victim");
  await until("the agent's force-leave reaches us", () => statusOf(node, "victim") === undefined);
});

Deno.test("encrypted: joins, rotates keys each way, plaintext is refused", async () => {
  await using agent = await SerfAgent.start("real", [`-encrypt=${KEY.toBase64()}`]);
  await using node = await ours("ours", { keys: [KEY] });
  await using plain = await ours("plain");
  await node.join([agent.address]);
  await until("the agent sees us", async () => await agent.status("ours") === "alive");
  await assert.rejects(() => plain.join([agent.address]), /Cannot join/);
  await assert.rejects(() => plain.join([here(node)]), /Cannot join/);
  await using plainAgent = await SerfAgent.start("plain-agent");
  assert.equal((await plainAgent.tryRun("join", here(node))).ok, false);
  assert.equal(node.member("plain-agent"), undefined);

  const installed = await node.installKey(NEW_KEY, { timeoutMs: KEYS_MS });
  assert.deepEqual([installed.ok, installed.answers, [...installed.errors]], [true, 2, []]);
  assert.ok((await node.useKey(NEW_KEY, { timeoutMs: KEYS_MS })).ok);
  assert.ok((await node.removeKey(KEY, { timeoutMs: KEYS_MS })).ok);
  const { keys, primaryKeys } = await node.listKeys({ timeoutMs: KEYS_MS });
  assert.deepEqual([...keys], [[NEW_KEY.toBase64(), 2]]);
  assert.deepEqual([...primaryKeys], [[NEW_KEY.toBase64(), 2]]);
  await agent.run("keys", `-install=${KEY.toBase64()}`);
  await agent.run("keys", `-use=${KEY.toBase64()}`);
  await agent.run("keys", `-remove=${NEW_KEY.toBase64()}`);
  const again = await agent.run("keys", "-list");
  assert.ok(again.includes(KEY.toBase64()) && !again.includes(NEW_KEY.toBase64()), again);
  assert.deepEqual([...(await node.listKeys({ timeoutMs: KEYS_MS })).keys], [[KEY.toBase64(), 2]]);
});

Deno.test("restart with a snapshot rejoins, and old events stay away", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await using agent = await SerfAgent.start("real");
    const snapshotFile = `${dir}/snapshot`;
    const bind = { host: "127.0.0.1", port: freePort() };
    const first = await ours("ours", { snapshotFile, bind });
    await first.join([agent.address]);
    first.userEvent("before");
    await until("the agent has the event", () => agent.log.includes("before"));
    await first[Symbol.asyncDispose]();
    await using second = await ours("ours", { snapshotFile, bind });
    await until("it is back by itself", () => statusOf(second, "real") === "alive");
    await until("the agent sees it", async () => await agent.status("ours") === "alive");
    second.userEvent("after");
    await until("the new event comes", () => second.seen.some((event) => event.kind === "user"));
    assert.equal(second.seen.some((event) => event.kind === "user" && event.name === "before"), false);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("an agent restarts with its snapshot and finds ours", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await using node = await ours("ours");
    const first = await SerfAgent.start("real", [`-snapshot=${dir}/snap`]);
    await first.run("join", here(node));
    await until("we see it", () => statusOf(node, "real") === "alive");
    // The agent flushes its snapshot with the next line it has to write.
    await until("its snapshot names us", async () => {
      node.userEvent("tick");
      return (await Deno.readTextFile(`${dir}/snap`)).includes("alive: ours");
    });
    await first.kill("SIGKILL");
    const port = Number(first.address.split(":")[1]);
    await using second = await SerfAgent.start("real", [`-snapshot=${dir}/snap`], { port });
    await until("it found us", async () => await second.status("ours") === "alive");
    await until("we see it again", () => statusOf(node, "real") === "alive");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a name-conflict vote of an agent is answered, and the agent stays", async () => {
  await using node = await ours("ours");
  await using other = await ours("other");
  await using agent = await SerfAgent.start("real");
  await node.join([agent.address]);
  await other.join([agent.address]);
  await until("all three are seen", () => node.members().length === 3 && other.members().length === 3);
  await using thief = await ours("real");
  await thief.join([agent.address]);
  await until(
    "the agent held its vote",
    () => agent.log.includes("minority") || agent.log.includes("majority"),
  );
  assert.match(agent.log, /majority in name conflict resolution/i);
  assert.equal(await agent.status("real"), "alive");
});

Deno.test("a node that comes back at a new address is accepted within seconds by ours", async () => {
  await using node = await ours("ours");
  await using other = await ours("other");
  const first = await ours("mover");
  await other.join([here(node)]);
  await first.join([here(node)]);
  await until("it is seen", () => statusOf(other, "mover") === "alive");
  await first[Symbol.asyncDispose]();
  await using second = await ours("mover");
  await second.join([here(node)]);
  const moved = (serf: Serf) => serf.member("mover")?.port === second.local.port;
  await until("both see the new address", () => moved(node) && moved(other), 10_000);
  assert.equal(statusOf(node, "mover"), "alive");
});

Deno.test("a node that comes back at a new address is accepted within seconds by agents, which still hold it alive", async () => {
  await using agent = await SerfAgent.start("real");
  await using second = await SerfAgent.start("second");
  await second.run("join", agent.address);
  const first = await ours("mover");
  await first.join([agent.address]);
  await until("both agents see it", async () => {
    return await agent.status("mover") === "alive" && await second.status("mover") === "alive";
  });
  await first[Symbol.asyncDispose]();
  await using back = await ours("mover", { tags: { life: "2" } });
  await back.join([agent.address]);
  const moved = async (at: SerfAgent) => {
    const { members } = JSON.parse(await at.run("members", "-format=json", "-name=mover")) as {
      members: { addr: string; status: string; tags: Record<string, string> }[];
    };
    const [{ addr, status, tags }] = members;
    return status === "alive" && addr === here(back) && tags.life === "2";
  };
  await until(
    "both agents see the new address",
    async () => await moved(agent) && await moved(second),
    15_000,
  );
});

Deno.test("IPv6 loopback works", async () => {
  await using first = await ours("first", { bind: { host: "::1", port: 0 } });
  await using agent = await SerfAgent.start("real", [], { host: "[::1]" });
  await first.join([agent.address]);
  await until("the agent sees us", async () => await agent.status("first") === "alive");
  const { acks } = await first.query("_serf_ping", { requestAck: true, timeoutMs: ANSWER_MS });
  assert.deepEqual(acks.sort(), ["first", "real"]);
});
