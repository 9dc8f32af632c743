import assert from "node:assert/strict";
import { freePort } from "../tests/support/free_port.ts";
import {
  createSerf,
  type ProbeOutcome,
  type Serf,
  SerfError,
  type SerfEvent,
  type SerfOptions,
} from "./mod.ts";

const LOOPBACK = { host: "127.0.0.1", port: 0 };

function member(name: string, options: Partial<SerfOptions> = {}): Promise<Serf> {
  return createSerf({ name, bind: LOOPBACK, profile: "lan", ...options });
}

function at(serf: Serf): string {
  return `127.0.0.1:${serf.local.port}`;
}

/** Resolves with the first event of a kind. */
function next<K extends SerfEvent["kind"]>(serf: Serf, kind: K): Promise<Extract<SerfEvent, { kind: K }>> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("it did not happen within 60 s")), 60_000);
    const stop = serf.listen((event) => {
      if (event.kind !== kind) return;
      clearTimeout(timer);
      stop();
      resolve(event as unknown as Extract<SerfEvent, { kind: K }>);
    });
  });
}

Deno.test("leave ends in time although nobody takes notice, and twice is once", async () => {
  await using a = await member("a");
  const b = await member("b");
  await b.join([at(a)]);
  await b[Symbol.asyncDispose]();
  const first = a.leave({ timeoutMs: 50 });
  assert.equal(a.leave(), first);
  await first;
});

Deno.test("stopping a node ends its leave, its forced leaves and its retried joins", async () => {
  const a = await member("a");
  await using b = await member("b");
  await a.join([at(b)]);
  const force = a.forceLeave("nobody");
  const leave = a.leave();
  const retry = a.retryJoin(["127.0.0.1:1"]);
  const refused = assert.rejects(() => retry, new SerfError("Cannot go on: this node is stopping"));
  await a[Symbol.asyncDispose]();
  await Promise.all([force, leave, refused]);
  await a.leave();
});

Deno.test("a retried join succeeds once somebody is there", async () => {
  await using a = await member("a");
  const port = freePort();
  const joining = a.retryJoin([`localhost:${port}`, at(a)], { firstPauseMs: 20, longestPauseMs: 40 });
  await using _late = await member("b", { bind: { host: "127.0.0.1", port } });
  assert.equal(await joining, 1);
  assert.equal(a.isAlive("b"), true);
});

Deno.test("changed tags arrive as an update of the member, with all its tags", async () => {
  await using a = await member("a");
  await using b = await member("b", { tags: { role: "db" } });
  await b.join([at(a)]);
  const update = next(a, "member-update");
  b.setTags({ role: "db", dc: "east" });
  const { members: [changed] } = await update;
  assert.deepEqual([changed.name, [...changed.tags]], ["b", [["role", "db"], ["dc", "east"]]]);
  assert.throws(() => b.setTags({ big: "x".repeat(600) }), RangeError);
});

Deno.test("reachability names who answered and who did not", async () => {
  // Nobody finds out that one is gone.
  const timing = { probeIntervalMs: 3_600_000 };
  await using a = await member("a", { timing });
  await using b = await member("b", { timing });
  const c = await member("c", { timing });
  await b.join([at(a)]);
  await c.join([at(a)]);
  const all = await a.reachability({ timeoutMs: 3_600_000 });
  assert.deepEqual([all.members, all.acks.sort(), all.missing], [3, ["a", "b", "c"], []], "it ends early");
  await c[Symbol.asyncDispose]();
  let result = await a.reachability({ timeoutMs: 300 });
  // However slow the machine is: who is there answers in some time.
  for (let timeoutMs = 600; !result.acks.includes("b") && timeoutMs < 60_000; timeoutMs *= 2) {
    result = await a.reachability({ timeoutMs });
  }
  assert.deepEqual([result.acks.sort(), result.missing], [["a", "b"], ["c"]]);
  assert.deepEqual([a.isAlive("c"), a.isAlive("nobody"), a.aliveCount], [true, false, 3]);
});

