import type { Random } from "../../gossip/random.ts";
import { Earliest } from "./earliest.ts";
import {
  DEATH_SETTLE_MS,
  MAX_IN_LINE,
  MAX_RESCHEDULES,
  QUORUM_LOOK_MS,
  RESCHEDULE_APPEAR_MS,
  RESCHEDULE_RETRY_MAX_MS,
  RESCHEDULE_RETRY_MS,
  RESCHEDULE_TIMEOUT_MS,
  TAKEOVER_MS,
} from "./limits.ts";
import type { Rendezvous } from "./rendezvous.ts";

/** A workload without a live copy, on a node that died. */
export interface Lost {
  id: string;
  /** The node that had it, and when it was found dead. */
  from: string;
  deadMs: number;
  /** The highest generation that any copy has. */
  generation: bigint;
}

/** The world as {@linkcode Rescheduler} has to know it. */
export interface RescheduleView {
  /** The workload as it is lost, or undefined while it needs nobody. */
  lost(id: string): Lost | undefined;
  /** Whether this node has all that is needed to start it. */
  canStart(id: string): boolean;
  /** Whether this node was entrusted with its request. */
  isTrusted(id: string): boolean;
  /** The members that reschedule, this one included when it does. */
  line(): Rendezvous;
  /** Whether the side that this node sees may reschedule what was lost (quorum). */
  isAllowed(lost: Lost): boolean;
}

/** What to do about a lost workload. */
export type RescheduleAction =
  | { kind: "start"; lost: Lost; generation: bigint }
  /** It is this node's turn and the request is not here. */
  | { kind: "cannot"; lost: Lost };

interface Case {
  /** Since when this node sees no live copy; undefined while there is one and only the failures are remembered. */
  lostMs: number | undefined;
  /** When the death is settled. */
  settledMs: number;
  /** Since when the side that this node sees may act; undefined while that is not known. */
  allowedMs: number | undefined;
  isRefused: boolean;
  /** How far back in line this node stands. */
  position: number;
  /** Not again before this, after a failure. */
  notBeforeMs: number;
  failures: number;
  /** While one is under way: since when, and the generation asked for. */
  under?: { sinceMs: number; generation: bigint };
  isReported: boolean;
}

/** A workload that lives again for this long begins without a record of failures, milliseconds. */
const FORGET_FAILURES_MS = 120_000;

/** What {@linkcode Rescheduler} is made of. */
export interface ReschedulerOptions {
  selfId: string;
  /** Off: this node never acts. */
  isEnabled: boolean;
  random: Random;
  view: RescheduleView;
  takeoverMs?: number;
}

/**
 * Decides which lost workloads this node starts again, and when. All nodes rank the line for an id alike; the k-th acts
 * when k times the takeover time has passed without a live copy. It stops as soon as there is one again.
 */
export class Rescheduler {
  readonly #options: ReschedulerOptions;
  readonly #takeoverMs: number;
  readonly #cases = new Map<string, Case>();
  readonly #earliest = new Earliest(() => this.#nextMs());
  #underWay = 0;

  constructor(options: ReschedulerOptions) {
    this.#options = options;
    this.#takeoverMs = options.takeoverMs ?? TAKEOVER_MS;
  }

  /** Lost workloads that wait for their turn or are being started. */
  get size(): number {
    return this.#cases.size;
  }

  get underWay(): number {
    return this.#underWay;
  }

  /** Looks at an id again: its copies, the members, or what is held in trust may have changed. */
  check(id: string, nowMs: number): void {
    const { isEnabled, view } = this.#options;
    const lost = isEnabled ? view.lost(id) : undefined;
    const position = lost === undefined ? -1 : this.#position(id);
    const known = this.#cases.get(id);
    if (lost === undefined || position < 0) {
      if (known === undefined) return;
      this.#earliest.changed();
      known.lostMs = known.allowedMs = undefined;
      known.isRefused = false;
      if (known.under === undefined && known.failures === 0) this.#cases.delete(id);
      return;
    }
    this.#earliest.changed();
    const each = known ?? this.#newCase(id);
    each.lostMs ??= nowMs;
    each.position = position;
    each.settledMs = Math.max(lost.deadMs, each.lostMs) + DEATH_SETTLE_MS;
  }

