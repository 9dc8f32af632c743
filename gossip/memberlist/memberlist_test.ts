import assert from "node:assert/strict";
import { encodeAlive, encodeDead, encodeSuspect } from "../codec/messages.ts";
import { NodeState } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import { Bench } from "../testing.ts";
import { TimerHeap } from "../timers.ts";
import { Awareness } from "./awareness.ts";
import { BroadcastQueue, retransmitLimit, type Subject } from "./broadcast_queue.ts";
import { PROFILES } from "./config.ts";
import { pushPullScale } from "./anti_entropy.ts";
import { Suspicion } from "./suspicion.ts";

const FROM = new Endpoint(new Uint8Array([127, 0, 0, 9]), 9);
const VSN = new Uint8Array([1, 5, 2, 2, 5, 4]);

function two(memberlist: Parameters<Bench["add"]>[2] = {}): Bench {
  const bench = new Bench();
  bench.add("a", 1000, memberlist);
  bench.add("b", 1001, memberlist);
  assert.equal(bench.join("b", "a"), undefined);
  return bench;
}

Deno.test("memberlist refutes a suspicion about itself with a higher incarnation", () => {
  const bench = two();
  const { memberlist } = bench.cores.get("a")!;
  memberlist.receivePacket(0, FROM, encodeSuspect({ incarnation: 9, node: "a", from: "x" }));
  assert.equal(memberlist.self.incarnation, 10);
  bench.advance(50);
  assert.equal(bench.cores.get("b")!.memberlist.node("a")!.incarnation, 10);
  assert.equal(memberlist.healthScore, 1);
});

Deno.test("memberlist ignores old news, and alive messages that do not raise the incarnation", () => {
  const bench = two();
  const { memberlist } = bench.cores.get("a")!;
  const alive = bench.cores.get("b")!.memberlist.self.toAlive();
  memberlist.receivePacket(0, FROM, encodeAlive({ ...alive, incarnation: 5 }));
  memberlist.receivePacket(0, FROM, encodeSuspect({ incarnation: 4, node: "b", from: "x" }));
  memberlist.receivePacket(0, FROM, encodeDead({ incarnation: 4, node: "b", from: "x" }));
  memberlist.receivePacket(0, FROM, encodeAlive({ ...alive, incarnation: 5, meta: new Uint8Array([1]) }));
  const node = memberlist.node("b")!;
  assert.deepEqual([node.state, node.incarnation, node.meta[0]], [NodeState.alive, 5, 0xff]);
});

Deno.test("memberlist keeps the address bytes of others exactly as they came", () => {
  const bench = two();
  const { memberlist } = bench.cores.get("a")!;
  const addr = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]);
  memberlist.receivePacket(
    0,
    FROM,
    encodeAlive({ node: "c", incarnation: 1, addr, port: 7, meta: new Uint8Array([0xff, 0x80]), vsn: VSN }),
  );
  bench.advance(50);
  assert.deepEqual(bench.cores.get("b")!.memberlist.node("c")!.endpoint.addr, addr);
  assert.equal(memberlist.node("c")!.endpoint.host, "10.0.0.1");
});

Deno.test("memberlist declares a silent node dead, and takes it back when it answers", () => {
  const bench = two();
  bench.cut("b");
  bench.advance(20_000);
  assert.equal(bench.cores.get("a")!.memberlist.node("b")?.state, NodeState.dead);
  bench.cut("b", false);
  bench.advance(90_000);
  assert.equal(bench.cores.get("a")!.memberlist.node("b")?.state, NodeState.alive);
});

Deno.test("memberlist forgets the dead after a while, and sends them no more", () => {
  const bench = two();
  bench.cut("b");
  bench.advance(20_000 + PROFILES.lan.gossipToTheDeadMs + 5_000);
  assert.equal(bench.cores.get("a")!.memberlist.node("b"), undefined);
});

Deno.test("memberlist refuses a push/pull of nodes that speak other protocols, and says which", () => {
  const bench = new Bench();
  bench.add("a", 1000);
  bench.add("b", 1001, { memberlist: { vsn: new Uint8Array([1, 5, 2, 2, 3, 3]) } });
  assert.match(bench.join("b", "a")!, /node "a" speaks Serf protocol 4, the others 2 to 3/);
  assert.equal(bench.cores.get("a")!.memberlist.node("b"), undefined);
});

Deno.test("memberlist asks who answers before it believes in a move: the living keep their name", () => {
  const bench = two();
  const { memberlist } = bench.cores.get("a")!;
  const real = bench.cores.get("b")!.memberlist.self;
  const claim = { ...real.toAlive(), port: 4242, incarnation: 50 };
  memberlist.receivePacket(bench.nowMs, FROM, encodeAlive(claim));
  bench.advance(2_000);
  assert.equal(memberlist.node("b")!.endpoint.port, 1001);
});

Deno.test("suspicion starts long and shrinks with each new confirmation", () => {
  const timers = new TimerHeap();
  let confirmations = -1;
  const suspicion = new Suspicion({
    config: PROFILES.lan,
    nodes: 10,
    from: "a",
    nowMs: 0,
    timers,
    share: 1,
    confirmedShare: 1,
    leadMs: 0,
    expire: (count) => confirmations = count,
  });
  assert.equal(timers.nextMs, 24_000);
  assert.equal(suspicion.confirm("a", 100), false, "the first accuser does not count twice");
  assert.equal(suspicion.confirm("b", 100), true);
  assert.equal(timers.nextMs, Math.floor(24_000 - Math.log(2) / Math.log(3) * 20_000));
  assert.equal(suspicion.confirm("c", 200), true);
  assert.equal(timers.nextMs, 4_000);
  assert.equal(suspicion.confirm("d", 300), false, "no more confirmations are wanted");
  timers.run(4_000);
  assert.equal(confirmations, 2);
});

