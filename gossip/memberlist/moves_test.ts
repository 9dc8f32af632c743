import assert from "node:assert/strict";
import { encodeAlive, encodeDead, encodeSuspect } from "../codec/messages.ts";
import { encodeLeave } from "../codec/serf_messages.ts";
import { concatBytes } from "../codec/text.ts";
import { MessageType, NodeState } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import { Bench } from "../testing.ts";
import { type MemberlistConfig, PROFILES } from "./config.ts";

const FROM = new Endpoint(new Uint8Array([127, 0, 0, 9]), 9);
const USER = new Uint8Array([MessageType.user]);
/** As agents that are not ours have it. */
const STOCK: Partial<MemberlistConfig> = {
  verifyMoves: false,
  lastCall: false,
  deadNodeReclaimMs: undefined,
  eager: undefined,
  // So that they suspect nobody meanwhile.
  probeIntervalMs: 60_000,
};

function cluster(size: number): Bench {
  const bench = new Bench();
  for (let i = 0; i < size; i++) {
    bench.add(`n${i}`, 1000 + i);
    if (i > 0) assert.equal(bench.join(`n${i}`, "n0"), undefined);
  }
  bench.advance(5_000);
  return bench;
}

function inject(bench: Bench, to: string, packet: Uint8Array): void {
  bench.cores.get(to)!.memberlist.receivePacket(bench.nowMs, FROM, packet);
}

/** Lets a node contradict, so that its incarnation is this one. */
function raise(bench: Bench, name: string, incarnation: number): void {
  inject(bench, name, encodeSuspect({ incarnation: incarnation - 1, node: name, from: "x" }));
  bench.advance(2_000);
}

function view(bench: Bench, of: string, node: string) {
  const { state, incarnation, endpoint } = bench.cores.get(of)!.memberlist.node(node)!;
  return { state, incarnation, port: endpoint.port };
}

for (const size of [3, 5, 12, 30]) {
  for (const incarnation of [1, 9]) {
    Deno.test(`a node of ${size} that is back at another address, once at incarnation ${incarnation}, is gone in nobody's view`, () => {
      const bench = cluster(size);
      if (incarnation > 1) raise(bench, "n2", incarnation);
      for (const events of bench.events.values()) events.length = 0;
      bench.add("n2", 2002);
      assert.equal(bench.join("n2", "n0"), undefined);
      bench.advance(20_000);
      for (const [name, events] of bench.events) {
        const gone = events.filter(({ kind }) => kind === "member-failed" || kind === "member-leave");
        assert.deepEqual(gone, [], name);
        const { state, port } = view(bench, name, "n2");
        assert.deepEqual([state, port], [NodeState.alive, 2002], name);
      }
    });
  }
}

Deno.test("a goodbye that nobody announced is a doubt: a node that is there contradicts it, one that is not is dead in the end", () => {
  const bench = cluster(4);
  const goodbye = encodeDead({ incarnation: 1, node: "n2", from: "n2" });
  inject(bench, "n0", goodbye);
  assert.equal(view(bench, "n0", "n2").state, NodeState.suspect);
  bench.advance(2_000);
  assert.deepEqual(view(bench, "n0", "n2"), { state: NodeState.alive, incarnation: 2, port: 1002 });
  bench.cut("n2");
  inject(bench, "n0", encodeDead({ incarnation: 2, node: "n2", from: "n2" }));
  bench.advance(20_000);
  assert.equal(bench.cores.get("n0")!.members.get("n2")!.snapshot().status, "failed");
});

Deno.test("a goodbye that nobody announced is passed on once as what it is, for agents that wait for it", () => {
  const bench = cluster(4);
  const goodbye = encodeDead({ incarnation: 7, node: "n3", from: "n3" });
  bench.cut("n3");
  const passedOn = new Set<string>();
  bench.onPacket = (from, _to, messages) => {
    if (messages.some((message) => message.join() === goodbye.join())) passedOn.add(from);
  };
  inject(bench, "n0", goodbye);
  bench.advance(1_000);
  assert.deepEqual([...passedOn].sort(), ["n0", "n1", "n2"]);
  passedOn.clear();
  bench.advance(1_000);
  assert.deepEqual([...passedOn], []);
});

