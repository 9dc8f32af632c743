import assert from "node:assert/strict";
import { encodeCompound } from "./codec/compound.ts";
import { LIMITS } from "./codec/limits.ts";
import { encodeAck, encodeAlive, encodeDead, encodeSuspect } from "./codec/messages.ts";
import { MsgpackWriter } from "./codec/msgpack_writer.ts";
import { decodePushPull, encodePushPull } from "./codec/push_pull.ts";
import { MsgpackReader } from "./codec/msgpack_reader.ts";
import * as serf from "./codec/serf_messages.ts";
import { decodeSerfPushPull, emptySerfPushPull, encodeSerfPushPull } from "./codec/serf_push_pull.ts";
import { concatBytes, utf8 } from "./codec/text.ts";
import { NodeState } from "./codec/types.ts";
import { Endpoint } from "./endpoint.ts";
import { LamportClock, MAX_ADOPTED, MAX_LEAP } from "./serf/lamport.ts";
import { Bench } from "./testing.ts";

const FROM = new Endpoint(new Uint8Array([127, 0, 0, 9]), 9);
const VSN = new Uint8Array([1, 5, 2, 2, 5, 4]);
const USER = new Uint8Array([8]);

function two(): Bench {
  const bench = new Bench();
  bench.add("a", 1000);
  bench.add("b", 1001);
  assert.equal(bench.join("b", "a"), undefined);
  bench.advance(2_000);
  return bench;
}

/** Lets `a` receive a packet from nowhere. */
function inject(bench: Bench, packet: Uint8Array): void {
  bench.cores.get("a")!.memberlist.receivePacket(bench.nowMs, FROM, packet);
  bench.advance(1_000);
}

function stateOf(bench: Bench, observer: string, name: string): number | undefined {
  return bench.cores.get(observer)!.memberlist.node(name)?.state;
}

/** A Serf message whose Lamport time is any 64-bit number. */
function withTime(encode: (ltime: number) => Uint8Array, ltime: bigint): Uint8Array {
  const marker = 0x1234_5678;
  const bytes = encode(marker);
  const at = bytes.findIndex((byte, i) =>
    byte === 0xce && bytes[i + 1] === 0x12 && bytes[i + 2] === 0x34 && bytes[i + 3] === 0x56 &&
    bytes[i + 4] === 0x78
  );
  assert.ok(at > 0);
  const wide = new Uint8Array(9);
  wide[0] = 0xcf;
  new DataView(wide.buffer).setBigUint64(1, ltime);
  return concatBytes([bytes.subarray(0, at), wide, bytes.subarray(at + 5)]);
}

const TIMES = [2n ** 64n - 1n, 2n ** 63n, 2n ** 53n, 2n ** 53n - 2n, 2n ** 48n, 2n ** 33n];

for (const time of TIMES) {
  Deno.test(`events, queries, joins and leaves at Lamport time ${time} do not blind a node to those that follow`, () => {
    const bench = two();
    const [a, b] = bench.cores.values();
    const query = {
      id: 1,
      addr: new Uint8Array([127, 0, 0, 9]),
      port: 9,
      sourceNode: "x",
      filters: [],
      flags: 0,
    };
    const poison = [
      withTime(
        (ltime) => serf.encodeUserEvent({ ltime, name: "bad", payload: undefined, coalesce: false }),
        time,
      ),
      withTime(
        (ltime) =>
          serf.encodeQuery({
            ...query,
            ltime,
            relayFactor: 0,
            timeoutNs: 1e9,
            name: "bad",
            payload: undefined,
          }),
        time,
      ),
      withTime((ltime) => serf.encodeLeave({ ltime, node: "b", prune: false }), time),
      withTime((ltime) => serf.encodeJoin({ ltime, node: "b" }), time),
    ];
    for (const message of poison) inject(bench, concatBytes([USER, message]));
    b.userEvent(bench.nowMs, "good", utf8("1"), { coalesce: false });
    b.query(bench.nowMs, "good?", utf8("1"), { handler: { onDone() {} }, timeoutMs: 1_000 });
    bench.advance(2_000);
    const names = bench.events.get("a")!.flatMap((event) =>
      event.kind === "user" || event.kind === "query" ? [event.name] : []
    );
    assert.deepEqual(names, ["good", "good?"]);
    assert.ok(a.timesRefused > 0 || time >= 2n ** 53n);
    assert.equal(a.members.get("b")?.snapshot().status, "alive");
    b.leave(bench.nowMs, () => {});
    bench.advance(5_000);
    assert.equal(a.members.get("b")?.snapshot().status, "left", "its own leave counts");
  });
}