  /** There may be room where there was none: what failed is tried again soon. */
  nudge(nowMs: number): void {
    this.#earliest.changed();
    for (const each of this.#cases.values()) {
      if (each.failures === 0 || each.under !== undefined) continue;
      const soonMs = nowMs + RESCHEDULE_RETRY_MS * (0.5 + this.#options.random.float());
      each.notBeforeMs = Math.min(each.notBeforeMs, soonMs);
    }
  }

  /** What this node does now. */
  due(nowMs: number): RescheduleAction[] {
    const { view } = this.#options;
    const actions: RescheduleAction[] = [];
    if (nowMs < this.nextMs()) return actions;
    this.#earliest.changed();
    for (const [id, each] of this.#cases) {
      if (each.under !== undefined) {
        if (nowMs - each.under.sinceMs < RESCHEDULE_TIMEOUT_MS) continue;
        this.done(id, { generation: each.under.generation, ok: false, nowMs });
      }
      if (each.lostMs === undefined) {
        if (nowMs - each.notBeforeMs > FORGET_FAILURES_MS) this.#cases.delete(id);
        continue;
      }
      if (this.#dueMs(each) > nowMs) continue;
      const lost = view.lost(id);
      if (lost === undefined) {
        this.check(id, nowMs);
        continue;
      }
      if (!view.isAllowed(lost)) {
        each.allowedMs = undefined;
        each.isRefused = true;
        each.notBeforeMs = nowMs + QUORUM_LOOK_MS;
        continue;
      }
      each.allowedMs ??= each.isRefused ? nowMs : each.settledMs;
      if (this.#dueMs(each) > nowMs) continue;
      if (!view.canStart(id)) {
        each.notBeforeMs = nowMs + RESCHEDULE_RETRY_MAX_MS;
        if (!each.isReported) actions.push({ kind: "cannot", lost });
        each.isReported = true;
      } else if (this.#underWay < MAX_RESCHEDULES) {
        const generation = lost.generation + 1n;
        each.under = { sinceMs: nowMs, generation };
        this.#underWay++;
        actions.push({ kind: "start", lost, generation });
      }
    }
    return actions;
  }

  /** One that was started has ended: it runs somewhere, or nobody took it. */
  done(id: string, result: { generation: bigint; ok: boolean; nowMs: number }): void {
    const each = this.#cases.get(id);
    if (each?.under?.generation !== result.generation) return;
    this.#earliest.changed();
    each.under = undefined;
    this.#underWay--;
    const { nowMs } = result;
    if (result.ok) {
      // The state that says so is on its way; when it does not come, it is tried again.
      each.failures = 0;
      each.notBeforeMs = nowMs + RESCHEDULE_APPEAR_MS;
    } else {
      const pauseMs = Math.min(
        RESCHEDULE_RETRY_MS * 2 ** Math.min(each.failures, 16),
        RESCHEDULE_RETRY_MAX_MS,
      );
      each.notBeforeMs = nowMs + pauseMs * (0.5 + this.#options.random.float());
      each.failures++;
    }
    this.check(id, nowMs);
  }

  /** When {@linkcode due} has something to say. */
  nextMs(): number {
    return this.#earliest.atMs;
  }

  #nextMs(): number {
    let next = Infinity;
    const isFull = this.#underWay >= MAX_RESCHEDULES;
    for (const each of this.#cases.values()) {
      if (each.under !== undefined) next = Math.min(next, each.under.sinceMs + RESCHEDULE_TIMEOUT_MS);
      else if (each.lostMs === undefined) next = Math.min(next, each.notBeforeMs + FORGET_FAILURES_MS + 1);
      else if (!isFull) next = Math.min(next, this.#dueMs(each));
    }
    return next;
  }

  /** When there is something to do: to see whether anyone may act and, once that is known, to act when it is its turn. */
  #dueMs({ settledMs, allowedMs, position, notBeforeMs }: Case): number {
    const waitMs = allowedMs === undefined ? 0 : position * this.#takeoverMs;
    return Math.max(Math.max(settledMs, allowedMs ?? 0) + waitMs, notBeforeMs);
  }

  /** This node's place among those that act for an id; -1 where it does not. */
  #position(id: string): number {
    const { selfId, view } = this.#options;
    const most = view.isTrusted(id) ? Infinity : MAX_IN_LINE;
    const position = view.line().position(id, selfId, { most });
    return position < most ? position : -1;
  }

  #newCase(id: string): Case {
    const each: Case = {
      lostMs: undefined,
      settledMs: Infinity,
      allowedMs: undefined,
      isRefused: false,
      position: 0,
      notBeforeMs: -Infinity,
      failures: 0,
      isReported: false,
    };
    this.#cases.set(id, each);
    return each;
  }
}
