import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type StateUpdate, StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { CommonStates } from "../../agent/cluster/common_states.ts";
import { clusterEventSubject } from "../../agent/cluster/event_subject.ts";
import { MAX_EVENT_BYTES } from "../../agent/cluster/limits.ts";
import type { Profile } from "../../gossip/memberlist/config.ts";
import type { Random } from "../../gossip/random.ts";
import type { Timer } from "../../gossip/timers.ts";
import { clusterTags, EPOCH_MS, idOf, SimAgent } from "./cluster_agent.ts";
import { SimMembers } from "./cluster_members.ts";
import type { Record } from "./cluster_runtime.ts";
import { type SimNode, World } from "./world.ts";

/** Builds that are broken on purpose; the checks must catch each. */
export const CANARIES = ["no-tombstones", "no-generations", "every-node-reschedules"] as const;
/** One of {@linkcode CANARIES}. */
export type Canary = typeof CANARIES[number];

/** How a cluster's world is made. */
export interface ClusterWorldOptions {
  seed: number;
  nodes: number;
  profile: Profile;
  memoryMiB?: number;
  quorum?: "none" | "majority";
  canary?: Canary;
  /** Each agent keeps for itself what the others have too: the same life, with more time and memory. */
  isApart?: boolean;
  /** Longest that a clock is ahead or behind, milliseconds. */
  skewMs?: number;
}

/** What operators asked for, and got an answer to. */
export interface Wanted {
  request: VmSpawnRequest;
  createdAtMs: bigint;
}

/** Thousands of agents on one virtual clock: gossip and cluster cores that ship, everything else in memory. */
export class ClusterWorld {
  readonly gossip: World;
  readonly agents: SimAgent[];
  readonly counts = { reschedules: 0, events: 0, eventBytes: 0, calls: 0, spawns: 0, stops: 0, moves: 0 };
  /** Workloads whose spawn was answered. */
  readonly wanted = new Map<string, Wanted>();
  /** Workloads whose stop was answered: when. */
  readonly stopped = new Map<string, number>();
  /** Workloads that something was asked of without an answer: they may be there or not. */
  readonly uncertain = new Set<string>();
  /** How often an id was placed, by id. */
  readonly placements = new Map<string, number>();
  /** What the agents, which are in one process, have in common: kept once. */
  readonly common: CommonStates | undefined;
  readonly members = new SimMembers();
  readonly #received = new WeakMap<StateUpdate, StateUpdate>();
  readonly #byId = new Map<string, SimAgent>();

  constructor(readonly options: ClusterWorldOptions) {
    const common = this.common = options.isApart ? undefined : new CommonStates();
    const heartbeat = common && ((payload: Uint8Array) => common.heartbeat(payload));
    this.gossip = new World({
      ...options,
      eager: true,
      serf: {
        userEventSizeLimit: MAX_EVENT_BYTES,
        eventSubject: (event) => clusterEventSubject(event, heartbeat),
      },
      tags: clusterTags,
    });
    this.agents = this.gossip.nodes.map((node) => new SimAgent(this, node, options.memoryMiB ?? 4_096));
    for (const agent of this.agents) {
      this.#byId.set(agent.id, agent);
      agent.skewMs = Math.round((this.random.float() * 2 - 1) * (options.skewMs ?? 0));
    }
    this.gossip.onEvent = (node, event) => this.agents[node.index].event(event);
  }

  get nowMs(): number {
    return this.gossip.nowMs;
  }

  get random(): Random {
    return this.gossip.random;
  }

  get up(): SimAgent[] {
    return this.agents.filter(({ node }) => node.up);
  }

  agent(nodeId: string): SimAgent | undefined {
    return this.#byId.get(nodeId);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.random.int(from.length)];
  }

  after(delayMs: number, run: () => void): Timer {
    return this.gossip.at(this.nowMs + Math.max(0, delayMs), run);
  }

  /** Runs it now, or when the stalled process goes on. */
  whenAwake(node: SimNode, run: () => void): void {
    if (this.nowMs >= node.stalledUntilMs) run();
    else this.gossip.at(node.stalledUntilMs, () => node.up && this.whenAwake(node, run));
  }

  /** All nodes know each other from the start. */
  startKnown(): void {
    for (const agent of this.agents) agent.node.up = false;
    this.gossip.startKnown();
    for (const agent of this.agents) agent.start();
  }

  /** Ends an agent; with `machine` its containers end too. */
  kill(agent: SimAgent, options: { machine: boolean }): void {
    this.gossip.kill(agent.node);
    if (options.machine) agent.runtime.halt();
    else agent.runtime.abandon();
  }

  restart(agent: SimAgent, options: { moved?: boolean } = {}): void {
    this.gossip.restart(agent.node, options);
    agent.start();
    const others = this.up.filter((each) => each !== agent);
    if (others.length > 0) this.gossip.join(agent.node, this.pick(others).node);
  }

  sendEvent(node: SimNode, event: { name: string; payload: Uint8Array }): void {
    this.counts.events++;
    this.counts.eventBytes += event.payload.length;
    this.gossip.run(node, () => {
      node.core.userEvent(this.nowMs, event.name, event.payload, { coalesce: false });
    });
  }

