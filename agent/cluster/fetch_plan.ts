import type { Random } from "../../gossip/random.ts";
import { type Timer, TimerHeap } from "../../gossip/timers.ts";
import {
  FETCH_DELAY_MS,
  FETCH_RETRY_MAX_MS,
  FETCH_RETRY_MS,
  FETCH_SPREAD_MAX_MS,
  FETCH_SPREAD_MS,
  FETCH_TIMEOUT_MS,
  MAX_FETCHES,
} from "./limits.ts";

interface Need {
  dueMs: number;
  /** Runs when it is due. */
  timer?: Timer;
  failures: number;
  /** Set while a fetch is under way. */
  sinceMs?: number;
  /** Asked for again while it was under way. */
  again: boolean;
}

/** Whose state is to be fetched, and when: one fetch a node at a time, few in all, growing pauses after failures. */
export class FetchPlan {
  readonly #random: Random;
  /** Those whose time is to come or has come. */
  readonly #waiting = new Map<string, Need>();
  /** The times of those whose time is to come: after a partition hundreds wait, and few are due. */
  readonly #times = new TimerHeap();
  /** Those whose time has come, the first first. */
  readonly #ready = new Set<string>();
  /** In the order in which they began, so that the first is given up first. */
  readonly #underWay = new Map<string, Need>();

  constructor(random: Random) {
    this.#random = random;
  }

  /** Nodes that something is to be fetched from or is being fetched from. */
  get size(): number {
    return this.#waiting.size + this.#underWay.size;
  }

  get inFlight(): number {
    return this.#underWay.size;
  }

  /** Consecutive failures with a node. */
  failures(nodeId: string): number {
    return this.#need(nodeId)?.failures ?? 0;
  }

  /** How long the fetch that is under way has been, milliseconds; 0 when there is none. */
  waitedMs(nodeId: string, nowMs: number): number {
    return nowMs - (this.#underWay.get(nodeId)?.sinceMs ?? nowMs);
  }

  has(nodeId: string): boolean {
    return this.#need(nodeId) !== undefined;
  }

  /**
   * Something of this node is missing. `nodes` is how many may want the same of it: they spread their fetches. `soon`
   * skips the wait for an event that may be on its way.
   */
  need(nodeId: string, options: { nowMs: number; nodes: number; soon?: boolean }): void {
    const { nowMs, nodes } = options;
    const underWay = this.#underWay.get(nodeId);
    if (underWay !== undefined) underWay.again = true;
    if (this.has(nodeId)) return;
    const spreadMs = Math.min(FETCH_SPREAD_MS * nodes, FETCH_SPREAD_MAX_MS);
    const dueMs = nowMs + (options.soon ? 0 : FETCH_DELAY_MS) + this.#random.float() * spreadMs;
    this.#wait(nodeId, { dueMs, failures: 0, again: false });
  }

  /** What was missing has come, or the node is gone. */
  drop(nodeId: string): void {
    if (!this.#underWay.delete(nodeId)) this.satisfied(nodeId);
  }

  /** What was missing has come by another way. */
  satisfied(nodeId: string): void {
    const need = this.#waiting.get(nodeId);
    if (need === undefined) return;
    need.timer?.cancel();
    this.#waiting.delete(nodeId);
    this.#ready.delete(nodeId);
  }

  /** A fetch has ended. */
  done(nodeId: string, options: { ok: boolean; nowMs: number }): void {
    const need = this.#need(nodeId);
    if (need === undefined) return;
    const { nowMs } = options;
    const { again, failures } = need;
    this.drop(nodeId);
    if (!options.ok) {
      const pauseMs = Math.min(FETCH_RETRY_MS * 2 ** Math.min(failures, 16), FETCH_RETRY_MAX_MS);
      const dueMs = nowMs + pauseMs * (0.5 + this.#random.float());
      this.#wait(nodeId, { dueMs, failures: failures + 1, again: false });
    } else if (again) this.#wait(nodeId, { dueMs: nowMs + FETCH_DELAY_MS, failures: 0, again: false });
  }

  /** Whom to fetch from now. */
  due(nowMs: number): string[] {
    const due: string[] = [];
    if (nowMs < this.nextMs()) return due;
    for (const [nodeId, need] of this.#underWay) {
      if (timeoutMs(need) > nowMs) break;
      this.done(nodeId, { ok: false, nowMs });
    }
    this.#times.run(nowMs);
    for (const nodeId of this.#ready) {
      if (this.#isFull) break;
      const need = this.#waiting.get(nodeId)!;
      need.sinceMs = nowMs;
      this.#ready.delete(nodeId);
      this.#waiting.delete(nodeId);
      this.#underWay.set(nodeId, need);
      due.push(nodeId);
    }
    return due;
  }

  /** When {@linkcode due} has something to say. */
  nextMs(): number {
    let next = Infinity;
    for (const need of this.#underWay.values()) {
      next = timeoutMs(need);
      break;
    }
    if (this.#isFull) return next;
    for (const nodeId of this.#ready) return Math.min(next, this.#waiting.get(nodeId)!.dueMs);
    return Math.min(next, this.#times.nextMs ?? Infinity);
  }

  get #isFull(): boolean {
    return this.#underWay.size >= MAX_FETCHES;
  }

  #need(nodeId: string): Need | undefined {
    return this.#underWay.get(nodeId) ?? this.#waiting.get(nodeId);
  }

  #wait(nodeId: string, need: Need): void {
    this.#waiting.set(nodeId, need);
    need.timer = this.#times.set(need.dueMs, () => this.#ready.add(nodeId));
  }
}

/** When a fetch that is under way is given up. */
function timeoutMs({ sinceMs = 0 }: Need): number {
  return sinceMs + FETCH_TIMEOUT_MS;
}
