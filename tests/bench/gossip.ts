import { encodeAlive, encodePing, encodeSuspect } from "../../gossip/codec/messages.ts";
import { encodeCompound } from "../../gossip/codec/compound.ts";
import { encodeUserEvent } from "../../gossip/codec/serf_messages.ts";
import { concatBytes, utf8 } from "../../gossip/codec/text.ts";
import { Endpoint } from "../../gossip/endpoint.ts";
import { Checks } from "../sim/checks.ts";
import { massRestart } from "../sim/mass_restart.ts";
import { CALM } from "../sim/network.ts";
import { spread } from "../sim/scenario.ts";
import { World } from "../sim/world.ts";

/** Packets that are made at once; all of them have their time. */
const BATCH = 5_000;

/** Figures of gossip; prints one JSON object a line. Names of benches as arguments, or none for all. `--nodes=` sets a size. */
const BENCHES: Record<string, () => Record<string, unknown>> = {
  /** Packets decoded and applied per second on one core, by kind. */
  apply() {
    const world = new World({ seed: 1, nodes: 1000, profile: "lan", eager: false });
    world.startKnown();
    const [node] = world.nodes;
    const { memberlist } = node.core;
    const from = new Endpoint(new Uint8Array([10, 0, 0, 2]), 7946);
    /** Packets a second of this thread's own time; they are made beforehand, some thousands at once. */
    const rate = (make: (i: number) => Uint8Array, count = 200_000) => {
      let spentMs = 0;
      for (let done = 0; done < count; done += BATCH) {
        const packets = Array.from({ length: BATCH }, (_, i) => make(done + i));
        const startMs = threadMs();
        for (const packet of packets) {
          memberlist.receivePacket(world.nowMs, from, packet);
          memberlist.takeEffects();
          node.core.takeEvents();
        }
        spentMs += threadMs() - startMs;
      }
      return Math.round(count / spentMs * 1000);
    };
    const source = { sourceAddr: from.addr, sourcePort: 7946, sourceNode: "node-1" };
    const other = world.nodes[5].core.memberlist.self;
    const event = (i: number) =>
      concatBytes([
        new Uint8Array([8]),
        encodeUserEvent({ ltime: i + 1, name: "deploy", payload: utf8("v42"), coalesce: false }),
      ]);
    for (let warm = 0; warm < 2; warm++) {
      rate((i) => encodePing({ seqNo: i, node: "node-0", ...source }), 20_000);
    }
    return {
      pingAnswered: rate((i) => encodePing({ seqNo: i, node: "node-0", ...source })),
      aliveKnown: rate(() => encodeAlive({ ...other.toAlive(), incarnation: 1 })),
      aliveNews: rate((i) => encodeAlive({ ...other.toAlive(), incarnation: i + 2 })),
      suspectOld: rate(() => encodeSuspect({ incarnation: 0, node: "node-9", from: "node-7" })),
      eventNew: rate(event, 100_000),
      eventKnown: rate(() => event(99_999)),
      compoundOf10Known: rate(
        () =>
          encodeCompound(
            Array.from({ length: 10 }, () => encodeAlive({ ...other.toAlive(), incarnation: 1 })),
          ),
        50_000,
      ),
    };
  },
  /** Virtual time until an event reaches 99 % of the nodes, in milliseconds. One cluster for all events of a size. */
  convergence() {
    const out: Record<string, unknown> = {};
    const given = numberFlag("nodes", 0);
    for (const nodes of given > 0 ? [given] : [10, 100, 1_000, 5_000]) {
      // `--eager=0` or 1 gives one half: two clusters of 5,000 are too much for one heap.
      const half = numberFlag("eager", -1);
      for (const eager of half < 0 ? [false, true] : [half === 1]) {
        const world = new World({ seed: nodes, nodes, profile: "lan", eager });
        const checks = new Checks(world, () => false);
        world.startKnown();
        for (const loss of [0, 0.25]) {
          const runs: number[] = [];
          for (let i = 0; i < (nodes > 2_000 ? 5 : 10); i++) {
            world.network.conditions = CALM;
            world.advance(world.nowMs + 5_000 + world.random.float() * 1_000);
            world.network.conditions = { ...CALM, loss };
            runs.push(spread(world, checks, world.nodes[world.random.int(nodes)], 0.99) ?? Infinity);
          }
          runs.sort((a, b) => a - b);
          const key = `${nodes}${eager ? " eager" : ""}${loss ? " loss" : ""}`;
          out[key] = { medianMs: runs[runs.length >> 1], maxMs: runs.at(-1), events: runs.length };
        }
      }
    }
    return out;
  },
  /** What a node sends by size of the cluster: at rest, and with one event a second somewhere. */
  traffic() {
    const out: Record<string, unknown> = {};
    const given = numberFlag("nodes", 0);
    for (const nodes of given > 0 ? [given] : [100, 300, 1_000]) {
      const world = new World({ seed: 3, nodes, profile: "lan", eager: true });
      world.startKnown();
      const measure = (seconds: number) => {
        const before = { packets: world.network.packets, bytes: world.network.bytes };
        world.advance(world.nowMs + seconds * 1000);
        return {
          packetsPerNodeSecond: round((world.network.packets - before.packets) / nodes / seconds),
          bytesPerNodeSecond: Math.round((world.network.bytes - before.bytes) / nodes / seconds),
        };
      };
      world.advance(10_000);
      const atRest = measure(120);
      for (let i = 0; i < 60; i++) {
        world.at(world.nowMs + i * 1000, () => {
          const node = world.nodes[world.random.int(nodes)];
          world.run(
            node,
            () => node.core.userEvent(world.nowMs, `event ${i}`, utf8("x"), { coalesce: false }),
          );
        });
      }
      out[nodes] = { atRest, oneEventASecond: measure(60) };
    }
    return out;
  },
  /** 1,000 nodes for ten virtual minutes; and what an idle member costs. */
  idle() {
    const heap = () => {
      (globalThis as { gc?: () => void }).gc?.();
      return Deno.memoryUsage().heapUsed;
    };
    const before = heap();
    const world = new World({ seed: 1, nodes: 1000, profile: "lan", eager: true });
    world.startKnown();
    const known = heap();
    const startMs = performance.now();
    world.advance(600_000);
    const tookMs = performance.now() - startMs;
    return {
      nodes: 1000,
      virtualMinutes: 10,
      seconds: round(tookMs / 1000),
      cpuShareOfOneNode: round(tookMs / 600_000 / 1000 * 100, 5) + " %",
      packetsPerNodeSecond: round(world.network.packets / 1000 / 600),
      heapBytesPerMember: Math.round((known - before) / 1e6),
      heapBytesPerMemberAfter: Math.round((heap() - before) / 1e6),
    };
  },
  /** Time from a death until half and all of 100 nodes know it. */
  detection() {
    const first: number[] = [];
    const half: number[] = [];
    const all: number[] = [];
    for (let seed = 1; seed <= 40; seed++) {
      const world = new World({ seed, nodes: 100, profile: "lan", eager: true });
      const times: number[] = [];
      world.onEvent = (_node, event) => {
        if (event.kind === "member-failed") times.push(world.nowMs);
      };
      world.startKnown();
      world.advance(20_000 + world.random.float() * 1000);
      const killed = world.nowMs;
      world.kill(world.nodes[7]);
      world.advanceUntil(() => times.length >= 99, { stepMs: 100, limitMs: 60_000 });
      first.push(times[0] - killed);
      half.push(times[49] - killed);
      all.push(times[98] - killed);
    }
    const summary = (values: number[]) => {
      values.sort((a, b) => a - b);
      return { medianMs: Math.round(values[values.length >> 1]), maxMs: Math.round(values.at(-1)!) };
    };
    return { first: summary(first), half: summary(half), all: summary(all) };
  },
  /** All nodes start within five seconds, as after a power cut; time until every view is whole. `--nodes` gives the number. */
  massRestart() {
    const startMs = performance.now();
    const report = massRestart({ seed: numberFlag("seed", 5), nodes: numberFlag("nodes", 1_000) });
    return { ...report, seconds: round((performance.now() - startMs) / 1000) };
  },
  /** Deaths declared of living nodes at 25 % loss with 5 % of the nodes stalling, per 10,000 node-minutes. */
  falsePositives() {
    const nodes = 100;
    const minutes = numberFlag("minutes", 110);
    const world = new World({
      seed: 3,
      nodes,
      profile: "lan",
      eager: true,
      conditions: { loss: 0.25, delayMs: 1, jitterMs: 10, duplicate: 0 },
    });
    let ofHealthy = 0;
    let ofStalling = 0;
    const isStalling = (index: number) => index % 20 === 0;
    world.onEvent = (_node, event) => {
      if (event.kind !== "member-failed") return;
      for (const member of event.members) {
        if (isStalling(Number(member.name.split("-")[1]))) ofStalling++;
        else ofHealthy++;
      }
    };
    world.startKnown();
    for (const node of world.nodes.filter((candidate) => isStalling(candidate.index))) {
      const stall = () => {
        // Stalls of up to 10 s, like a process starved of CPU.
        node.stalledUntilMs = world.nowMs + world.random.float() * 10_000;
        world.at(world.nowMs + world.random.float() * 30_000, stall);
      };
      world.at(world.random.float() * 10_000, stall);
    }
    world.advance(minutes * 60_000);
    const stalling = world.nodes.filter((node) => isStalling(node.index)).length;
    const per10000 = (count: number, of: number) => round(count / (of * minutes) * 10_000);
    return {
      healthyNodeMinutes: (nodes - stalling) * minutes,
      ofHealthy,
      ofHealthyPer10000: per10000(ofHealthy, nodes - stalling),
      ofStallingPer10000: per10000(ofStalling, stalling),
    };
  },
};

/** Time that this thread has run, in milliseconds: what others do on the machine does not count. */
function threadMs(): number {
  try {
    return Number(Deno.readTextFileSync("/proc/self/schedstat").split(" ")[0]) / 1e6;
  } catch {
    return performance.now();
  }
}

/** Value of `--name=value` on the command line. */
function numberFlag(name: string, fallback: number): number {
  const prefix = `--${name}=`;
  const given = Deno.args.find((arg) => arg.startsWith(prefix));
  return given === undefined ? fallback : Number(given.slice(prefix.length));
}

function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}

const wanted = Deno.args.filter((arg) => !arg.startsWith("--"));
for (const [name, bench] of Object.entries(BENCHES)) {
  if (wanted.length === 0 || wanted.includes(name)) console.log(JSON.stringify({ bench: name, ...bench() }));
}
