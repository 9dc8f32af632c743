/// <reference lib="deno.worker" />
import { BufferPool } from "./buffers.ts";
import type { WorkerContext } from "./context.ts";
import { Counters } from "./counters.ts";
import { Deadlines } from "./deadlines.ts";
import type { ProxyLimits } from "./limits.ts";
import { Listeners } from "./listeners.ts";
import type { PortFailure } from "./mod.ts";
import { RouteTable } from "./route_table.ts";
import { UpstreamPool } from "./upstream_pool.ts";
import type { WorkerReply, WorkerRequest } from "./worker_messages.ts";

/** Deadlines are looked at this many times within the shortest of them, but not more often than every 10 ms. */
const SWEEPS_PER_DEADLINE = 4;
const MAX_SWEEP_MS = 500;
const MIN_SWEEP_MS = 10;

/** One proxy thread: its own event loop, listeners, upstream connections and counters. */
class ProxyWorker {
  #context?: WorkerContext;
  #listeners?: Listeners;
  #baseDomain?: string;

  async handle(request: WorkerRequest): Promise<WorkerReply> {
    switch (request.type) {
      case "start":
        this.#start(request);
        return { type: "done", id: request.id, failures: [] };
      case "apply":
        return { type: "done", id: request.id, failures: await this.#apply(request) };
      case "stats":
        return { type: "stats", id: request.id, stats: this.#started().context.counters.snapshot() };
      case "stop": {
        const { context, listeners } = this.#started();
        await listeners.stop(context.limits.shutdownGraceMs);
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
    this.#baseDomain = baseDomain;
    this.#context = {
      limits,
      buffers,
      deadlines,
      counters: new Counters(),
      upstreams: new UpstreamPool({ limits, buffers, deadlines }),
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
  }

  #apply({ routes, ports, tls }: Extract<WorkerRequest, { type: "apply" }>): Promise<PortFailure[]> {
    const { context, listeners } = this.#started();
    context.routes = new RouteTable(routes, this.#baseDomain);
    context.upstreams.retain(routes.map((route) => route.upstream));
    return listeners.apply(ports, tls);
  }

  #started(): { context: WorkerContext; listeners: Listeners } {
    if (!this.#context || !this.#listeners) throw new Error("the worker has not been started");
    return { context: this.#context, listeners: this.#listeners };
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
