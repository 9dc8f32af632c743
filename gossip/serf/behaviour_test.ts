import assert from "node:assert/strict";
import { Claims } from "../codec/claims.ts";
import { DecodeError } from "../codec/error.ts";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { decodeConflictResponse } from "../codec/serf_internal.ts";
import * as codec from "../codec/serf_messages.ts";
import { concatBytes, utf8 } from "../codec/text.ts";
import { MessageType } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import { Bench } from "../testing.ts";

const ASKER = new Endpoint(new Uint8Array([127, 0, 0, 9]), 99);
const USER = new Uint8Array([MessageType.user]);

function cluster(names: readonly string[], options: Parameters<Bench["add"]>[2] = {}): Bench {
  const bench = new Bench();
  for (const [i, name] of names.entries()) {
    bench.add(name, 1000 + i, options);
    if (i > 0) assert.equal(bench.join(name, names[0]), undefined);
  }
  bench.advance(3_000);
  return bench;
}

function status(bench: Bench, observer: string, name: string): string | undefined {
  return bench.cores.get(observer)!.members.get(name)?.snapshot().status;
}

/** What a member sends straight to a query's author: each Serf message by its receiver. */
function ask(
  bench: Bench,
  of: string,
  query: Partial<codec.QueryMessage>,
): { to: string; message: Uint8Array }[] {
  const sent: { to: string; message: Uint8Array }[] = [];
  bench.onPacket = (from, to, messages) => {
    if (from !== of) return;
    for (const message of messages) {
      const isAnswer = message[1] === codec.SerfType.queryResponse || message[1] === codec.SerfType.relay;
      if (message[0] === MessageType.user && isAnswer) {
        sent.push({ to: to.toString(), message: message.subarray(1) });
      }
    }
  };
  const core = bench.cores.get(of)!;
  const encoded = codec.encodeQuery({
    ltime: core.clocks.query,
    id: 7,
    addr: ASKER.addr,
    port: ASKER.port,
    sourceNode: "asker",
    filters: [],
    flags: 0,
    relayFactor: 0,
    timeoutNs: 1e9,
    name: "ask",
    payload: undefined,
    ...query,
  });
  core.memberlist.receivePacket(bench.nowMs, ASKER, concatBytes([USER, encoded]));
  bench.settle();
  bench.onPacket = undefined;
  return sent;
}

function response(message: Uint8Array): codec.QueryResponseMessage {
  return codec.decodeQueryResponse(new MsgpackReader().reset(message, 1));
}

Deno.test("a conflict vote is answered with the member as it is known, with nothing for a stranger, and not about oneself", () => {
  const bench = cluster(["a", "b"]);
  const vote = (name: string) =>
    ask(bench, "a", { name: "_serf_conflict", payload: utf8(name), id: Math.floor(name.length + 100) });
  const [{ to, message }] = vote("b");
  const { payload } = response(message);
  assert.deepEqual([to, payload![0]], [ASKER.toString(), codec.SerfType.conflictResponse]);
  const member = decodeConflictResponse(new MsgpackReader().reset(payload!, 1))!;
  assert.deepEqual([member.name, member.port, member.status, member.tags.get("name")], ["b", 1001, 1, "b"]);
  const [stranger] = vote("nobody");
  assert.deepEqual(response(stranger.message).payload, new Uint8Array([6, 0xc0]));
  bench.advance(1_000);
  assert.deepEqual(vote("a"), []);
  assert.equal(
    bench.events.get("a")!.some((event) => event.kind === "query"),
    false,
    "applications never see it",
  );
});

Deno.test("a node that loses the vote on its name says so; one that wins, or gets no answer, stays", () => {
  const bench = cluster(["a", "b", "c"]);
  const [a] = bench.cores.values();
  a.queries.voteOnName();
  bench.advance(30_000);
  assert.equal(bench.events.get("a")!.some((event) => event.kind === "name-lost"), false);
  const addr = new Uint8Array([10, 9, 9, 9]);
  for (const name of ["b", "c"]) {
    const node = bench.cores.get(name)!.memberlist.node("a")!;
    node.claim = new Claims().of({ ...a.memberlist.self.toAlive(), addr, port: 1 });
  }
  a.queries.voteOnName();
  bench.advance(30_000);
  const lost = bench.events.get("a")!.find((event) => event.kind === "name-lost");
  assert.deepEqual(lost, { kind: "name-lost", votes: 0, answers: 2 });
  const alone = cluster(["x", "y"]);
  alone.cut("x");
  alone.cores.get("x")!.queries.voteOnName();
  alone.advance(30_000);
  assert.equal(
    alone.events.get("x")!.some((event) => event.kind === "name-lost"),
    false,
    "silence decides nothing",
  );
});

Deno.test("a ping query is acked and nothing else; a relay factor sends the ack over as many others", () => {
  const bench = cluster(["a", "b", "c", "d"]);
  const plain = ask(bench, "a", { name: "_serf_ping", flags: codec.QueryFlag.ack });
  assert.deepEqual(plain.map(({ to, message }) => [to, message[0]]), [[
    ASKER.toString(),
    codec.SerfType.queryResponse,
  ]]);
  const relayed = ask(bench, "a", { name: "_serf_ping", flags: codec.QueryFlag.ack, relayFactor: 2, id: 8 });
  const types = relayed.map(({ message }) => message[0]);
  assert.deepEqual(types, [codec.SerfType.queryResponse, codec.SerfType.relay, codec.SerfType.relay]);
  const over = new Set(relayed.slice(1).map(({ to }) => to));
  assert.equal(over.size, 2);
  assert.equal(over.has(ASKER.toString()), false);
});

