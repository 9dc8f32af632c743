import type { ContainerEngine } from "../../runtime/engine.ts";
import type { Log } from "../../runtime/log.ts";
import type { PolicyGate } from "../policy/gate.ts";
import type { Proxy, Route } from "../proxy/mod.ts";
import { AdmissionLedger, type Capacity } from "./admission.ts";
import { EventHub, type WorkloadEvent } from "./events.ts";
import { KeyedQueue } from "./keyed_queue.ts";
import { MAX_CONCURRENT_STARTS, MAX_QUEUED_PER_WORKLOAD } from "./limits.ts";
import type { ParseContext } from "./parse_spawn.ts";
import { planRoutes } from "./routes.ts";
import { RouteSync } from "./route_sync.ts";
import { Semaphore } from "./semaphore.ts";
import type { Workload } from "./workload.ts";

/** What a workload manager works with. */
export interface WorkloadManagerOptions {
  engine: ContainerEngine;
  proxy: Pick<Proxy, "apply" | "reserve">;
  log: Log;
  node: ParseContext & { baseUrl: string; tls: boolean };
  /** What this node gives away; adopted workloads count against it. */
  capacity: Capacity;
  /** Milliseconds since the epoch. */
  nowMs: () => number;
  /** Calls back once; returns what cancels it. */
  setTimer: (callback: () => void, delayMs: number) => () => void;
  /** A fresh id: 12 hex digits. */
  newId: () => string;
  /** Time that requests in flight get between the withdrawal of a route and the stop signal, milliseconds. */
  drainMs: number;
  /** Where workloads may run; absent means anything goes. */
  policies?: Pick<PolicyGate, "choose" | "admit" | "networkRules">;
  /** Told what the metrics count. */
  observe?: (observation: Observation) => void;
  /** Told when the workloads of this node, or the state of one, have changed. */
  onChange?: () => void;
  /** The proxy's whole table, given this node's own routes; those alone by default. */
  routes?: (own: Route[]) => Route[];
}

/** What the metrics count. */
export type Observation =
  | { kind: "spawn"; durationMs: number; outcome: "ok" | "failed" }
  | { kind: "restart" }
  | { kind: "change" };

/** What the manager and its caretaker share: the workloads, and what acts on them. */
export class WorkloadContext {
  readonly workloads = new Map<string, Workload>();
  readonly queue = new KeyedQueue(MAX_QUEUED_PER_WORKLOAD);
  readonly starts = new Semaphore(MAX_CONCURRENT_STARTS);
  readonly events = new EventHub();
  readonly closing = new AbortController();
  readonly ledger: AdmissionLedger;
  readonly routes: RouteSync;

  constructor(readonly options: WorkloadManagerOptions) {
    this.ledger = new AdmissionLedger(options.capacity);
    this.routes = new RouteSync({
      proxy: options.proxy,
      setTimer: options.setTimer,
      log: options.log,
      routes: () => {
        const own = planRoutes([...this.workloads.values()].map((workload) => workload.routable));
        return options.routes?.(own) ?? own;
      },
    });
  }

  emit(type: WorkloadEvent["type"], id: string, detail: string): void {
    this.events.emit({ atMs: this.options.nowMs(), id, type, detail });
    this.options.observe?.({ kind: "change" });
  }

  /** Brings the routes up to date where a failure has nobody to go to. */
  async syncRoutes(): Promise<void> {
    try {
      await this.routes.sync();
    } catch (error) {
      this.options.log.error("cannot update the routes", { error: reasonOf(error) });
    }
  }

  /** Takes it out of the books. */
  forget(workload: Workload): void {
    workload.setTimer(undefined);
    workload.version++;
    if (this.workloads.get(workload.id) !== workload) return;
    this.workloads.delete(workload.id);
    this.ledger.release(workload.id);
    this.options.onChange?.();
  }

  /** Runs work that nobody waits for; its failure is logged. */
  background(what: string, id: string, work: () => Promise<unknown>): void {
    work().catch((error) => {
      if (!this.closing.signal.aborted) this.options.log.warn(what, { id, error: reasonOf(error) });
    });
  }
}

/** An error in words. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
