import type { Tombstone } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Heartbeat, StateUpdate } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { heartbeatMs } from "./announcer.ts";
import type { CoreContext } from "./context.ts";
import { FetchPlan } from "./fetch_plan.ts";
import {
  FETCH_ALL_MS,
  FETCH_ALL_RETRY_MS,
  FETCH_FAILURES_BEFORE_RELAY,
  FETCH_TIMEOUT_MS,
  MISSED_HEARTBEATS,
  SILENT_FETCH_MS,
} from "./limits.ts";
import { isOlder, type NodeView, type Outcome, versionOf, type Via } from "./state_table.ts";
import type { StateVersion } from "./ports.ts";

/** How often it is looked who has been silent for too long, milliseconds. */
const SWEEP_MS = 1_000;
/** Pause between two notes of refused states of one node, milliseconds. */
const NOTE_MS = 60_000;
/** Wait after the first member has been seen, so that there is a choice whom to ask. */
const JOIN_SETTLE_MS = 500;
/** Failed attempts to learn all states at once, after which they are fetched one by one. */
const JOIN_ATTEMPTS = 3;

/** Keeps the states of the others up to date: takes what is said, fetches what was missed, notices who is silent. */
export class StateSync {
  readonly #context: CoreContext;
  readonly #fetches: FetchPlan;
  readonly #onTombstones: (tombstones: readonly Tombstone[]) => void;
  readonly #onLife: (view: NodeView) => void;
  /** Nodes whose state must be fetched whole. */
  readonly #whole = new Set<string>();
  /** The newest version of a node that was heard of and could not be taken. */
  readonly #missed = new Map<string, StateVersion>();
  readonly #notedMs = new Map<string, number>();
  /** Learning all states at once: at the beginning, and where the owner can't be reached. */
  #all: { dueMs: number; askedMs?: number; nodeId?: string; attempts: number } = {
    dueMs: Infinity,
    attempts: 0,
  };
  #hasJoined = false;
  #sweepMs = 0;
  /** Updates and heartbeats that were not believed. */
  refused = 0;

  constructor(context: CoreContext, on: {
    tombstones: (tombstones: readonly Tombstone[]) => void;
    /** A node fell silent, or was heard again. */
    life: (view: NodeView) => void;
  }) {
    this.#context = context;
    this.#fetches = new FetchPlan(context.parts.random);
    this.#onTombstones = on.tombstones;
    this.#onLife = on.life;
  }

  get sizes(): { fetches: number; fetchesInFlight: number } {
    return { fetches: this.#fetches.size, fetchesInFlight: this.#fetches.inFlight };
  }

  /** A member is there that was not. */
  appeared(view: NodeView): void {
    const { nowMs } = this.#context;
    if (view.kind !== "hypercore") return;
    if (this.#hasJoined) return this.#need(view.id, false);
    if (this.#all.dueMs === Infinity && this.#all.askedMs === undefined) {
      this.#all.dueMs = nowMs + JOIN_SETTLE_MS;
    }
  }

  /** A member is gone or dead: nothing is fetched from it. */
  disappeared(nodeId: string): void {
    this.#fetches.drop(nodeId);
    this.#whole.delete(nodeId);
    this.#missed.delete(nodeId);
  }

  /** Forgets what belongs to nodes that do not exist any more. */
  forgotten(nodeId: string): void {
    this.disappeared(nodeId);
    this.#notedMs.delete(nodeId);
  }

  /** Takes a difference or a whole state from gossip. */
  event(update: StateUpdate): void {
    this.#take(update, "event");
  }

  heartbeat(beat: Heartbeat): void {
    const { parts: { table, selfId } } = this.#context;
    if (beat.nodeId === selfId) return;
    const view = table.get(beat.nodeId);
    if (view === undefined || view.kind !== "hypercore") return void this.refused++;
    const missing = table.compare(beat);
    const { state } = view;
    const isOld = state !== undefined && (beat.incarnation < state.incarnation ||
      (beat.incarnation === state.incarnation && beat.version < state.version));
    if (!isOld) this.#heard(view);
    if (missing === undefined) return;
    if (missing.since === undefined) this.#whole.add(beat.nodeId);
    this.#miss(beat.nodeId, beat);
    this.#need(beat.nodeId, false);
  }

  /** The owner's answer to a fetch, or why there is none. */
  fetched(nodeId: string, answer: StateUpdate | Error): void {
    const { nowMs } = this.#context;
    const isAnswer = !(answer instanceof Error) && answer.state?.node?.id === nodeId;
    const outcome = isAnswer ? this.#take(answer, "owner") : undefined;
    const ok = outcome !== undefined && outcome.kind !== "refused";
    if (ok && outcome.kind !== "missing") this.#whole.delete(nodeId);
    if (outcome?.kind === "missing") this.#whole.add(nodeId);
    this.#fetches.done(nodeId, { ok: ok && outcome.kind !== "missing", nowMs });
    if (!ok && this.#fetches.failures(nodeId) === FETCH_FAILURES_BEFORE_RELAY) this.#askAnother();
  }

  /** A state that another node knows. */
  learned(update: StateUpdate): void {
    this.#take(update, "relay");
  }

  /** All that another node knows has been learned, or could not be. */
  learnedAll(nodeId: string, error: Error | undefined): void {
    const { nowMs, parts: { table } } = this.#context;
    if (this.#all.nodeId !== nodeId) return;
    const attempts = this.#all.attempts;
    this.#all = { dueMs: Infinity, attempts };
    const isOver = error === undefined || attempts >= JOIN_ATTEMPTS;
    if (!isOver) this.#all.dueMs = nowMs + FETCH_ALL_RETRY_MS;
    if (!isOver || this.#hasJoined) return;
    this.#hasJoined = true;
    for (const view of table.nodes.values()) {
      if (view.kind === "hypercore" && view.life === "live" && view.state === undefined) {
        this.#need(view.id, false);
      }
    }
  }

  /** Does what is due. */
  tick(): void {
    const { nowMs, parts: { table } } = this.#context;
    if (nowMs >= this.#sweepMs) this.#sweep();
    this.#fetchAll();
    for (const nodeId of this.#fetches.due(nowMs)) {
      const state = this.#whole.has(nodeId) ? undefined : table.get(nodeId)?.state;
      this.#context.emit({ kind: "fetch", nodeId, since: state && versionOf(state) });
    }
  }

  nextMs(): number {
    const { askedMs, dueMs } = this.#all;
    const allMs = askedMs === undefined ? dueMs : askedMs + FETCH_TIMEOUT_MS;
    return Math.min(this.#sweepMs, allMs, this.#fetches.nextMs());
  }

  #miss(nodeId: string, version: StateVersion): void {
    const known = this.#missed.get(nodeId);
    if (known === undefined || isOlder(known, version)) this.#missed.set(nodeId, versionOf(version));
  }

  #need(nodeId: string, soon: boolean): void {
    const { nowMs, size } = this.#context;
    this.#fetches.need(nodeId, { nowMs, nodes: size, soon });
  }

  #take(update: StateUpdate, via: Via): Outcome {
    const { parts: { table, selfId, own }, wallMs } = this.#context;
    const nodeId = update.state?.node?.id ?? "";
    if (nodeId === selfId) {
      // From an earlier life of this node whose clock was ahead: others would not believe the present one.
      const { incarnation, version } = update.state!;
      const isAhead = incarnation > own.at.incarnation ||
        (incarnation === own.at.incarnation && version > own.at.version);
      // What anybody could have made up must not drive its incarnation up.
      if (isAhead && table.isOwn(update)) own.outbid(incarnation, wallMs);
      return { kind: "old" };
    }
    const view = table.get(nodeId);
    const before = view?.state;
    const outcome = table.apply(update, via);
    switch (outcome.kind) {
      case "applied":
        this.#context.copied(view!, outcome.ids, before === undefined);
        if (before !== undefined && before.header.cordoned !== view!.state!.header.cordoned) {
          this.#context.note(nodeId, cordonNote(view!.member.name, !before.header.cordoned));
        }
        // A difference may overtake the one before it: with that one alone not all has come.
        if (!isOlder(view!.state!, this.#missed.get(nodeId))) {
          this.#missed.delete(nodeId);
          this.#fetches.satisfied(nodeId);
        }
        this.#whole.delete(nodeId);
        this.#onTombstones(outcome.tombstones);
        if (via !== "relay") this.#heard(view!);
        break;
      case "old":
        if (via === "owner" && view) this.#heard(view);
        break;
      case "missing":
        if (view && via === "event") this.#heard(view);
        if (outcome.since === undefined) this.#whole.add(nodeId);
        this.#miss(nodeId, update.state!);
        if (via !== "relay") this.#need(nodeId, false);
        break;
      case "refused":
        this.#refuse(nodeId, { reason: outcome.reason, via });
    }
    return outcome;
  }

  #heard(view: NodeView): void {
    const { nowMs, parts: { table } } = this.#context;
    view.heardMs = nowMs;
    if (view.life === "stale" && view.member.status === "alive" && table.setLife(view, "live", nowMs)) {
      this.#onLife(view);
    }
  }

  #refuse(nodeId: string, { reason, via }: { reason: string; via: Via }): void {
    this.refused++;
    this.#context.emit({ kind: "refused", nodeId, via });
    const { nowMs, parts: { table } } = this.#context;
    if (table.get(nodeId) === undefined) return;
    if (nowMs - (this.#notedMs.get(nodeId) ?? -Infinity) < NOTE_MS) return;
    this.#notedMs.set(nodeId, nowMs);
    this.#context.note(nodeId, `Cannot take its state: ${reason}`);
  }

  /** Asks who has been silent for long; takes for stale who does not answer that either. */
  #sweep(): void {
    const { nowMs, size, parts: { table } } = this.#context;
    this.#sweepMs = nowMs + SWEEP_MS;
    const periodMs = heartbeatMs(size);
    for (const view of table.nodes.values()) {
      if (view.kind !== "hypercore" || view.life !== "live" || view.member.status !== "alive") continue;
      const silentMs = nowMs - view.heardMs;
      if (silentMs < (MISSED_HEARTBEATS - 1) * periodMs) continue;
      if (!this.#fetches.has(view.id)) this.#need(view.id, true);
      const hasFailed = this.#fetches.failures(view.id) > 0 ||
        this.#fetches.waitedMs(view.id, nowMs) >= SILENT_FETCH_MS ||
        silentMs > MISSED_HEARTBEATS * periodMs + FETCH_TIMEOUT_MS;
      if (silentMs >= MISSED_HEARTBEATS * periodMs && hasFailed && table.setLife(view, "stale", nowMs)) {
        this.#onLife(view);
      }
    }
  }

  #askAnother(): void {
    if (this.#all.askedMs === undefined && this.#all.dueMs === Infinity) {
      this.#all.dueMs = this.#context.nowMs + FETCH_ALL_MS * this.#context.parts.random.float();
    }
  }

  #fetchAll(): void {
    const { nowMs, parts: { random, selfId } } = this.#context;
    const all = this.#all;
    if (all.askedMs !== undefined && nowMs - all.askedMs >= FETCH_TIMEOUT_MS) {
      this.learnedAll(all.nodeId!, new Error("it did not answer"));
    }
    if (this.#all.askedMs !== undefined || this.#all.dueMs > nowMs) return;
    const others = this.#context.liveNodes().filter((id) => id !== selfId);
    if (others.length === 0) {
      this.#all.dueMs = Infinity;
      return;
    }
    const nodeId = others[random.int(others.length)];
    this.#all = { dueMs: Infinity, askedMs: nowMs, nodeId, attempts: this.#all.attempts + 1 };
    this.#context.emit({ kind: "fetch-all", nodeId });
  }
}

/** What the event stream says when a node is cordoned, or is not any more. */
export function cordonNote(node: string, cordoned: boolean): string {
  return `Node "${node}" ${cordoned ? "takes no new workloads" : "takes new workloads again"}`;
}
