/// <reference lib="deno.worker" />
import { BufferPool } from "./buffers.ts";
import { Closer } from "./closer.ts";
import type { WorkerContext } from "./context.ts";
import { Counters } from "./counters.ts";
import { Deadlines } from "./deadlines.ts";
import type { ProxyLimits } from "./limits.ts";
import { HopDialer } from "./hop/dialer.ts";
import { HopListener } from "./hop/hop_listener.ts";
import { WindowBudget } from "./hop/mux/windows.ts";
import { HopSessions } from "./hop/sessions.ts";
import { StaleRoutes } from "./hop/stale_routes.ts";
import { Listeners } from "./listeners.ts";
import type { PortFailure } from "./mod.ts";
import { candidates, RouteTable } from "./route_table.ts";
import { UpstreamPool } from "./upstream_pool.ts";
import type { WorkerNews, WorkerReply, WorkerRequest } from "./worker_messages.ts";

/** Deadlines are looked at this many times within the shortest of them, but not more often than every 10 ms. */
const SWEEPS_PER_DEADLINE = 4;
const MAX_SWEEP_MS = 500;
const MIN_SWEEP_MS = 10;

/** One proxy thread: its own event loop, listeners, upstream connections and counters. */
class ProxyWorker {
  #context?: WorkerContext;
  #listeners?: Listeners;
  #hops?: HopListener;
  #dialer?: HopDialer;
  #baseDomain?: string;

  async handle(request: WorkerRequest): Promise<WorkerReply> {
    switch (request.type) {
      case "start":
        this.#start(request);
        return { type: "done", id: request.id, failures: [] };
      case "apply":
        return { type: "done", id: request.id, failures: await this.#apply(request) };
      case "hop":
        return { type: "done", id: request.id, failures: await this.#setHop(request) };
      case "stats":
        return { type: "stats", id: request.id, stats: this.#started().context.counters.snapshot() };
      case "stop": {
        const { context, listeners, hops } = this.#started();
        await Promise.all([
          listeners.stop(context.limits.shutdownGraceMs),
          hops.stop(context.limits.shutdownGraceMs),
        ]);
        context.closer.stop();
        context.deadlines.stop();
        return { type: "done", id: request.id, failures: [] };
      }
    }
  }

  #start(
    { limits, http2, plainPorts, bindHosts, baseDomain }: Extract<WorkerRequest, { type: "start" }>,
  ): void {
    const now = () => performance.now();
    const buffers = new BufferPool();
    const deadlines = new Deadlines({ sweepMs: sweepMs(limits), now });
    const counters = new Counters();
    const dialer = this.#dialer = new HopDialer();
    const windows = new WindowBudget();
    const hops = new HopSessions({ dialer, limits, buffers, deadlines, budget: windows, now });
    this.#baseDomain = baseDomain;
    this.#context = {
      limits,
      buffers,
      deadlines,
      closer: new Closer({ deadlines, limits, counters }),
      counters,
      upstreams: new UpstreamPool({ limits, buffers, deadlines, hops }),
      stale: new StaleRoutes({
        waitMs: limits.staleRouteWaitMs,
        maxWaits: limits.maxStaleWaits,
        now,
        report: (route) => self.postMessage({ type: "stale", route } satisfies WorkerNews),
      }),
      routes: new RouteTable([], baseDomain),
      now,
    };
    this.#listeners = new Listeners({
      context: this.#context,
      http2,
      plainPorts,
      bindHosts,
      maxConnections: limits.maxConnections,
    });
    this.#hops = new HopListener({
      context: this.#context,
      maxConnections: limits.maxHopConnections,
      maxOpenings: limits.maxHopOpenings,
      budget: windows,
    });
  }

  #apply({ routes, ports, tls }: Extract<WorkerRequest, { type: "apply" }>): Promise<PortFailure[]> {
    const { context, listeners } = this.#started();
    context.routes = new RouteTable(routes, this.#baseDomain);
    context.upstreams.retain(routes.flatMap(candidates));
    context.stale.changed();
    return listeners.apply(ports, tls);
  }

  async #setHop({ identity }: Extract<WorkerRequest, { type: "hop" }>): Promise<PortFailure[]> {
    const { hops, dialer } = this.#started();
    try {
      await hops.setIdentity(identity);
      dialer.setIdentity(identity);
      return [];
    } catch (error) {
      return [{ hostPort: identity.port, reason: error instanceof Error ? error.message : String(error) }];
    }
  }

  #started(): { context: WorkerContext; listeners: Listeners; hops: HopListener; dialer: HopDialer } {
    if (!this.#context || !this.#listeners || !this.#hops || !this.#dialer) {
      throw new Error("the worker has not been started");
    }
    return { context: this.#context, listeners: this.#listeners, hops: this.#hops, dialer: this.#dialer };
  }
}

function sweepMs(limits: ProxyLimits): number {
  const shortest = Math.min(
    limits.handshakeTimeoutMs,
    limits.headTimeoutMs,
    limits.keepAliveTimeoutMs,
    limits.idleTimeoutMs,
    limits.responseTimeoutMs,
    limits.upgradeIdleTimeoutMs,
    limits.lingerTimeoutMs,
    limits.upstreamIdleTimeoutMs,
  );
  return Math.max(MIN_SWEEP_MS, Math.min(MAX_SWEEP_MS, shortest / SWEEPS_PER_DEADLINE));
}

const worker = new ProxyWorker();
self.addEventListener("message", (event: MessageEvent<WorkerRequest>) => {
  worker.handle(event.data).then((reply) => self.postMessage(reply), (error) => reportError(error));
});