  /** Told of each start that is placed on a node. */
  placed(_on: SimAgent, { id }: Record): void {
    this.placements.set(id, (this.placements.get(id) ?? 0) + 1);
  }

  /** A call between agents: delayed as a stream, refused where nobody listens, silent where the way is cut. */
  call<T>(
    from: SimAgent,
    nodeId: string,
    timeoutMs: number,
    serve: (to: SimAgent, reply: (answer: T | Error) => void) => void,
    done: (answer: T | Error) => void,
  ): void {
    this.counts.calls++;
    const { network } = this.gossip;
    const { core } = from;
    const to = this.#byId.get(nodeId);
    let isOver = false;
    const finish = (answer: T | Error) => {
      if (isOver) return;
      isOver = true;
      timeout.cancel();
      if (from.core === core && from.node.up) {
        this.whenAwake(from.node, () => from.core === core && done(answer));
      }
    };
    const timeout = this.after(timeoutMs, () => finish(new Error("did not answer in time")));
    const isCut = (a: SimAgent, b: SimAgent) => a !== b && network.isBlocked(a.node.index, b.node.index);
    if (to === undefined || isCut(from, to) || isCut(to, from)) return;
    this.after(network.stream() + network.stream(), () => {
      if (!to.node.up) return finish(new Error("connection refused"));
      this.whenAwake(to.node, () => {
        const target = to.core;
        serve(to, (answer) => {
          if (!to.node.up || to.core !== target) return;
          this.after(network.stream(), () => {
            if (!isCut(from, to) && !isCut(to, from)) finish(answer);
          });
        });
      });
    });
  }

  /** An update as whoever fetched it has it. */
  overTheWire(update: StateUpdate): StateUpdate {
    let received = this.options.isApart ? undefined : this.#received.get(update);
    if (received === undefined) {
      received = fromBinary(StateUpdateSchema, toBinary(StateUpdateSchema, update));
      this.#received.set(update, received);
    }
    return received;
  }

  // ---- What operators do, through some agent.

  spawn(through: SimAgent, options: { memoryMiB: number; image: string; isSecret: boolean }): string {
    const id = this.random.bytes(6).toHex();
    const request = create(VmSpawnRequestSchema, {
      imageRef: options.image,
      memory: options.memoryMiB,
      cores: 1,
      ports: { 80: 8080 },
      env: options.isSecret ? ["PASSWORD=secret"] : [],
    });
    const createdAtMs = BigInt(Math.round(EPOCH_MS + this.nowMs));
    this.uncertain.add(id);
    const { core } = through;
    through.placeSomewhere({ id, request, generation: 1n, restarts: 0, createdAtMs }, (error) => {
      if (error !== undefined || through.core !== core) return;
      this.counts.spawns++;
      this.uncertain.delete(id);
      this.wanted.set(id, { request, createdAtMs });
    });
    return id;
  }

  stop(through: SimAgent, id: string): void {
    const found = through.core.find(id);
    if (found.kind !== "found") return;
    const live = found.copies.filter(({ isLive }) => isLive);
    const wanted = this.wanted.get(id);
    this.wanted.delete(id);
    this.uncertain.add(id);
    const target = live.length > 0 ? live[0].nodeId : through.id;
    through.call<true>(target, 30_000, (to, reply) => to.stop(id, reply), (answer) => {
      if (answer instanceof Error || wanted === undefined) return;
      this.counts.stops++;
      this.uncertain.delete(id);
      this.stopped.set(id, this.nowMs);
    });
  }

  /** Starts it on another node, then ends it where it was. */
  move(through: SimAgent, id: string, toId: string, done: () => void = () => {}): void {
    const found = through.core.find(id);
    if (found.kind !== "found" || !found.copies[0].isLive || found.copies[0].nodeId === toId) return done();
    const { nodeId: fromId, workload: { generation, restarts, createdAtMs } } = found.copies[0];
    const source = this.#byId.get(fromId)!;
    through.call<VmSpawnRequest>(fromId, 5_000, (to, reply) => {
      reply(to.runtime.workloads.get(id)?.request ?? new Error("it is not here"));
    }, (request) => {
      if (request instanceof Error) return done();
      const record = { id, request, generation: generation + 1n, restarts, createdAtMs };
      through.call<true>(toId, 90_000, (to, reply) => to.place(record, reply), (answer) => {
        if (answer instanceof Error) return done();
        this.counts.moves++;
        through.call<true>(source.id, 30_000, (to, reply) => to.evict(id, generation, reply), done);
      });
    });
  }

  /** Cordons a node and moves all that it has elsewhere. */
  drain(through: SimAgent, agent: SimAgent): void {
    agent.cordon(true);
    for (const id of agent.runtime.workloads.keys()) {
      const others = this.up.filter((each) => each !== agent && !each.isCordoned);
      if (others.length > 0) this.move(through, id, this.pick(others).id);
    }
  }
}

export { idOf };
