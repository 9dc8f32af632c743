import assert from "node:assert/strict";
import { encodeIndirectPing, encodePing } from "../codec/messages.ts";
import { MessageType, NodeState } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import { Bench } from "../testing.ts";
import { PROFILES } from "./config.ts";

const REQUESTER = new Endpoint(new Uint8Array([127, 0, 0, 9]), 99);
const { probeTimeoutMs, probeIntervalMs, gossipToTheDeadMs } = PROFILES.lan;

interface Sent {
  atMs: number;
  from: string;
  to: string;
  types: number[];
}

/** Members that know each other, and a record of the packets they send. */
function cluster(names: readonly string[], options: Parameters<Bench["add"]>[2] = {}) {
  const bench = new Bench();
  for (const [i, name] of names.entries()) {
    bench.add(name, 1000 + i, options);
    if (i > 0) assert.equal(bench.join(name, names[0]), undefined);
  }
  bench.advance(5_000);
  const sent: Sent[] = [];
  bench.onPacket = (from, to, messages) => {
    sent.push({ atMs: bench.nowMs, from, to: to.toString(), types: messages.map((message) => message[0]) });
  };
  return { bench, sent };
}

function address(bench: Bench, name: string): string {
  return bench.cores.get(name)!.memberlist.self.endpoint.toString();
}

function stateOf(bench: Bench, observer: string, name: string): number | undefined {
  return bench.cores.get(observer)!.memberlist.node(name)?.state;
}

for (const nack of [true, false]) {
  Deno.test(`a helper that reaches nobody ${nack ? "says so after the probe time-out" : "is silent where that is not wanted"}`, () => {
    const { bench, sent } = cluster(["a"]);
    const startMs = bench.nowMs;
    const request = encodeIndirectPing({
      seqNo: 77,
      node: "ghost",
      target: new Uint8Array([127, 0, 0, 1]),
      port: 4,
      nack,
      sourceAddr: REQUESTER.addr,
      sourcePort: REQUESTER.port,
    });
    bench.cores.get("a")!.memberlist.receivePacket(bench.nowMs, REQUESTER, request);
    bench.settle();
    assert.deepEqual(sent.map(({ to, types }) => [to, types[0]]), [["127.0.0.1:4", MessageType.ping]]);
    bench.advance(2 * probeTimeoutMs);
    const nacks = sent.filter(({ types }) => types.includes(MessageType.nack));
    assert.deepEqual(
      nacks.map(({ atMs, to }) => [atMs - startMs, to]),
      nack ? [[probeTimeoutMs, REQUESTER.toString()]] : [],
    );
  });
}

Deno.test("a helper that reaches the node forwards the ack, and sends no nack then", () => {
  const { bench, sent } = cluster(["a", "b"]);
  const { addr, port } = bench.cores.get("b")!.memberlist.self.endpoint;
  const request = encodeIndirectPing({ seqNo: 78, node: "b", target: addr, port, nack: true });
  bench.cores.get("a")!.memberlist.receivePacket(bench.nowMs, REQUESTER, request);
  bench.advance(2 * probeTimeoutMs);
  const back = sent.filter(({ to }) => to === REQUESTER.toString()).map(({ types }) => types[0]);
  assert.deepEqual(back, [MessageType.ack]);
});

Deno.test("a node whose packets are lost is saved by the ping over TCP", () => {
  const { bench } = cluster(["a", "b", "c"]);
  bench.deafen("b");
  const a = bench.cores.get("a")!;
  a.reportProbes = true;
  bench.advance(60_000);
  assert.equal(stateOf(bench, "a", "b"), NodeState.alive);
  const outcomes = bench.events.get("a")!.flatMap((event) =>
    event.kind === "probe" && event.node === "b" ? [event.via] : []
  );
  assert.ok(outcomes.length > 10 && outcomes.every((via) => via === "stream"), outcomes.join());
});

Deno.test("helpers that say they reached nobody keep a node from blaming itself", () => {
  const { bench } = cluster(["a", "b", "c", "d", "e"]);
  bench.cut("b");
  bench.advance(8_000);
  assert.notEqual(stateOf(bench, "a", "b"), NodeState.alive);
  assert.equal(bench.cores.get("a")!.memberlist.healthScore, 0);
  const alone = cluster(["x", "y"]);
  alone.bench.cut("y");
  alone.bench.advance(3_000);
  assert.ok(
    alone.bench.cores.get("x")!.memberlist.healthScore > 0,
    "without helpers it may be its own fault",
  );
});

Deno.test("a suspected node is told of the suspicion with the next probe, so that it can contradict", () => {
  const { bench, sent } = cluster(["a", "b"], { memberlist: { lastCall: false } });
  bench.cut("b");
  bench.advance(3_000);
  assert.equal(stateOf(bench, "a", "b"), NodeState.suspect);
  sent.length = 0;
  bench.advance(2 * probeIntervalMs);
  const probes = sent.filter(({ from, types }) => from === "a" && types[0] === MessageType.ping);
  assert.ok(probes.length > 0 && probes.every(({ types }) => types[1] === MessageType.suspect));
  bench.cut("b", false);
  bench.advance(2 * probeIntervalMs);
  assert.equal(stateOf(bench, "a", "b"), NodeState.alive);
  assert.ok(bench.cores.get("b")!.memberlist.counters.refutations > 0);
});

Deno.test("gossip goes to the dead for a while, that they may contradict, and not for ever, and never to who left", () => {
  const { bench, sent } = cluster(["a", "b", "c"], { memberlist: { eager: undefined } });
  bench.cut("b");
  while (stateOf(bench, "a", "b") !== NodeState.dead) bench.advance(500);
  const deadMs = bench.nowMs;
  const toB = () =>
    sent.filter(({ to, types }) => to === address(bench, "b") && !types.includes(MessageType.ping));
  sent.length = 0;
  for (let i = 0; i < 40; i++) {
    bench.cores.get("c")!.userEvent(bench.nowMs, `news ${i}`, new Uint8Array(0), { coalesce: false });
    bench.advance(1_000);
  }
  const lateMs = toB().map(({ atMs }) => atMs - deadMs);
  assert.ok(lateMs.length > 0 && Math.max(...lateMs) <= gossipToTheDeadMs + 1_000, `${Math.max(...lateMs)}`);
  const left = cluster(["a", "b", "c"], { memberlist: { eager: undefined } });
  left.bench.cores.get("b")!.leave(left.bench.nowMs, () => {});
  left.bench.advance(10_000);
  left.sent.length = 0;
  left.bench.cores.get("a")!.userEvent(left.bench.nowMs, "news", new Uint8Array(0), { coalesce: false });
  left.bench.advance(10_000);
  assert.equal(left.sent.filter(({ to }) => to === address(left.bench, "b")).length, 0);
});

Deno.test("a ping for another name is not answered, one without a name is, and answers go where the source says", () => {
  const { bench, sent } = cluster(["a"]);
  const ping = (node: string, source = {}) => {
    sent.length = 0;
    bench.cores.get("a")!.memberlist.receivePacket(
      bench.nowMs,
      REQUESTER,
      encodePing({ seqNo: 5, node, ...source }),
    );
    bench.settle();
    return sent.map(({ to, types }) => [to, types[0]]);
  };
  assert.deepEqual(ping("someone"), []);
  assert.deepEqual(ping(""), [[REQUESTER.toString(), MessageType.ack]]);
  const mapped = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3]);
  assert.deepEqual(ping("a", { sourceAddr: mapped, sourcePort: 8 }), [["10.1.2.3:8", MessageType.ack]]);
});
