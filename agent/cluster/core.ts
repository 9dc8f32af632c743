import { fromBinary } from "@bufbuild/protobuf";
import {
  type NodeStateResponse,
  type VmSpawnRequest,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import {
  HeartbeatSchema,
  type StateUpdate,
  StateUpdateSchema,
} from "../../proto/gen/hypercore/v1/peer_pb.ts";
import type { Random } from "../../gossip/random.ts";
import { Announcer } from "./announcer.ts";
import { Burial } from "./burial.ts";
import type { CommonStates } from "./common_states.ts";
import { CoreContext } from "./context.ts";
import { DuplicateWatch } from "./copies.ts";
import { Foreign } from "./foreign.ts";
import { applyMembers, type KnownMembers, touch } from "./membership.ts";
import { OwnState } from "./own_state.ts";
import type {
  ClusterEffect,
  ClusterMember,
  LocalState,
  StateSigner,
  StateVerifier,
  StateVersion,
} from "./ports.ts";
import { type Found, type ListedCopy, type NodeSummary, Reads } from "./reads.ts";
import { Repair } from "./repair.ts";
import { type PlannedRoute, RoutePlan } from "./route_plan.ts";
import { StateSync } from "./state_sync.ts";
import { type NodeView, StateTable } from "./state_table.ts";
import { GOSSIP } from "./tags.ts";

/** What a {@linkcode ClusterCore} is made of. */
export interface ClusterCoreOptions {
  node: { id: string; name: string; ip: string };
  agentVersion: string;
  /** Start of the agent, milliseconds since the epoch; never lower than an earlier one's. */
  incarnation: bigint;
  random: Random;
  /** Milliseconds since the epoch. */
  nowMs: number;
  /** Whether this node starts dead nodes' workloads again. */
  respawn: boolean;
  /** `majority`: only while it sees more than half of the last known members. */
  respawnQuorum?: "none" | "majority";
  takeoverMs?: number;
  /** What {@linkcode ClusterCore.tombstones} gave in an earlier life. */
  tombstones?: string;
  signer?: StateSigner;
  verifier?: StateVerifier;
  /** What the cores of one process have in common; absent means that each keeps its own. */
  common?: CommonStates;
}

/**
 * One node's part in the cluster, as a state machine: inputs and the time (`nowMs`, milliseconds since the epoch) go in,
 * effects come out. After each input, and when {@linkcode nextWakeMs} has come, the driver does what the effects say.
 */
export class ClusterCore {
  readonly #context: CoreContext;
  readonly #own: OwnState;
  readonly #table: StateTable;
  readonly #announcer: Announcer;
  readonly #sync: StateSync;
  readonly #burial: Burial;
  readonly #duplicates: DuplicateWatch;
  readonly #repair: Repair;
  readonly #routes: RoutePlan;
  readonly #foreign: Foreign;
  readonly #reads: Reads;
  readonly #common: CommonStates | undefined;
  #local: LocalState | undefined;
  #selfMember: ClusterMember | undefined;
  #members: KnownMembers | undefined;

  /** Throws `Error` where the tombstones cannot be read. */
  constructor(options: ClusterCoreOptions) {
    const { node, random, respawn } = options;
    const own = this.#own = new OwnState(options);
    const table = this.#table = new StateTable({ ...options, selfId: node.id });
    this.#common = options.common;
    const context = this.#context = new CoreContext({ selfId: node.id, random, own, table, respawn });
    context.wallMs = options.nowMs;
    context.clock.advance(options.nowMs);
    this.#announcer = new Announcer({ own, random });
    this.#burial = new Burial(context, (tombstone) => {
      this.#announce(own.bury(tombstone, context.wallMs));
    });
    this.#sync = new StateSync(context, {
      tombstones: (tombstones) => this.#burial.learn(tombstones),
      life: (view) => this.#lifeChanged(view),
    });
    this.#duplicates = new DuplicateWatch({ selfId: node.id, copies: context.copies });
    this.#repair = new Repair(context, {
      quorum: options.respawnQuorum ?? "none",
      takeoverMs: options.takeoverMs,
      isStopped: (id) => this.#burial.tombstones.has(id),
    });
    this.#routes = new RoutePlan({ selfId: node.id, copies: context.copies });
    this.#foreign = new Foreign(context, node.name);
    this.#reads = new Reads(context, { self: node, isStopped: (id) => this.isStopped(id) });
    if (options.tombstones !== undefined) {
      this.#burial.tombstones.load(options.tombstones, options.nowMs);
      for (const tombstone of this.#burial.tombstones.own()) own.bury(tombstone, options.nowMs);
    }
  }

  // ---- Inputs.

  /** What runs on this node, all of it, has changed. Unchanged workloads may be the same objects as before: that is cheap. */
  localChanged(nowMs: number, local: LocalState): ClusterEffect[] {
    return this.#input(nowMs, () => {
      this.#local = local;
      this.#updateOwn();
    });
  }

  /** The members as gossip has them now, all of them, this node included. */
  members(nowMs: number, members: readonly ClusterMember[]): ClusterEffect[] {
    return this.#input(nowMs, () => {
      this.#selfMember = members.find(({ id }) => id === this.#context.parts.selfId);
      const change = applyMembers(this.#context, members, this.#members);
      this.#members = change.known;
      for (const view of change.appeared) this.#sync.appeared(view);
      for (const view of change.disappeared) {
        this.#sync.disappeared(view.id);
        this.#context.note(view.id, `Node "${view.member.name}" ${view.life === "left" ? "left" : "failed"}`);
      }
      for (const view of change.forgotten) {
        this.#sync.forgotten(view.id);
        this.#foreign.forget(view);
      }
      if (change.appeared.length > 0) this.#repair.roomMayBe();
      if (change.isLineChanged) this.#lineChanged();
    });
  }

  /** A user event of gossip, this node's own included. */
  userEvent(nowMs: number, name: string, payload: Uint8Array): ClusterEffect[] {
    return this.#input(nowMs, () => {
      try {
        const common = this.#common;
        if (name === GOSSIP.stateDelta) {
          this.#sync.event(common?.update(payload) ?? fromBinary(StateUpdateSchema, payload));
        } else if (name === GOSSIP.heartbeat) {
          this.#sync.heartbeat(common?.heartbeat(payload) ?? fromBinary(HeartbeatSchema, payload));
        } else if (name === GOSSIP.stateBroadcast) this.#foreign.receive(payload);
      } catch {
        this.#sync.refused++;
      }
    });
  }

  /** A node's answer to `fetch`, or why there is none. */
  fetched(nowMs: number, nodeId: string, answer: StateUpdate | Error): ClusterEffect[] {
    return this.#input(nowMs, () => this.#sync.fetched(nodeId, answer));
  }

  /** One of the states that a `fetch-all` brought. */
  learned(nowMs: number, update: StateUpdate): ClusterEffect[] {
    return this.#input(nowMs, () => this.#sync.learned(update));
  }

  /** The end of a `fetch-all`, and why it failed if it did. */
  learnedAll(nowMs: number, nodeId: string, error?: Error): ClusterEffect[] {
    return this.#input(nowMs, () => this.#sync.learnedAll(nodeId, error));
  }

  /** A `reschedule` has ended: it runs, or `error` says why nobody took it. */
  rescheduled(nowMs: number, result: { id: string; generation: bigint; error?: Error }): ClusterEffect[] {
    return this.#input(nowMs, () => {
      const { id, generation, error } = result;
      this.#repair.rescheduled(id, { generation, ok: error === undefined });
      if (error) this.#context.note(this.#context.parts.selfId, error.message);
    });
  }

  /** A workload was stopped for good: before its container is, so that no failure in between brings it back. */
  tombstone(nowMs: number, stopped: { id: string; generation: bigint }): ClusterEffect[] {
    return this.#input(nowMs, () => this.#burial.stop(stopped.id, stopped.generation));
  }

  /** Another node gives a request in trust. `refusal` says why it is not kept. */
  entrusted(
    nowMs: number,
    given: { id: string; ownerNodeId: string; request: VmSpawnRequest },
  ): { effects: ClusterEffect[]; refusal?: string } {
    let refusal: string | undefined;
    const effects = this.#input(nowMs, () => refusal = this.#repair.entrusted(given));
    return { effects, refusal };
  }

  /** One of the nodes of an `entrust` has the request now, or `error` says why not. */
  entrustDone(nowMs: number, result: { id: string; nodeId: string; error?: Error }): ClusterEffect[] {
    return this.#input(nowMs, () => {
      this.#repair.entrustDone(result.id, result.nodeId, result.error === undefined);
    });
  }

  /** Time has come. */
  tick(nowMs: number): ClusterEffect[] {
    return this.#input(nowMs, () => {});
  }

  /** When {@linkcode tick} has something to do, milliseconds since the epoch. */
  nextWakeMs(): number {
    const { clock } = this.#context;
    const quietMs = this.#own.quietDueMs ?? Infinity;
    const steadyMs = Math.min(
      this.#announcer.nextMs(),
      this.#sync.nextMs(),
      this.#burial.nextMs(),
      this.#duplicates.nextMs(),
      this.#repair.nextMs(),
      this.#foreign.nextMs(),
      quietMs,
    );
    return clock.toWallMs(Math.max(steadyMs, clock.nowMs));
  }

  // ---- Reads.

  /** Every node, this one first. */
  nodes(): NodeSummary[] {
    return this.#reads.nodes(this.#selfMember);
  }

  /** The states of all nodes, this one first; those of dead nodes as they were last. */
  states(): NodeStateResponse[] {
    return this.#reads.states();
  }

  /** The version of a node's state that is known here, and the root that commits to it. */
  root(nodeId: string): (StateVersion & { root: Uint8Array }) | undefined {
    return this.#reads.root(nodeId);
  }

  /** Every workload once, the copy that counts; oldest first. */
  list(): ListedCopy[] {
    return this.#reads.list();
  }

  /** By id, else by name, else by the beginning of an id. */
  find(idOrPrefixOrName: string): Found {
    return this.#reads.find(idOrPrefixOrName);
  }

  /** Whether a tombstone of this id is known. */
  isStopped(id: string): boolean {
    return this.#burial.tombstones.has(id);
  }

  /** Who serves what. The same array until a `routes` effect. */
  routes(): readonly PlannedRoute[] {
    return this.#routes.list();
  }

  /** The routes of one workload, the better way first in each. */
  routesOf(id: string): readonly PlannedRoute[] {
    return this.#routes.of(id);
  }

  /** Answer to `FetchState`: what changed since then, or all. */
  ownUpdate(since?: StateVersion): StateUpdate {
    return this.#own.since(since);
  }

  /** Answer to `FetchStates`: this node's state and all it knows. */
  *updates(): Generator<StateUpdate> {
    yield this.#own.whole();
    yield* this.#table.updates();
  }

  /** A request that another node gave in trust. */
  trusted(id: string): VmSpawnRequest | undefined {
    return this.#repair.trust.get(id);
  }

  /** The tombstones, to be kept on disk. */
  tombstones(): string {
    return this.#burial.tombstones.serialise();
  }

  /** The version of this node's state. */
  get version(): StateVersion {
    return this.#own.at;
  }

  /** Sizes of everything that could grow, and counts of what went wrong. */
  get sizes() {
    return {
      nodes: this.#table.nodes.size,
      workloads: this.#context.copies.size,
      duplicates: this.#duplicates.size,
      refused: this.#sync.refused + this.#foreign.refused,
      ...this.#sync.sizes,
      ...this.#burial.sizes,
      ...this.#repair.sizes,
    };
  }

  /** What happened since the start, for the metrics. */
  get counters() {
    const context = this.#context;
    return {
      broadcastsSkipped: this.#announcer.skipped,
      statesFetched: context.count("fetch"),
      reschedules: context.count("reschedule"),
      copiesEnded: context.count("end-duplicate") + context.count("end-stopped"),
    };
  }

  // ---- How an input is worked off.

  #input(wallMs: number, run: () => void): ClusterEffect[] {
    this.#context.wallMs = wallMs;
    this.#context.clock.advance(wallMs);
    run();
    this.#settle();
    return this.#context.takeEffects();
  }

  #settle(): void {
    const { nowMs, touched, size } = this.#context;
    this.#checkTouched();
    if (this.#local !== undefined && nowMs >= (this.#own.quietDueMs ?? Infinity)) this.#updateOwn();
    this.#sync.tick();
    this.#burial.tick();
    this.#repair.tick();
    this.#foreign.tick();
    for (const { id, winner } of this.#duplicates.due(nowMs)) {
      const generation = this.#own.workloads.get(id)?.state.generation ?? 0n;
      this.#context.emit({ kind: "end-duplicate", id, generation, winner });
    }
    this.#context.emit(...this.#announcer.tick({ nowMs, nodes: size }));
    if (touched.size > 0) this.#checkTouched();
    if (this.#routes.update()) this.#context.emit({ kind: "routes" });
  }

  #checkTouched(): void {
    const { nowMs, touched } = this.#context;
    for (const id of touched) {
      this.#duplicates.check(id, nowMs);
      this.#burial.check(id);
      this.#repair.check(id);
      this.#routes.touch(id);
    }
    touched.clear();
  }

  #updateOwn(): void {
    const { nowMs, wallMs, copies, touched, parts: { selfId } } = this.#context;
    const before = new Map(this.#own.workloads);
    const updates = this.#own.update(this.#local!, { steadyMs: nowMs, wallMs });
    const after = this.#own.workloads;
    let isChanged = false;
    for (const [id, own] of after) {
      if (before.get(id) === own) continue;
      copies.set(id, selfId, own.state);
      touched.add(id);
      isChanged = true;
    }
    for (const id of before.keys()) {
      if (after.has(id)) continue;
      copies.set(id, selfId, undefined);
      touched.add(id);
      isChanged = true;
    }
    if (isChanged) this.#repair.replan();
    this.#announce(updates);
  }

  #announce(updates: readonly StateUpdate[]): void {
    const { nowMs, size } = this.#context;
    this.#context.emit(...this.#announcer.changed(updates, { nowMs, nodes: size }));
  }

  #lifeChanged(view: NodeView): void {
    this.#context.note(
      view.id,
      `Node "${view.member.name}" ${view.life === "live" ? "is heard again" : "has fallen silent"}`,
    );
    touch(this.#context, view);
    this.#lineChanged();
  }

  #lineChanged(): void {
    this.#context.forgetLine();
    this.#repair.replan();
  }
}
