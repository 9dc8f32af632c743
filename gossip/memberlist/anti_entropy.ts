import type { Timer } from "../timers.ts";
import type { Context } from "./context.ts";

/** Cluster size up to which push/pull keeps its interval. */
const SCALE_THRESHOLD = 32;
/** Changes of the view since the last push/pull that call for an early one: at least these, and this share of all nodes. */
const CATCH_UP_CHANGES = 32;
const CATCH_UP_SHARE = 1 / 32;
/** Pause before an early push/pull: at least this, and this much more for each node, as the exchange grows with them. */
const CATCH_UP_MS = 1_000;
const CATCH_UP_MS_PER_NODE = 0.5;

/** Time between two push/pulls in a cluster of `nodes`. */
export function pushPullScale(intervalMs: number, nodes: number): number {
  if (nodes <= SCALE_THRESHOLD) return intervalMs;
  return intervalMs * (Math.ceil(Math.log2(nodes) - Math.log2(SCALE_THRESHOLD)) + 1);
}

/**
 * Exchanges whole states with a random node: every so often, and soon where much of the view has changed, again and again
 * until nothing changes any more. After a mass restart, or when two halves find each other, a few exchanges tell what
 * gossip would take minutes for.
 */
export class AntiEntropy {
  readonly #ctx: Context;
  readonly #exchange: () => void;
  #timer: Timer | undefined;
  /** Whether the next exchange is an early one. */
  #isEarly = false;
  /** Changes of the view since the last exchange began. */
  #changes = 0;

  /** `exchange` is called when it is time for one. */
  constructor(ctx: Context, exchange: () => void) {
    this.#ctx = ctx;
    this.#exchange = exchange;
  }

  /** Begins, at a random point of the interval. */
  start(): void {
    const { nowMs, random, config } = this.#ctx;
    this.#arm(nowMs + random.float() * config.pushPullIntervalMs);
  }

  /** A node came or went. */
  changed(): void {
    this.#changes++;
    if (this.#isEarly || this.#timer === undefined) return;
    const { table, nowMs } = this.#ctx;
    if (this.#changes < Math.max(CATCH_UP_CHANGES, table.size * CATCH_UP_SHARE)) return;
    const atMs = nowMs + this.#pauseMs();
    if (atMs >= this.#timer.atMs) return;
    this.#timer.cancel();
    this.#arm(atMs);
    this.#isEarly = true;
  }

  #pauseMs(): number {
    const { table, random } = this.#ctx;
    return (CATCH_UP_MS + table.size * CATCH_UP_MS_PER_NODE) * (0.5 + random.float());
  }

  #arm(atMs: number): void {
    this.#timer = this.#ctx.timers.set(atMs, () => this.#due());
  }

  #due(): void {
    const { config, table, nowMs } = this.#ctx;
    const scaledMs = pushPullScale(config.pushPullIntervalMs, table.size);
    // One early exchange after which nothing changed is the last: the view is as whole as that of others.
    this.#isEarly &&= this.#changes > 0;
    this.#changes = 0;
    this.#arm(nowMs + (this.#isEarly ? Math.min(scaledMs, this.#pauseMs()) : scaledMs));
    this.#exchange();
  }
}
