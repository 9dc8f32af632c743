import assert from "node:assert/strict";
import { Keyring } from "../codec/keyring.ts";
import { utf8 } from "../codec/text.ts";
import { Bench } from "../testing.ts";
import { LONE_QUEUE_DEPTH } from "./broadcasts.ts";
import { SerfError } from "./queries.ts";

const OLD_KEY = Uint8Array.from({ length: 32 }, (_, i) => i);

function cluster(names: readonly string[], options: Parameters<Bench["add"]>[2] = {}): Bench {
  const bench = new Bench();
  for (const [i, name] of names.entries()) {
    bench.add(name, 1000 + i, options);
    if (i > 0) assert.equal(bench.join(name, names[0]), undefined);
  }
  bench.advance(1000);
  return bench;
}

function status(bench: Bench, observer: string, name: string): string | undefined {
  return bench.cores.get(observer)!.members.get(name)?.snapshot().status;
}

function kinds(bench: Bench, name: string): string[] {
  return bench.events.get(name)!.map((event) => event.kind);
}

Deno.test("serf shows who left as left, and who fell silent as failed", () => {
  const bench = cluster(["a", "b", "c"]);
  let left = false;
  bench.cores.get("b")!.leave(bench.nowMs, () => left = true);
  bench.advance(5_000);
  assert.ok(left);
  bench.cut("c");
  bench.advance(60_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "a", "c")], ["left", "failed"]);
});

Deno.test("serf turns a failed member into one that left by force, and prunes it", () => {
  const bench = cluster(["a", "b", "c", "d"]);
  bench.cut("c");
  bench.cut("d");
  bench.advance(90_000);
  bench.cores.get("a")!.forceLeave(bench.nowMs, "c", { prune: false }, () => {});
  bench.cores.get("a")!.forceLeave(bench.nowMs, "d", { prune: true }, () => {});
  bench.advance(5_000);
  assert.deepEqual([status(bench, "b", "c"), status(bench, "b", "d")], ["left", undefined]);
});

Deno.test("serf contradicts a leave intent about a node that stays", () => {
  const bench = cluster(["a", "b", "c"]);
  bench.cores.get("a")!.forceLeave(bench.nowMs, "b", { prune: false }, () => {});
  bench.advance(5_000);
  assert.equal(status(bench, "a", "b"), "alive");
});

Deno.test("serf delivers each event once to everyone, also one that fits no packet", () => {
  const bench = cluster(["a", "b", "c", "d"], { serf: { userEventSizeLimit: 4_000 } });
  bench.cores.get("a")!.userEvent(bench.nowMs, "small", utf8("x"), { coalesce: false });
  bench.cores.get("b")!.userEvent(bench.nowMs, "large", new Uint8Array(3_000), { coalesce: false });
  bench.advance(30_000);
  for (const name of bench.cores.keys()) {
    const events = bench.events.get(name)!.flatMap((event) => event.kind === "user" ? [event.name] : []);
    assert.deepEqual(events.sort(), ["large", "small"], name);
  }
});

Deno.test("a node that knows no other keeps few of the events it has sent; who joins hears the newest", () => {
  const bench = cluster(["a"]);
  for (let i = 0; i < 300; i++) {
    bench.cores.get("a")!.userEvent(bench.nowMs, `e${i}`, utf8("x"), { coalesce: false });
    bench.advance(1_000);
  }
  const { eventQueue, dropped } = bench.cores.get("a")!.sizes;
  assert.deepEqual([eventQueue, dropped], [LONE_QUEUE_DEPTH, 0]);
  bench.add("b", 1001);
  const to = bench.cores.get("a")!.memberlist.self.endpoint;
  bench.cores.get("b")!.join(
    bench.nowMs,
    to,
    { ignoreOld: false },
    (error) => assert.equal(error, undefined),
  );
  bench.advance(5_000);
  const heard = bench.events.get("b")!.flatMap((event) => event.kind === "user" ? [event.name] : []);
  assert.ok(heard.includes("e299"), `${heard.length} events were heard`);
});

Deno.test("serf refuses events and queries beyond their limits by name and number", () => {
  const bench = cluster(["a"]);
  const [core] = bench.cores.values();
  const send = () => core.userEvent(0, "big", new Uint8Array(600), { coalesce: true });
  assert.throws(send, new SerfError('Cannot send event "big": 603 bytes exceed the limit of 512'));
  const ask = () => core.query(0, "big", new Uint8Array(1000), { handler: { onDone() {} } });
  assert.throws(ask, /Cannot send query "big": \d+ bytes exceed the limit of 1024/);
});

