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
 * Exchanges whole states with a random node: every so often, and soon where much of the view has changed. After a mass
 * restart, or when two halves find each other, a few exchanges tell what gossip would take minutes for.
 */
export class AntiEntropy {
  readonly #ctx: Context;
  readonly #exchange: () => void;
  #timer: Timer | undefined;
  #isEarly = false;
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
    const { table, nowMs, random } = this.#ctx;
    if (this.#changes < Math.max(CATCH_UP_CHANGES, table.size * CATCH_UP_SHARE)) return;
    const pauseMs = (CATCH_UP_MS + table.size * CATCH_UP_MS_PER_NODE) * (0.5 + random.float());
    if (nowMs + pauseMs >= this.#timer.atMs) return;
    this.#timer.cancelled = true;
    this.#arm(nowMs + pauseMs);
    this.#isEarly = true;
  }

  #arm(atMs: number): void {
    const { timers, config, table } = this.#ctx;
    this.#timer = timers.set(atMs, () => {
      this.#changes = 0;
      this.#isEarly = false;
      this.#arm(this.#ctx.nowMs + pushPullScale(config.pushPullIntervalMs, table.size));
      this.#exchange();
    });
  }
}
