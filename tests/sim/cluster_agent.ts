import { create } from "@bufbuild/protobuf";
import {
  CapacitySchema,
  type Offer,
  type VmSpawnRequest,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { StateUpdate } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { ClusterCore } from "../../agent/cluster/core.ts";
import { Placement } from "../../agent/cluster/placement.ts";
import type { ClusterEffect, LocalState } from "../../agent/cluster/ports.ts";
import { PROTOCOL_VERSION, TAG } from "../../agent/cluster/tags.ts";
import type { SerfEvent } from "../../gossip/serf/events.ts";
import { seededRandom } from "../../gossip/random.ts";
import { MemberList } from "./cluster_members.ts";
import { type Record, SimRuntime } from "./cluster_runtime.ts";
import type { ClusterWorld } from "./cluster_world.ts";
import type { SimNode } from "./world.ts";

/** Milliseconds since the epoch at which worlds begin. */
export const EPOCH_MS = 1_700_000_000_000;
/** Members are told to the core at most this often. */
const MEMBERS_MS = 50;
const OFFER_MS = 1_000;
const PLACE_MS = 90_000;
const PEER_MS = 5_000;

/** The tags of a simulated node. */
export function clusterTags(name: string): Map<string, string> {
  return new Map([[TAG.protocol, PROTOCOL_VERSION], [TAG.id, idOf(name)], [TAG.respawn, "1"], [
    TAG.arch,
    "amd64",
  ]]);
}

/** The node id that belongs to a name. */
export function idOf(name: string): string {
  return `id-${name}`;
}

/** One agent: the core that ships, a driver for it on the simulated network, and a runtime in memory. */
export class SimAgent {
  readonly runtime: SimRuntime;
  core!: ClusterCore;
  isCordoned = false;
  /** How far its clock is ahead. */
  skewMs = 0;
  /** What is kept on disk. */
  #disk: { tombstones?: string } = {};
  #incarnation = 0n;
  #wakeMs = Infinity;
  #areMembersStale = false;
  #members: MemberList;

  constructor(readonly world: ClusterWorld, readonly node: SimNode, memoryMiB: number) {
    this.#members = new MemberList(world.members);
    this.runtime = new SimRuntime({
      memoryMiB,
      random: world.random,
      nowMs: () => world.nowMs,
      after: (delayMs, run) => world.after(delayMs, run),
      wallMs: () => this.wallMs,
      onChange: () => this.#localChanged(),
      keepsGeneration: world.options.canary === "no-generations",
    });
  }

  get id(): string {
    return idOf(this.node.name);
  }

  get wallMs(): number {
    return EPOCH_MS + this.world.nowMs + this.skewMs;
  }

  /** Begins a life of the agent: the core is new, the disk and the containers are not. */
  start(): void {
    const { world, node } = this;
    const wallMs = this.wallMs;
    const incarnation = BigInt(Math.round(wallMs));
    this.#incarnation = incarnation > this.#incarnation ? incarnation : this.#incarnation + 1n;
    this.core = new ClusterCore({
      node: { id: this.id, name: node.name, ip: node.endpoint.host },
      agentVersion: "sim",
      incarnation: this.#incarnation,
      random: seededRandom(world.random.int(0x7fff_ffff)),
      nowMs: wallMs,
      respawn: true,
      respawnQuorum: world.options.quorum ?? "none",
      tombstones: this.#disk.tombstones,
      common: world.common,
    });
    this.#wakeMs = Infinity;
    this.#members = new MemberList(world.members);
    this.runtime.supervise();
    this.#localChanged();
    this.#membersChanged();
  }

  /** An event of gossip. */
  event(event: SerfEvent): void {
    if (event.kind === "user") {
      const { name, payload } = event;
      this.#feed((nowMs) => this.core.userEvent(nowMs, name, payload));
    } else if ("members" in event) {
      this.#members.changed(event.members.map(({ name }) => name));
      this.#membersChanged();
    }
  }

  /** Places a new or lost workload somewhere. */
  placeSomewhere(record: Record, done: (error: Error | undefined) => void): void {
    const { core, world } = this;
    const candidates = core.nodes().filter(({ life, kind }) => life === "live" && kind === "hypercore").map((
      node,
    ) => ({
      id: node.id,
      name: node.name,
      tags: { ...node.member?.tags },
      cordoned: node.header?.cordoned ?? false,
      capacity: node.header?.capacity,
      sameImage: 0,
    }));
    const placement = new Placement({
      request: record.request,
      candidates,
      mode: "ranked",
      random: world.random,
    });
    const askMore = () => {
      const ids = placement.ask();
      if (ids.length === 0) return done(placement.error());
      let isOver = false;
      const settle = () => {
        if (isOver || !placement.isSettled) return;
        isOver = true;
        tryNext();
      };
      for (const id of ids) {
        this.call<Offer>(id, OFFER_MS, (to, reply) => reply(to.offer(record)), (answer) => {
          if (answer instanceof Error) placement.refused(id, answer.message);
          else placement.offered(id, answer);
          settle();
        });
      }
    };
    const tryNext = () => {
      const id = placement.next();
      if (id === undefined) return askMore();
      this.call<true>(id, PLACE_MS, (to, reply) => to.place(record, reply), (answer) => {
        if (answer === true) return done(undefined);
        placement.refused(id, answer.message);
        tryNext();
      });
    };
    askMore();
  }

  /** Answers `Offer`. */
  offer({ id, request }: Record): Offer | Error {
    const refusal = this.#refusal(id);
    const offer = refusal ?? this.runtime.offer(request);
    return typeof offer === "string" ? new Error(offer) : offer;
  }

  /** Answers `Place`. */
  place(record: Record, reply: (answer: true | Error) => void): void {
    const refusal = this.#refusal(record.id);
    if (refusal !== undefined) return reply(new Error(refusal));
    const given = this.world.options.canary === "no-generations" ? { ...record, generation: 1n } : record;
    this.world.placed(this, record);
    this.runtime.place(given, (error) => reply(error ?? true));
  }

  /** Answers `Evict`: ends the copy where it is not newer. */
  evict(id: string, generation: bigint, reply: (answer: true | Error) => void): void {
    const workload = this.runtime.workloads.get(id);
    if (workload === undefined) return reply(true);
    if (workload.generation > generation) return reply(new Error("its copy is newer"));
    this.runtime.stop(id, () => reply(true));
  }

  /** Answers `Stop`: for good. */
  stop(id: string, reply: (answer: true | Error) => void): void {
    const generation = this.runtime.workloads.get(id)?.generation ?? 0n;
    if (this.world.options.canary !== "no-tombstones") {
      this.#feed((nowMs) => this.core.tombstone(nowMs, { id, generation }));
    }
    this.runtime.stop(id, () => reply(true));
  }

  cordon(isCordoned: boolean): void {
    this.isCordoned = isCordoned;
    this.#localChanged();
  }

  /** A call to another agent, or to itself. */
  call<T>(
    nodeId: string,
    timeoutMs: number,
    serve: (to: SimAgent, reply: (answer: T | Error) => void) => void,
    done: (answer: T | Error) => void,
  ): void {
    this.world.call(this, nodeId, timeoutMs, serve, done);
  }

  #refusal(id: string): string | undefined {
    if (this.isCordoned) return "it is cordoned";
    if (this.world.options.canary !== "no-tombstones" && this.core.isStopped(id)) return "it was stopped";
    return this.runtime.workloads.has(id) ? "it has this id already" : undefined;
  }

  #localChanged(): void {
    if (this.core === undefined || !this.node.up) return;
    const state: LocalState = {
      workloads: this.runtime.states(),
      capacity: create(CapacitySchema, {
        milliCpus: 1_000_000,
        memoryBytes: BigInt(this.runtime.memoryMiB) << 20n,
        usedMemoryBytes: BigInt(this.runtime.usedMiB) << 20n,
      }),
      cordoned: this.isCordoned,
      tags: {},
      policy: undefined,
      beacon: undefined,
    };
    this.#feed((nowMs) => this.core.localChanged(nowMs, state));
  }

  #membersChanged(): void {
    if (this.#areMembersStale) return;
    this.#areMembersStale = true;
    this.world.after(MEMBERS_MS, () => {
      this.#areMembersStale = false;
      if (!this.node.up) return;
      this.world.whenAwake(this.node, () => {
        const members = this.#members.from(this.node.core.members);
        this.#feed((nowMs) => this.core.members(nowMs, members));
      });
    });
  }

  #feed(input: (nowMs: number) => ClusterEffect[]): void {
    if (!this.node.up) return;
    const { core } = this;
    for (const effect of input(this.wallMs)) if (this.core === core) this.#perform(effect);
    this.#arm();
  }

  #arm(): void {
    const { world, node, core } = this;
    const atMs = Math.max(world.nowMs, core.nextWakeMs() - EPOCH_MS - this.skewMs);
    if (atMs >= this.#wakeMs) return;
    this.#wakeMs = atMs;
    world.after(atMs - world.nowMs, () => {
      if (this.core !== core || this.#wakeMs !== atMs) return;
      this.#wakeMs = Infinity;
      if (node.up) world.whenAwake(node, () => this.#feed((nowMs) => this.core.tick(nowMs)));
    });
  }

  #perform(effect: ClusterEffect): void {
    const { world, node, core } = this;
    switch (effect.kind) {
      case "event":
        return world.sendEvent(node, effect);
      case "fetch":
        return this.call<StateUpdate>(
          effect.nodeId,
          PEER_MS,
          (to, reply) => reply(world.overTheWire(to.core.ownUpdate(effect.since))),
          (answer) => this.#feed((nowMs) => core.fetched(nowMs, effect.nodeId, answer)),
        );
      case "fetch-all":
        return this.call<StateUpdate[]>(
          effect.nodeId,
          PEER_MS,
          (to, reply) => reply(Array.from(to.core.updates(), (update) => world.overTheWire(update))),
          (answer) => {
            const error = answer instanceof Error ? answer : undefined;
            for (const update of answer instanceof Error ? [] : answer) {
              this.#feed((nowMs) => core.learned(nowMs, update));
            }
            this.#feed((nowMs) => core.learnedAll(nowMs, effect.nodeId, error));
          },
        );
      case "end-duplicate":
        return this.evict(effect.id, effect.generation, () => {});
      case "end-stopped":
        return this.runtime.stop(effect.id);
      case "reschedule": {
        const { id, generation, request, createdAtMs } = effect;
        const record: Record = { id, generation, request, createdAtMs, restarts: effect.restarts + 1 };
        world.counts.reschedules++;
        return this.placeSomewhere(record, (error) => {
          this.#feed((nowMs) => core.rescheduled(nowMs, { id, generation, error }));
        });
      }
      case "entrust":
        return this.#entrust(effect.id, effect.to);
      case "save-tombstones":
        this.#disk.tombstones = core.tombstones();
        return;
      case "routes":
      case "note":
        return;
    }
  }

  #entrust(id: string, to: readonly string[]): void {
    const { core } = this;
    const request = this.runtime.workloads.get(id)?.request;
    for (const nodeId of to) {
      const finish = (error?: Error) => this.#feed((nowMs) => core.entrustDone(nowMs, { id, nodeId, error }));
      if (request === undefined) finish(new Error("it is gone"));
      else {
        this.call<true>(
          nodeId,
          PEER_MS,
          (other, reply) => reply(other.keep(id, this.id, request)),
          (answer) => {
            finish(answer instanceof Error ? answer : undefined);
          },
        );
      }
    }
  }

  /** Answers `Entrust`. */
  keep(id: string, ownerNodeId: string, request: VmSpawnRequest): true | Error {
    let refusal: string | undefined;
    this.#feed((nowMs) => {
      const result = this.core.entrusted(nowMs, { id, ownerNodeId, request });
      refusal = result.refusal;
      return result.effects;
    });
    return refusal === undefined ? true : new Error(refusal);
  }
}
