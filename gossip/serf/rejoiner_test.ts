import assert from "node:assert/strict";
import { Bench } from "../testing.ts";
import { MAX_BROADCASTS } from "../memberlist/gossip.ts";
import { encodeAlive } from "../codec/messages.ts";
import { Endpoint } from "../endpoint.ts";
import type { Address } from "./rejoin.ts";

const VSN = new Uint8Array([1, 5, 2, 2, 5, 4]);

function address(port: number): Address {
  return { name: `node-${port}`, endpoint: new Endpoint(new Uint8Array([127, 0, 0, 1]), port) };
}

Deno.test("a node that knows its former members finds the one that is up, however many are not", () => {
  const bench = new Bench();
  bench.add("node-1", 1);
  const late = bench.add("node-2", 2);
  late.rejoin(bench.nowMs, Array.from({ length: 50 }, (_, i) => address(3 + i)).concat(address(1)));
  bench.advance(30_000);
  assert.equal(late.members.aliveCount, 2);
  bench.advance(60_000);
  assert.equal(late.sizes.rememberedPeers, 50, "those who are away are remembered");
});

Deno.test("a node whose former members are all down goes on looking, more and more seldom", () => {
  const bench = new Bench();
  const lonely = bench.add("node-1", 1);
  const dials = () => lonely.memberlist.counters.streamsDialed;
  lonely.rejoin(bench.nowMs, [2, 3, 4].map(address));
  bench.advance(10_000);
  const soon = dials();
  bench.advance(600_000);
  assert.ok(soon >= 10 && soon <= 60, `${soon} in ten seconds`);
  assert.ok(dials() - soon <= 80, `${dials() - soon} in the ten minutes after`);
  bench.add("node-3", 3);
  bench.advance(60_000);
  assert.equal(lonely.members.aliveCount, 2);
});

Deno.test("islands of nodes that started at once become one cluster", () => {
  const bench = new Bench();
  const names = Array.from({ length: 12 }, (_, i) => 1 + i);
  for (const port of names) bench.add(`node-${port}`, port);
  // Three islands of four, as if each had found only some of those who were up.
  for (const port of names) if (port > 3) bench.join(`node-${port}`, `node-${1 + (port - 1) % 3}`);
  const former = names.map(address);
  for (const port of names) {
    bench.cores.get(`node-${port}`)!.rejoin(
      bench.nowMs,
      former.filter(({ name }) => name !== `node-${port}`),
    );
  }
  bench.advance(20_000);
  for (const core of bench.cores.values()) assert.equal(core.members.aliveCount, 12);
});

Deno.test("news about members that waits to be sent is bounded", () => {
  const bench = new Bench();
  const { memberlist } = bench.add("node-1", 1);
  const from = new Endpoint(new Uint8Array([127, 0, 0, 1]), 9);
  for (let i = 0; i < MAX_BROADCASTS + 500; i++) {
    const addr = new Uint8Array([10, 1, i >> 8, i & 255]);
    const alive = { node: `other-${i}`, addr, port: 7946, meta: VSN, vsn: VSN, incarnation: 1 };
    memberlist.receivePacket(bench.nowMs, from, encodeAlive(alive));
    memberlist.takeEffects();
  }
  assert.equal(memberlist.sizes.broadcasts, MAX_BROADCASTS);
  assert.ok(memberlist.counters.broadcastsDropped >= 500);
});

Deno.test("of a push/pull that brings hundreds of nodes only some are passed on by gossip", () => {
  const bench = new Bench();
  const seed = bench.add("node-1", 1);
  bench.add("node-2", 2);
  assert.equal(bench.join("node-2", "node-1"), undefined);
  bench.advance(10_000);
  const from = new Endpoint(new Uint8Array([127, 0, 0, 1]), 9);
  const other = bench.add("node-3", 3);
  for (let i = 0; i < 300; i++) {
    const addr = new Uint8Array([10, 1, i >> 8, i & 255]);
    const alive = { node: `other-${i}`, addr, port: 7946, meta: VSN, vsn: VSN, incarnation: 1 };
    other.memberlist.receivePacket(bench.nowMs, from, encodeAlive(alive));
  }
  other.memberlist.takeEffects();
  other.takeEvents();
  seed.join(bench.nowMs, address(3).endpoint, { ignoreOld: true }, () => {});
  bench.settle();
  assert.equal(seed.members.size, 303);
  assert.ok(seed.sizes.broadcasts <= 66, `${seed.sizes.broadcasts} are queued`);
});
