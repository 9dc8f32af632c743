import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CapacitySchema,
  VmSpawnRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type StateUpdate, StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { ClusterCore } from "../../agent/cluster/core.ts";
import { OwnState } from "../../agent/cluster/own_state.ts";
import type { ClusterMember, LocalState } from "../../agent/cluster/ports.ts";
import { GOSSIP } from "../../agent/cluster/tags.ts";
import type { Profile } from "../../gossip/memberlist/config.ts";
import { seededRandom } from "../../gossip/random.ts";
import { clusterTags, EPOCH_MS, idOf } from "./cluster_agent.ts";
import { ClusterWorld } from "./cluster_world.ts";

/** How large the cluster is that is measured. */
export interface ScaleOptions {
  nodes: number;
  /** On each node. */
  workloads: number;
}

/** What one agent of a large cluster needs. */
export interface AgentScale {
  listMs: number;
  findByNameMs: number;
  routesAllMs: number;
  routesOneMs: number;
  deltaMs: number;
  heapMiB: number;
  routes: number;
}

/**
 * One agent that knows the states of a large cluster, taken as they come over the wire. Times are medians; the heap is the
 * growth by all that the agent knows, when the garbage is gone (with `--v8-flags=--expose-gc`).
 */
export function measureAgent({ nodes, workloads }: ScaleOptions): AgentScale {
  const owners = Array.from({ length: nodes }, (_, i) =>
    new OwnState({
      node: { id: idOf(`node-${i}`), name: `node-${i}`, ip: `10.0.${i >> 8}.${i & 255}` },
      agentVersion: "0.1.0",
      incarnation: BigInt(EPOCH_MS),
    }));
  const locals = owners.map((_, i) => localState(i, workloads));
  const wires = owners.slice(1).map((owner, i) => {
    owner.update(locals[i + 1], { steadyMs: 0, wallMs: EPOCH_MS });
    return toBinary(StateUpdateSchema, owner.whole());
  });
  const heapBefore = heapBytes();
  const core = new ClusterCore({
    node: { id: idOf("node-0"), name: "node-0", ip: "10.0.0.0" },
    agentVersion: "0.1.0",
    incarnation: BigInt(EPOCH_MS),
    random: seededRandom(1),
    nowMs: EPOCH_MS,
    respawn: true,
  });
  core.members(
    EPOCH_MS,
    owners.map((_, i): ClusterMember => ({
      id: idOf(`node-${i}`),
      name: `node-${i}`,
      status: "alive",
      address: { host: "10.0.0.1", port: 7946 },
      tags: Object.fromEntries(clusterTags(`node-${i}`)),
    })),
  );
  core.localChanged(EPOCH_MS, locals[0]);
  const routesStartMs = performance.now();
  for (const wire of wires) core.learned(EPOCH_MS, fromBinary(StateUpdateSchema, wire));
  core.routes();
  const routesAllMs = performance.now() - routesStartMs;
  const heapMiB = (heapBytes() - heapBefore) / (1 << 20);
  if (core.list().length !== nodes * workloads) throw new Error(`${core.list().length} workloads are known`);

  const deltas: StateUpdate[] = [];
  for (let i = 0; i < 100; i++) {
    const state = locals[1].workloads[i % workloads];
    const workloadsNow = locals[1].workloads.with(
      i % workloads,
      create(WorkloadStateSchema, {
        ...state,
        status: i < workloads ? "backing-off" : "running",
        restarts: i + 1,
      }),
    );
    locals[1] = { ...locals[1], workloads: workloadsNow };
    deltas.push(...owners[1].update(locals[1], { steadyMs: i, wallMs: EPOCH_MS + i }));
  }
  const payloads = deltas.map((delta) => toBinary(StateUpdateSchema, delta));
  const deltaMs = median(
    payloads.map((payload) => time(() => core.userEvent(EPOCH_MS, GOSSIP.stateDelta, payload))),
  );
  return {
    listMs: median(Array.from({ length: 21 }, () => time(() => core.list()))),
    findByNameMs: median(Array.from({ length: 21 }, () => time(() => core.find("web-7-7")))),
    routesAllMs,
    routesOneMs: median(Array.from({ length: 21 }, () => time(() => core.routes()))),
    deltaMs,
    heapMiB,
    routes: core.routes().length,
  };
}

/** What the gossip of a large cluster costs. */
export interface GossipScale {
  /** Packets and streams, sent by one node in a second; while idle, and with churn. */
  idleBytesPerNodeSecond: number;
  churnBytesPerNodeSecond: number;
  /** Of the latter, the streams. */
  streamBytesPerNodeSecond: number;
  changes: number;
  /** Until every node had a change in its view. */
  viewMedianMs: number;
  viewP99Ms: number;
  largestEventQueue: number;
}