Deno.test("suspicion in a small cluster takes the shortest time at once", () => {
  const timers = new TimerHeap();
  const base = {
    config: PROFILES.lan,
    from: "a",
    nowMs: 0,
    timers,
    share: 1,
    confirmedShare: 1,
    leadMs: 0,
    expire() {},
  };
  new Suspicion({ ...base, nodes: 3 });
  assert.equal(timers.nextMs, 4_000);
});

Deno.test("suspicion is shorter where several confirm it than where nobody can", () => {
  const timers = new TimerHeap();
  const shares = { share: 0.75, confirmedShare: 0.5 };
  const base = { config: PROFILES.lan, from: "a", nowMs: 0, timers, ...shares, leadMs: 0, expire() {} };
  const suspicion = new Suspicion({ ...base, nodes: 10 });
  assert.equal(timers.nextMs, 18_000, "alone, three quarters of the longest time");
  suspicion.confirm("b", 100);
  suspicion.confirm("c", 200);
  assert.equal(timers.nextMs, 2_000, "confirmed, half of the shortest");
  suspicion.cancel();
  new Suspicion({ ...base, nodes: 3 });
  assert.equal(timers.nextMs, 3_000, "where none can confirm, three quarters of the shortest");
});

Deno.test("broadcasts go by fewest sends, then longest, and end at the limit", () => {
  const ends: string[] = [];
  const queue = new BroadcastQueue(() => 2);
  const message = (length: number, fill: number) => new Uint8Array(length).fill(fill);
  queue.queue(message(10, 1), { onEnd: (end) => ends.push(`1 ${end}`) });
  queue.queue(message(20, 2));
  queue.queue(message(50, 3));
  const pick = () => {
    const into: Uint8Array[] = [];
    queue.pick({ overhead: 2, limit: 40 }, into);
    return into.map((picked) => picked[0]);
  };
  assert.deepEqual(pick(), [2, 1]);
  assert.deepEqual(pick(), [2, 1], "the one of 50 bytes never fits");
  assert.deepEqual([pick(), queue.size, ends], [[], 1, ["1 sent"]]);
});

Deno.test("a broadcast takes the place of an older one about the same", () => {
  const ends: string[] = [];
  const queue = new BroadcastQueue(() => 4);
  const subject: Subject = { queued: undefined };
  for (const i of [1, 2]) {
    queue.queue(new Uint8Array([i]), { subject, onEnd: (end) => ends.push(`${i} ${end}`) });
  }
  assert.deepEqual([queue.size, ends], [1, ["1 replaced"]]);
});

Deno.test("a full queue drops what was sent most", () => {
  const queue = new BroadcastQueue(() => 4);
  queue.queue(new Uint8Array([1]));
  queue.pick({ overhead: 2, limit: 100 }, []);
  queue.queue(new Uint8Array([2]));
  assert.equal(queue.prune(1), 1);
  const into: Uint8Array[] = [];
  queue.pick({ overhead: 2, limit: 100 }, into);
  assert.deepEqual(into, [new Uint8Array([2])]);
});

Deno.test("a broadcast may be done after fewer sends than the queue's", () => {
  const ends: string[] = [];
  const queue = new BroadcastQueue(() => 4);
  queue.queue(new Uint8Array([1]), { sends: 2, onEnd: (end) => ends.push(end) });
  for (let i = 0; i < 2; i++) queue.pick({ overhead: 2, limit: 100 }, []);
  assert.deepEqual([queue.size, ends], [0, ["sent"]]);
});

Deno.test("gossip goes to more nodes a round while much is waiting, and to as many as told afterwards", () => {
  const bench = new Bench();
  for (let i = 0; i < 40; i++) {
    bench.add(`n${i}`, 1000 + i, { memberlist: { eager: undefined } });
    if (i > 0) assert.equal(bench.join(`n${i}`, "n0"), undefined);
  }
  bench.advance(30_000);
  const { memberlist } = bench.cores.get("n0")!;
  const { gossipNodes, gossipIntervalMs } = memberlist.config;
  const sentIn = (ms: number) => {
    const before = memberlist.counters.packetsSent;
    bench.advance(ms);
    return memberlist.counters.packetsSent - before;
  };
  const perSecond = gossipNodes * 1_000 / gossipIntervalMs;
  assert.ok(sentIn(1_000) <= perSecond, "at rest");
  for (let i = 0; i < 2_000; i++) {
    bench.cores.get("n0")!.userEvent(bench.nowMs, `e${i}`, new Uint8Array(300), { coalesce: false });
  }
  assert.ok(sentIn(2_000) > 2 * 2 * perSecond, "behind");
  bench.advance(120_000);
  assert.equal(bench.cores.get("n0")!.sizes.eventQueue, 0);
  assert.ok(sentIn(1_000) <= perSecond, "at rest again");
});

Deno.test("scales follow the protocol notes", () => {
  assert.deepEqual([2, 9, 10, 100].map((nodes) => retransmitLimit(4, nodes)), [4, 4, 8, 12]);
  assert.deepEqual([1, 32, 33, 64, 65].map((nodes) => pushPullScale(30, nodes)), [30, 30, 60, 60, 90]);
});

Deno.test("awareness stays within its bounds and stretches time-outs", () => {
  const awareness = new Awareness(8);
  awareness.apply(-3);
  assert.equal(awareness.scale(100), 100);
  awareness.apply(20);
  assert.deepEqual([awareness.score, awareness.scale(100)], [7, 800]);
});
