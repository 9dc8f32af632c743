import type { StaleRoute } from "./contract.ts";
import type { Route } from "../mod.ts";
import { candidates } from "../route_table.ts";

export interface StaleRoutesOptions {
  /** How long a request may wait. */
  waitMs: number;
  /** Requests that wait at a time. */
  maxWaits: number;
  now: () => number;
  /** Tells the agent. */
  report(stale: StaleRoute): void;
}

/** One report of the same route and node within this time. */
const REPORT_EVERY_MS = 1_000;
const MAX_REMEMBERED_REPORTS = 1_024;

interface Wait {
  /** The route's present state; undefined when it is gone. */
  current(): Route | undefined;
  stale: string;
  settle(route: Route | undefined): void;
}

/** A request that awaits the answer of another node. */
export interface AwaitingAnswer {
  /** There is a new table. */
  routesChanged(): void;
}

/** Requests whose route proved stale: the agent is told, and they wait for a table in which it has changed. */
export class StaleRoutes {
  /** Told of each new table. */
  readonly awaiting = new Set<AwaitingAnswer>();
  readonly #waits = new Set<Wait>();
  readonly #reportedMs = new Map<string, number>();

  constructor(private readonly options: StaleRoutesOptions) {}

  report(stale: StaleRoute): void {
    const key = `${stale.hostPort} ${stale.id} ${stale.node} ${stale.reason}`;
    const now = this.options.now();
    if (now - (this.#reportedMs.get(key) ?? -Infinity) < REPORT_EVERY_MS) return;
    if (this.#reportedMs.size >= MAX_REMEMBERED_REPORTS) this.#reportedMs.clear();
    this.#reportedMs.set(key, now);
    this.options.report(stale);
  }

  /**
   * Resolves with the route as soon as it leads elsewhere than `stale`, with undefined when it is gone, when it took too
   * long, or when too many wait. Rejects with the reason of `signal`.
   */
  async wait(
    stale: Route,
    current: () => Route | undefined,
    signal: AbortSignal,
  ): Promise<Route | undefined> {
    const { waitMs, maxWaits } = this.options;
    const text = describe(stale);
    const route = current();
    if (!route || describe(route) !== text) return route;
    if (waitMs === 0 || this.#waits.size >= maxWaits) return undefined;
    const { promise, resolve, reject } = Promise.withResolvers<Route | undefined>();
    const wait: Wait = { current, stale: text, settle: resolve };
    const timer = setTimeout(() => resolve(undefined), waitMs);
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waits.add(wait);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      this.#waits.delete(wait);
    }
  }

  /** There is a new table. */
  changed(): void {
    for (const wait of this.#waits) {
      const route = wait.current();
      if (!route || describe(route) !== wait.stale) wait.settle(route);
    }
    for (const request of this.awaiting) request.routesChanged();
  }
}

function describe(route: Route): string {
  return JSON.stringify(candidates(route));
}