Deno.test("a goodbye, or a death, of where a node was before it moved does not concern it, also where its leave was announced", () => {
  const bench = cluster(3);
  raise(bench, "n2", 5);
  const { memberlist, members } = bench.cores.get("n0")!;
  const moved = bench.add("n2", 2002).memberlist.self.toAlive();
  inject(bench, "n0", encodeAlive(moved));
  bench.advance(600);
  const here = { state: NodeState.alive, incarnation: 1, port: 2002 };
  assert.deepEqual(view(bench, "n0", "n2"), here);
  const leave = encodeLeave({ ltime: members.clock.time, node: "n2", prune: false });
  inject(bench, "n0", concatBytes([USER, leave]));
  assert.equal(members.get("n2")!.snapshot().status, "leaving");
  for (const from of ["n2", "n1"]) inject(bench, "n0", encodeDead({ incarnation: 5, node: "n2", from }));
  assert.deepEqual(view(bench, "n0", "n2"), here);
  inject(bench, "n0", encodeAlive({ ...moved, incarnation: 6 }));
  inject(bench, "n0", encodeDead({ incarnation: 6, node: "n2", from: "n2" }));
  assert.equal(memberlist.node("n2")!.state, NodeState.left, "but one of afterwards does");
});

Deno.test("a node that moves and dies before it hears of its former incarnation is found dead", () => {
  const bench = cluster(3);
  raise(bench, "n2", 5);
  inject(bench, "n0", encodeAlive(bench.add("n2", 2002).memberlist.self.toAlive()));
  bench.advance(600);
  assert.deepEqual(view(bench, "n0", "n2"), { state: NodeState.alive, incarnation: 1, port: 2002 });
  bench.cut("n2");
  bench.advance(20_000);
  assert.equal(view(bench, "n0", "n2").state, NodeState.dead);
});

Deno.test("who answers at neither place is asked again, for packets may have been lost", () => {
  const bench = cluster(3);
  const moved = bench.add("n2", 2002).memberlist.self.toAlive();
  bench.deafen("n2");
  inject(bench, "n0", encodeAlive(moved));
  bench.advance(3 * PROFILES.lan.probeTimeoutMs);
  assert.equal(view(bench, "n0", "n2").port, 1002);
  bench.deafen("n2", false);
  bench.advance(PROFILES.lan.probeTimeoutMs);
  assert.deepEqual(view(bench, "n0", "n2"), { state: NodeState.alive, incarnation: 1, port: 2002 });
});

Deno.test("what a node says anew while its move is checked is not lost", () => {
  const bench = cluster(3);
  const moved = bench.add("n2", 2002).memberlist.self.toAlive();
  inject(bench, "n0", encodeAlive(moved));
  inject(bench, "n0", encodeAlive({ ...moved, incarnation: 4 }));
  inject(bench, "n0", encodeAlive({ ...moved, port: 1, incarnation: 8 }));
  inject(bench, "n0", encodeAlive({ ...moved, incarnation: 3 }));
  bench.advance(600);
  assert.deepEqual(view(bench, "n0", "n2"), { state: NodeState.alive, incarnation: 4, port: 2002 });
});

Deno.test("agents that take a move only after a goodbye hear with the next gossip that the node is there", () => {
  const bench = new Bench();
  for (const [i, name] of ["a", "b", "c"].entries()) {
    bench.add(name, 1000 + i, { memberlist: STOCK });
    if (i > 0) assert.equal(bench.join(name, "a"), undefined);
  }
  bench.advance(5_000);
  bench.add("d", 1003);
  bench.add("c", 2002);
  assert.equal(bench.join("c", "d"), undefined);
  raise(bench, "c", 9);
  assert.equal(bench.cores.get("c")!.sizes.broadcasts, 0, "it has told all whom it knows that it is here");
  assert.equal(bench.join("c", "a"), undefined);
  const { probeTimeoutMs, gossipIntervalMs } = PROFILES.lan;
  bench.advance(probeTimeoutMs);
  assert.equal(view(bench, "a", "c").state, NodeState.left);
  bench.advance(gossipIntervalMs);
  for (const name of ["a", "b"]) {
    const { state, port } = view(bench, name, "c");
    assert.deepEqual([state, port], [NodeState.alive, 2002], name);
  }
});