Deno.test("the limits say exactly what fits, and one byte more is refused", async () => {
  await using a = await member("a", { serf: { userEventSizeLimit: 2_048 } });
  const { limits } = a;
  assert.deepEqual([limits.userEvent, limits.query, limits.response], [2_048, 1_024, 1_024]);
  assert.ok(limits.packet > 1_300 && limits.packet < 1_400);
  const room = limits.eventPayload("deploy");
  a.userEvent("deploy", new Uint8Array(room));
  assert.throws(() => a.userEvent("deploy", new Uint8Array(room + 16)), SerfError);
  const filters = [{ kind: "nodes", nodes: ["a", "b"] } as const].map((filter) => ({
    ...filter,
    nodes: [...filter.nodes],
  }));
  const ask = limits.queryPayload("ask", { filters });
  await a.query("ask", { payload: new Uint8Array(ask), filters, timeoutMs: 1 });
  assert.throws(
    () => a.query("ask", { payload: new Uint8Array(ask + 32), filters, timeoutMs: 1 }),
    SerfError,
  );
  a.listen((event) => event.kind === "query" && a.respond(event, new Uint8Array(limits.responsePayload())));
  const { responses } = await a.query("ask", { timeoutMs: 50 });
  assert.equal(responses[0].payload.length, limits.responsePayload());
});

Deno.test("probe outcomes are told: round-trip times of who answers, failures of who does not", async () => {
  const timing = { probeIntervalMs: 100, probeTimeoutMs: 40 };
  await using a = await member("a", { timing });
  const b = await member("b");
  await b.join([at(a)]);
  const outcomes: ProbeOutcome[] = [];
  const told = (via: ProbeOutcome["via"]) =>
    new Promise<void>((resolve) => {
      const stop = a.listenProbes((outcome) => {
        outcomes.push(outcome);
        if (outcome.via !== via) return;
        stop();
        resolve();
      });
    });
  await told("direct");
  const direct = outcomes.at(-1)!;
  assert.ok(direct.node === "b" && direct.rttMs !== undefined && direct.rttMs >= 0);
  const failed = told("failed");
  await b[Symbol.asyncDispose]();
  await failed;
  assert.equal(outcomes.at(-1)!.rttMs, undefined);
  assert.equal(a.core.reportProbes, false, "nobody listens any more");
});

Deno.test("the key ring can be read, its changes are events, and a key result names who is missing", async () => {
  const [old, fresh] = [1, 2].map((fill) => new Uint8Array(32).fill(fill));
  await using a = await member("a", { keys: [old] });
  const b = await member("b", { keys: [old] });
  await using plain = await member("plain");
  assert.equal(plain.keys(), undefined);
  await b.join([at(a)]);
  const changed = next(b, "keyring");
  assert.ok((await a.installKey(fresh, { timeoutMs: 60_000 })).ok);
  assert.deepEqual((await changed).keys, [old, fresh]);
  assert.ok((await a.useKey(fresh, { timeoutMs: 60_000 })).ok);
  assert.deepEqual(b.keys(), [fresh, old]);
  await b[Symbol.asyncDispose]();
  const result = await a.removeKey(old, { timeoutMs: 300 });
  assert.deepEqual([result.ok, result.answers, result.missing, result.errors.size], [false, 1, ["b"], 0]);
});

Deno.test("queue depth counts what waits to be sent, and goes back to zero", async () => {
  await using a = await member("a", { eager: false, timing: { gossipIntervalMs: 20 } });
  await using b = await member("b");
  await b.join([at(a)]);
  a.userEvent("one");
  a.setTags({ a: "b" });
  const { membership, events, total } = a.queueDepth;
  assert.ok(membership >= 1 && events === 1 && total >= 2);
  for (const end = performance.now() + 60_000; a.queueDepth.total > 0;) {
    assert.ok(performance.now() < end, "the queues do not drain");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});
