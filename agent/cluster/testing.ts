import { create, toBinary } from "@bufbuild/protobuf";
import {
  CapacitySchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { seededRandom } from "../../gossip/random.ts";
import { ClusterCore, type ClusterCoreOptions } from "./core.ts";
import type { ClusterEffect, ClusterMember, LocalState } from "./ports.ts";
import { TAG } from "./tags.ts";

/** A workload as tests want it: running, of generation 1, on host port 80. */
export function workload(id: string, init: Omit<Partial<WorkloadState>, "$typeName"> = {}): WorkloadState {
  return create(WorkloadStateSchema, {
    id,
    status: "running",
    generation: 1n,
    createdAtMs: 1n,
    sourceRequest: spawnRequest(),
    ...init,
  });
}

/** A request for a small workload on host port 80. */
export function spawnRequest(init: Omit<Partial<VmSpawnRequest>, "$typeName"> = {}): VmSpawnRequest {
  const base = { imageRef: "example/web:1", ports: { 80: 8080 }, memory: 64, cores: 1 };
  return create(VmSpawnRequestSchema, { ...base, ...init });
}

/** The state of a node that runs these. */
export function local(workloads: WorkloadState[], rest: Partial<LocalState> = {}): LocalState {
  const capacity = create(CapacitySchema, { milliCpus: 8_000, memoryBytes: 1n << 33n });
  return { workloads, capacity, cordoned: false, tags: {}, policy: undefined, beacon: undefined, ...rest };
}

/** A member that speaks our protocol and reschedules. */
export function member(id: string, init: Partial<ClusterMember> = {}): ClusterMember {
  return {
    id,
    name: `name-${id}`,
    status: "alive",
    address: { host: "10.0.0.1", port: 7946 },
    tags: { [TAG.protocol]: "1", [TAG.id]: id, [TAG.respawn]: "1" },
    ...init,
  };
}

/** A core on its own. Time begins at 1 000 000 ms. */
export function core(id: string, options: Partial<ClusterCoreOptions> = {}): ClusterCore {
  return new ClusterCore({
    node: { id, name: `name-${id}`, ip: "10.0.0.1" },
    agentVersion: "test",
    incarnation: 1_000n,
    random: seededRandom(1),
    nowMs: START_MS,
    respawn: true,
    ...options,
  });
}

/** When test clocks begin. */
export const START_MS = 1_000_000;

/** Cores that hear each other at once, with a fetch answered within the same millisecond: the happy path as a network. */
export class Bench {
  nowMs = START_MS;
  readonly cores = new Map<string, ClusterCore>();
  readonly members = new Map<string, ClusterMember>();
  /** Effects that are not events and fetches, with the node that has them. */
  readonly log: { nodeId: string; effect: ClusterEffect }[] = [];
  /** Cores that neither hear nor are heard. */
  readonly cut = new Set<string>();
  /** Whether what is asked of a core that is cut fails at once; otherwise it gets no answer, as from a machine without power. */
  refuses = true;
  /** Bytes of all events. */
  eventBytes = 0;
  readonly #queue: (() => void)[] = [];

  add(id: string, options: Partial<ClusterCoreOptions> = {}): ClusterCore {
    const added = core(id, { nowMs: this.nowMs, random: seededRandom(this.cores.size + 1), ...options });
    this.cores.set(id, added);
    this.members.set(id, member(id));
    this.shareMembers();
    return added;
  }

  /** Tells everybody who is there. */
  shareMembers(): void {
    for (const [id, each] of this.cores) {
      if (!this.cut.has(id)) this.feed(id, each.members(this.nowMs, [...this.members.values()]));
    }
  }

  setStatus(id: string, status: ClusterMember["status"]): void {
    this.members.set(id, { ...this.members.get(id)!, status });
    this.shareMembers();
  }

  /** Does what a core wants done. */
  feed(nodeId: string, effects: readonly ClusterEffect[]): void {
    for (const effect of effects) this.#queue.push(() => this.#perform(nodeId, effect));
    this.#drain();
  }

  /** Lets time pass. */
  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      let next = Infinity;
      for (const [id, each] of this.cores) if (!this.cut.has(id)) next = Math.min(next, each.nextWakeMs());
      if (next > endMs) break;
      this.nowMs = Math.max(this.nowMs, next);
      for (const [id, each] of this.cores) {
        if (!this.cut.has(id) && each.nextWakeMs() <= this.nowMs) this.feed(id, each.tick(this.nowMs));
      }
    }
    this.nowMs = endMs;
    for (const [id, each] of this.cores) if (!this.cut.has(id)) this.feed(id, each.tick(endMs));
  }

  /** Effects of a kind that a node had. */
  seen<K extends ClusterEffect["kind"]>(nodeId: string, kind: K): (ClusterEffect & { kind: K })[] {
    return this.log.filter((entry) => entry.nodeId === nodeId && entry.effect.kind === kind)
      .map(({ effect }) => effect as ClusterEffect & { kind: K });
  }

  #isDraining = false;
  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    while (this.#queue.length > 0) this.#queue.shift()!();
    this.#isDraining = false;
  }

  #perform(nodeId: string, effect: ClusterEffect): void {
    if (this.cut.has(nodeId)) return;
    const self = this.cores.get(nodeId)!;
    switch (effect.kind) {
      case "event":
        this.eventBytes += effect.payload.length;
        for (const [id, each] of this.cores) {
          if (!this.cut.has(id)) this.feed(id, each.userEvent(this.nowMs, effect.name, effect.payload));
        }
        return;
      case "fetch": {
        if (!this.refuses && this.cut.has(effect.nodeId)) return;
        const owner = this.cut.has(effect.nodeId) ? undefined : this.cores.get(effect.nodeId);
        const answer = owner?.ownUpdate(effect.since) ?? new Error("unreachable");
        this.log.push({ nodeId, effect });
        return this.feed(nodeId, self.fetched(this.nowMs, effect.nodeId, answer));
      }
      case "fetch-all": {
        this.log.push({ nodeId, effect });
        const other = this.cut.has(effect.nodeId) ? undefined : this.cores.get(effect.nodeId);
        for (const update of other?.updates() ?? []) this.feed(nodeId, self.learned(this.nowMs, update));
        const error = other === undefined ? new Error("unreachable") : undefined;
        return this.feed(nodeId, self.learnedAll(this.nowMs, effect.nodeId, error));
      }
      default:
        this.log.push({ nodeId, effect });
    }
  }
}

/** Length of a workload's state in bytes. */
export function sizeOf(state: WorkloadState): number {
  return toBinary(WorkloadStateSchema, state).length;
}
