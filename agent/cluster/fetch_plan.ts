import type { Random } from "../../gossip/random.ts";
import { Earliest } from "./earliest.ts";
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
  failures: number;
  /** Set while a fetch is under way. */
  sinceMs?: number;
  /** Asked for again while it was under way. */
  again: boolean;
}

/** Whose state is to be fetched, and when: one fetch a node at a time, few in all, growing pauses after failures. */
export class FetchPlan {
  readonly #random: Random;
  readonly #needs = new Map<string, Need>();
  readonly #earliest = new Earliest(() => this.#nextMs());
  #inFlight = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Nodes that something is to be fetched from or is being fetched from. */
  get size(): number {
    return this.#needs.size;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Consecutive failures with a node. */
  failures(nodeId: string): number {
    return this.#needs.get(nodeId)?.failures ?? 0;
  }

  /** How long the fetch that is under way has been, milliseconds; 0 when there is none. */
  waitedMs(nodeId: string, nowMs: number): number {
    return nowMs - (this.#needs.get(nodeId)?.sinceMs ?? nowMs);
  }

  has(nodeId: string): boolean {
    return this.#needs.has(nodeId);
  }

  /**
   * Something of this node is missing. `nodes` is how many may want the same of it: they spread their fetches. `soon`
   * skips the wait for an event that may be on its way.
   */
  need(nodeId: string, options: { nowMs: number; nodes: number; soon?: boolean }): void {
    const { nowMs, nodes } = options;
    const known = this.#needs.get(nodeId);
    if (known !== undefined) {
      if (known.sinceMs !== undefined) known.again = true;
      return;
    }
    this.#earliest.changed();
    const spreadMs = Math.min(FETCH_SPREAD_MS * nodes, FETCH_SPREAD_MAX_MS);
    const dueMs = nowMs + (options.soon ? 0 : FETCH_DELAY_MS) + this.#random.float() * spreadMs;
    this.#needs.set(nodeId, { dueMs, failures: 0, again: false });
  }

  /** What was missing has come, or the node is gone. */
  drop(nodeId: string): void {
    const need = this.#needs.get(nodeId);
    if (need === undefined) return;
    if (need.sinceMs !== undefined) this.#inFlight--;
    this.#needs.delete(nodeId);
    this.#earliest.changed();
  }

  /** What was missing has come by another way. */
  satisfied(nodeId: string): void {
    if (this.#needs.get(nodeId)?.sinceMs === undefined) this.drop(nodeId);
  }

  /** A fetch has ended. */
  done(nodeId: string, options: { ok: boolean; nowMs: number }): void {
    const need = this.#needs.get(nodeId);
    if (need === undefined) return;
    this.#earliest.changed();
    if (need.sinceMs !== undefined) this.#inFlight--;
    if (options.ok) {
      this.#needs.delete(nodeId);
      if (need.again) {
        this.#needs.set(nodeId, { dueMs: options.nowMs + FETCH_DELAY_MS, failures: 0, again: false });
      }
      return;
    }
    need.sinceMs = undefined;
    need.again = false;
    const pauseMs = Math.min(FETCH_RETRY_MS * 2 ** Math.min(need.failures++, 16), FETCH_RETRY_MAX_MS);
    need.dueMs = options.nowMs + pauseMs * (0.5 + this.#random.float());
  }

  /** Whom to fetch from now. */
  due(nowMs: number): string[] {
    const due: string[] = [];
    if (nowMs < this.nextMs()) return due;
    for (const [nodeId, need] of this.#needs) {
      if (need.sinceMs !== undefined && nowMs - need.sinceMs >= FETCH_TIMEOUT_MS) {
        this.done(nodeId, { ok: false, nowMs });
      }
      if (need.sinceMs !== undefined || need.dueMs > nowMs || this.#inFlight >= MAX_FETCHES) continue;
      need.sinceMs = nowMs;
      this.#inFlight++;
      due.push(nodeId);
    }
    this.#earliest.changed();
    return due;
  }

  /** When {@linkcode due} has something to say. */
  nextMs(): number {
    return this.#earliest.atMs;
  }

  #nextMs(): number {
    let next = Infinity;
    for (const need of this.#needs.values()) {
      if (need.sinceMs !== undefined) next = Math.min(next, need.sinceMs + FETCH_TIMEOUT_MS);
      else if (this.#inFlight < MAX_FETCHES) next = Math.min(next, need.dueMs);
    }
    return next;
  }
}