Deno.test("a Lamport clock follows messages a little, whole states far, and neither to the end", () => {
  const clock = new LamportClock();
  assert.deepEqual([clock.witness(MAX_LEAP + 2), clock.time], [false, 1]);
  assert.deepEqual([clock.witness(MAX_LEAP), clock.time], [true, MAX_LEAP + 1]);
  assert.deepEqual([clock.adopt(5_000_000_000), clock.time], [true, 5_000_000_001]);
  assert.deepEqual([clock.adopt(MAX_ADOPTED + 1), clock.adopt(MAX_ADOPTED)], [false, true]);
  assert.equal(clock.witness(MAX_ADOPTED + 1), true, "and goes on from there");
  assert.equal(clock.refused, 2);
});

Deno.test("a state with times beyond all counting, and names that are no text, still tells the rest", () => {
  const state = encodeSerfPushPull({
    ...emptySerfPushPull(),
    ltime: 7,
    statusLTimes: [["good", 5]],
    leftMembers: ["gone"],
  });
  const text = new TextDecoder("latin1").decode(state);
  const poisoned = concatBytes([
    state.subarray(0, text.indexOf("StatusLTimes") + 12),
    new Uint8Array([0x83, 0xa2, 0xff, 0xfe, 5, 0xa3]),
    utf8("bad"),
    new Uint8Array([0xcf, ...new Array(8).fill(0xff), 0xa4]),
    utf8("good"),
    new Uint8Array([5]),
  ]);
  const decoded = decodeSerfPushPull(new MsgpackReader().reset(poisoned, 1));
  assert.deepEqual(decoded.statusLTimes, [["bad", 0], ["good", 5]]);
  assert.deepEqual([decoded.ltime, decoded.leftMembers], [7, ["gone"]]);
});

Deno.test("a push/pull with entries that make no sense still tells of the others", () => {
  const good = {
    node: "good",
    incarnation: 1,
    addr: new Uint8Array(4),
    port: 7,
    meta: new Uint8Array(0),
    vsn: VSN,
  };
  const plain = encodePushPull({
    join: true,
    nodes: [{ ...good, state: 0 }],
    userState: new Uint8Array([1, 2]),
  });
  const header = new MsgpackWriter().byte(6).map(3).string("Join").bool(true).string("Nodes").int(5)
    .string("UserStateLen").int(2).finish();
  const bad = [
    new MsgpackWriter().map(1).string("Meta").bytes(new Uint8Array(LIMITS.metaBytes + 1)).finish(),
    new MsgpackWriter().map(1).string("Port").int(70_000).finish(),
    new MsgpackWriter().map(1).string("Addr").bytes(new Uint8Array(5)).finish(),
    new MsgpackWriter().map(1).string("Incarnation").int(2 ** 32).finish(),
  ];
  const entries = plain.subarray(plain.findIndex((byte) => byte === 0x87));
  const decoded = decodePushPull(new MsgpackReader().reset(concatBytes([header, ...bad, entries]), 1));
  assert.deepEqual(decoded.nodes.map(({ node }) => node), ["good"]);
  assert.deepEqual(decoded.userState, new Uint8Array([1, 2]));
});