/**
 * A whole cluster of agents, in which each minute one in a hundred workloads ends and is started again. Measures what gossip
 * sends, and how long a change takes to be in all views.
 */
export function measureGossip(
  options: ScaleOptions & { seed: number; profile: Profile; minutes: number },
): GossipScale {
  const world = new ClusterWorld({ ...options, memoryMiB: 1 << 20 });
  const { network } = world.gossip;
  const bytes = () => network.bytes + network.streamBytes;
  for (const [i, { runtime }] of world.agents.entries()) {
    for (let k = 0; k < options.workloads; k++) {
      runtime.adopt({
        id: workloadId(i, k),
        request: request(i, k),
        generation: 1n,
        restarts: 0,
        createdAtMs: BigInt(EPOCH_MS),
      });
    }
  }
  world.startKnown();
  world.gossip.advance(world.nowMs + 180_000);
  const idleFrom = bytes();
  world.gossip.advance(world.nowMs + 60_000);
  const idle = bytes() - idleFrom;

  const churnFrom = bytes();
  const churnFromMs = world.nowMs;
  const streamFrom = network.streamBytes;
  const all = options.nodes * options.workloads;
  const perMinute = Math.round(all / 100);
  const views: number[] = [];
  let largestEventQueue = 0;
  for (let i = 0; i < perMinute * options.minutes; i++) {
    const agent = world.pick(world.agents);
    const id = world.pick([...agent.runtime.workloads.keys()]);
    agent.runtime.die(id);
    const endMs = world.nowMs + 60_000 / perMinute;
    if (i % 10 === 0) {
      const { version } = agent.core.version;
      const isSeen = () => world.agents.every(({ core }) => (versions(core).get(agent.id) ?? -1n) >= version);
      views.push(world.gossip.advanceUntil(isSeen, { stepMs: 20, limitMs: 30_000 }) ?? Infinity);
    }
    world.gossip.advance(endMs);
    for (const { node } of world.agents) {
      largestEventQueue = Math.max(largestEventQueue, node.core.sizes.eventQueue);
    }
  }
  const seconds = (world.nowMs - churnFromMs) / 1_000;
  views.sort((a, b) => a - b);
  return {
    idleBytesPerNodeSecond: Math.round(idle / options.nodes / 60),
    churnBytesPerNodeSecond: Math.round((bytes() - churnFrom) / options.nodes / seconds),
    streamBytesPerNodeSecond: Math.round((network.streamBytes - streamFrom) / options.nodes / seconds),
    changes: perMinute * options.minutes,
    viewMedianMs: views[views.length >> 1],
    viewP99Ms: views[Math.floor(views.length * 0.99)],
    largestEventQueue,
  };
}

/** Which version each node's state has in a core's view. */
function versions(core: ClusterCore): Map<string, bigint> {
  return new Map(core.nodes().map(({ id, header }) => [id, header?.version ?? -1n]));
}

function localState(node: number, workloads: number): LocalState {
  return {
    workloads: Array.from({ length: workloads }, (_, k): WorkloadState =>
      create(WorkloadStateSchema, {
        id: workloadId(node, k),
        status: "running",
        generation: 1n,
        url: `https://${workloadId(node, k)}.example.com`,
        createdAtMs: BigInt(EPOCH_MS),
        startedAtMs: BigInt(EPOCH_MS),
        sourceRequest: request(node, k),
      })),
    capacity: create(CapacitySchema, { milliCpus: 64_000, memoryBytes: 1n << 38n }),
    cordoned: false,
    tags: { zone: `zone-${node % 3}` },
    policy: undefined,
    beacon: undefined,
  };
}

function request(node: number, k: number) {
  return create(VmSpawnRequestSchema, {
    imageRef: `registry.example.com/team/service-${k % 20}:1.${k % 7}.0`,
    name: `web-${node}-${k}`,
    cores: 1,
    memory: 128,
    ports: { 80: 8080, 443: 8443 },
    env: ["DATABASE_URL=***", "LOG_LEVEL=***", "SECRET_KEY=***"],
    args: ["serve", "--workers", "4"],
  });
}

function workloadId(node: number, k: number): string {
  return (node * 0x10000 + k).toString(16).padStart(12, "0");
}

function heapBytes(): number {
  const { gc } = globalThis as { gc?: () => void };
  for (let i = 0; i < 3; i++) gc?.();
  return Deno.memoryUsage().heapUsed;
}

function time(run: () => void): number {
  const startMs = performance.now();
  run();
  return performance.now() - startMs;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1];
}