Deno.test("a relayed message goes on to where its head says, and an empty one is refused", () => {
  const bench = cluster(["a", "b", "c"]);
  const relays = ask(bench, "a", { name: "_serf_ping", flags: codec.QueryFlag.ack, relayFactor: 1 });
  const { message } = relays.find(({ message }) => message[0] === codec.SerfType.relay)!;
  const forwarded: string[] = [];
  bench.onPacket = (_from, to) => forwarded.push(to.toString());
  const { memberlist } = bench.cores.get("b")!;
  memberlist.receivePacket(bench.nowMs, ASKER, concatBytes([USER, message]));
  bench.settle();
  assert.ok(forwarded.includes(ASKER.toString()));
  const head = message.subarray(0, message.length - response(relays[0].message).from.length - 60);
  assert.ok(memberlist.receivePacket(bench.nowMs, ASKER, concatBytes([USER, head])) instanceof DecodeError);
});

Deno.test("the failed are forgotten after the reconnect time, who left after the tombstone time, each with an event", () => {
  const serf = { reconnectTimeoutMs: 120_000, tombstoneTimeoutMs: 300_000 };
  const bench = cluster(["a", "b", "c"], { serf });
  bench.cores.get("c")!.leave(bench.nowMs, () => {});
  bench.advance(5_000);
  bench.cut("b");
  bench.cut("c");
  bench.advance(60_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "a", "c")], ["failed", "left"]);
  bench.advance(120_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "a", "c")], [undefined, "left"]);
  bench.advance(180_000);
  assert.equal(status(bench, "a", "c"), undefined);
  const reaped = bench.events.get("a")!.flatMap((event) =>
    event.kind === "member-reap" ? event.members.map(({ name }) => name) : []
  );
  assert.deepEqual(reaped, ["b", "c"]);
});

Deno.test("a failed member is tried again until it is back", () => {
  const bench = cluster(["a", "b"]);
  bench.cut("b");
  bench.advance(3_600_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "b", "a")], ["failed", "failed"]);
  bench.cut("b", false);
  bench.advance(90_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "b", "a")], ["alive", "alive"]);
});

Deno.test("a member that was pruned is alive for everyone as soon as it is back, also if nobody asks it to join", () => {
  const bench = cluster(["a", "b", "c"]);
  bench.cut("c");
  bench.advance(60_000);
  bench.cores.get("a")!.forceLeave(bench.nowMs, "c", { prune: false }, () => {});
  bench.advance(5_000);
  bench.cores.get("b")!.forceLeave(bench.nowMs, "c", { prune: true }, () => {});
  bench.advance(5_000);
  for (const observer of ["a", "b"]) assert.equal(status(bench, observer, "c"), undefined);
  bench.cut("c", false);
  const { endpoint } = bench.cores.get("b")!.memberlist.self;
  bench.add("c", 1002).rejoin(bench.nowMs, [{ name: "b", endpoint }]);
  bench.advance(5_000);
  for (const observer of ["a", "b", "c"]) {
    assert.deepEqual(["a", "b", "c"].map((name) => status(bench, observer, name)), Array(3).fill("alive"));
  }
});

Deno.test("who is back after a leave that others still remember says that it is here", () => {
  const bench = cluster(["a", "b"]);
  const { nowMs } = bench;
  const { members } = bench.cores.get("a")!;
  members.leaveIntent({ node: "c", ltime: members.clock.time, prune: false }, nowMs);
  assert.equal(members.intents, 1);
  const { endpoint } = bench.cores.get("a")!.memberlist.self;
  bench.add("c", 1002).rejoin(nowMs, [{ name: "a", endpoint }]);
  bench.advance(60_000);
  for (const observer of ["a", "b", "c"]) assert.equal(status(bench, observer, "c"), "alive");
});

Deno.test("what a push/pull says of somebody unknown who left is not held against who comes by that name", () => {
  const bench = cluster(["a", "b", "c"]);
  bench.cores.get("c")!.leave(bench.nowMs, () => {});
  bench.advance(10_000);
  bench.cut("c");
  bench.add("d", 1003);
  assert.equal(bench.join("d", "a"), undefined);
  const { members } = bench.cores.get("d")!;
  assert.equal(members.intents, 0);
});

Deno.test("a forced leave about a living node is contradicted; about a failed one it spreads", () => {
  const bench = cluster(["a", "b", "c"]);
  bench.cores.get("a")!.forceLeave(bench.nowMs, "b", { prune: false }, () => {});
  bench.advance(5_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "c", "b")], ["alive", "alive"]);
  bench.cut("b");
  bench.advance(60_000);
  bench.cores.get("a")!.forceLeave(bench.nowMs, "b", { prune: false }, () => {});
  bench.advance(5_000);
  assert.deepEqual([status(bench, "a", "b"), status(bench, "c", "b")], ["left", "left"]);
});