Deno.test("one message that cannot be read does not cost those that follow it in the packet", () => {
  const bench = two();
  const alive = { ...bench.cores.get("b")!.memberlist.self.toAlive(), node: "c", port: 4 };
  inject(bench, encodeCompound([new Uint8Array([4, 0xc1]), new Uint8Array([99, 0]), encodeAlive(alive)]));
  assert.equal(bench.cores.get("a")!.memberlist.node("c")?.name, "c");
  assert.equal(bench.cores.get("a")!.memberlist.counters.packetsBad, 1);
});

Deno.test("an accusation at the highest incarnation kills nobody, and a node that is accused can always contradict", () => {
  const bench = two();
  for (const incarnation of [0xffff_ffff, 0xffff_fffe, 0xff00_0000]) {
    for (const node of ["a", "b"]) {
      inject(bench, encodeSuspect({ incarnation, node, from: "x" }));
      inject(bench, encodeDead({ incarnation, node, from: "x" }));
      inject(bench, encodeDead({ incarnation, node, from: node }));
    }
  }
  inject(bench, encodeSuspect({ incarnation: 0xfeff_ffff, node: "a", from: "x" }));
  bench.advance(60_000);
  assert.deepEqual([stateOf(bench, "b", "a"), stateOf(bench, "a", "b")], [NodeState.alive, NodeState.alive]);
  assert.equal(bench.cores.get("b")!.memberlist.node("a")!.incarnation, 0xff00_0000);
  bench.cores.get("a")!.setTags(bench.nowMs, new Map([["still", "heard"]]));
  bench.advance(1_000);
  assert.equal(bench.cores.get("b")!.members.get("a")!.tags.get("still"), "heard");
  bench.cut("b");
  bench.advance(60_000);
  assert.notEqual(stateOf(bench, "a", "b"), NodeState.alive, "the truly dead are found all the same");
});

Deno.test("an ack whose payload makes no sense is an ack", () => {
  const bench = two();
  const a = bench.cores.get("a")!;
  bench.cut("b");
  a.reportProbes = true;
  let answered = false;
  for (let i = 0; i < 40 && !answered; i++) {
    bench.advance(100);
    const { probes } = a.memberlist.counters;
    for (let seqNo = 1; seqNo <= probes + 4; seqNo++) {
      a.memberlist.receivePacket(bench.nowMs, FROM, encodeAck({ seqNo, payload: new Uint8Array([1, 0xc1]) }));
    }
    answered = a.takeEvents().some((event) => event.kind === "probe" && event.via === "direct");
  }
  assert.ok(answered);
});

Deno.test("a flood of members stops at the bound, and of those none who is there is lost", () => {
  const bench = two();
  const a = bench.cores.get("a")!;
  const before = a.members.size;
  for (let i = 0; i < 3_000; i++) {
    const addr = new Uint8Array([10, 1, i >> 8, i & 0xff]);
    const alive = encodeAlive({
      node: `flood-${i}`,
      incarnation: 1,
      addr,
      port: 1,
      meta: new Uint8Array(512),
      vsn: VSN,
    });
    a.memberlist.receivePacket(bench.nowMs, FROM, alive);
    a.memberlist.takeEffects();
    a.takeEvents();
  }
  assert.equal(a.members.size, before + 3_000);
  assert.ok(a.sizes.broadcasts <= 2 * 3_003);
  assert.equal(stateOf(bench, "a", "b"), NodeState.alive);
  const tooBig = encodeAlive({
    node: "big",
    incarnation: 1,
    addr: new Uint8Array(4),
    port: 1,
    meta: new Uint8Array(LIMITS.metaBytes + 1),
    vsn: VSN,
  });
  inject(bench, tooBig);
  assert.equal(a.memberlist.node("big"), undefined);
});

Deno.test("a clock that jumps ahead by hours makes nobody dead who answers", () => {
  const bench = two();
  bench.nowMs += 6 * 3_600_000;
  bench.advance(30_000);
  assert.deepEqual([stateOf(bench, "a", "b"), stateOf(bench, "b", "a")], [NodeState.alive, NodeState.alive]);
  const failures = bench.events.get("a")!.filter((event) => event.kind === "member-failed");
  assert.deepEqual(failures, []);
});