Deno.test("serf refuses a query whose filter is no regular expression", () => {
  const bench = cluster(["a"]);
  const [core] = bench.cores.values();
  const filters = [{ kind: "tag" as const, tag: "zone", expr: "us-[" }];
  const ask = () => core.query(0, "ask", utf8("?"), { filters, handler: { onDone() {} } });
  assert.throws(ask, /^SerfError: Cannot send query "ask": tag "zone": "us-\[" is no regular expression: /);
  assert.equal(core.sizes.openQueries, 0);
});

Deno.test("serf answers a query once, from whom the filters take, until its time is over", () => {
  const bench = cluster(["a", "b", "c"]);
  const got: string[] = [];
  let done = false;
  bench.cores.get("a")!.query(bench.nowMs, "ask", utf8("?"), {
    filters: [{ kind: "tag", tag: "name", expr: "^[bc]$" }, { kind: "nodes", nodes: ["a", "b"] }],
    requestAck: true,
    timeoutMs: 2_000,
    handler: {
      onAck: (from) => got.push(`ack ${from}`),
      onResponse: (from, payload) => got.push(`${from} ${new TextDecoder().decode(payload)}`),
      onDone: () => done = true,
    },
  });
  bench.settle();
  assert.deepEqual(kinds(bench, "c").filter((kind) => kind === "query"), []);
  const query = bench.events.get("b")!.find((event) => event.kind === "query")!;
  assert.ok(query.kind === "query");
  bench.cores.get("b")!.respond(bench.nowMs, query, utf8("!"));
  assert.throws(() => bench.cores.get("b")!.respond(bench.nowMs, query, utf8("!")), SerfError);
  bench.settle();
  assert.deepEqual([got, done], [["ack b", "b !"], false]);
  bench.advance(2_001);
  assert.ok(done);
  assert.equal(bench.cores.get("a")!.sizes.openQueries, 0);
  assert.equal(bench.cores.get("b")!.sizes.unansweredQueries, 0);
});

Deno.test("serf's halves find each other after a partition longer than any memory of the failed", () => {
  const forgetful = { serf: { reconnectTimeoutMs: 60_000, tombstoneTimeoutMs: 60_000 } };
  const bench = cluster(["a", "b"], forgetful);
  bench.cut("b");
  bench.advance(30 * 3_600_000);
  assert.equal(status(bench, "a", "b"), undefined, "it is long forgotten");
  bench.cut("b", false);
  bench.advance(120_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "b", "a")], ["alive", "alive"]);
});

Deno.test("serf gathers member and user events where it is told to", () => {
  const window = { periodMs: 3_000, quiescentMs: 1_000 };
  const bench = new Bench();
  bench.add("a", 1000, { serf: { coalesceMembers: window, coalesceUserEvents: window } });
  for (const [i, name] of ["b", "c"].entries()) {
    bench.add(name, 1001 + i);
    bench.join(name, "a");
  }
  const b = bench.cores.get("b")!;
  for (const payload of ["1", "2", "3"]) {
    b.userEvent(bench.nowMs, "deploy", utf8(payload), { coalesce: true });
  }
  bench.settle();
  assert.deepEqual(bench.events.get("a"), []);
  bench.advance(4_000);
  const [members, user] = bench.events.get("a")!;
  assert.ok(members.kind === "member-join" && user.kind === "user");
  assert.deepEqual(members.members.map((member) => member.name).sort(), ["a", "b", "c"]);
  assert.deepEqual([user.payload, bench.events.get("a")!.length], [utf8("3"), 2]);
});

Deno.test("serf keeps clusters with different labels or keys apart", () => {
  const bench = new Bench();
  bench.add("a", 1000, { label: "blue" });
  bench.add("b", 1001, { label: "green" });
  bench.add("c", 1002, { keyring: new Keyring([OLD_KEY]) });
  bench.add("d", 1003, { label: "blue" });
  assert.match(bench.join("b", "a")!, /label is another cluster's/);
  assert.match(bench.join("c", "a")!, /Cannot decode/);
  assert.equal(bench.join("d", "a"), undefined);
});
