import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { MetricsRegistry } from "../../gossip/mod.ts";
import type { ClusterCore } from "../cluster/core.ts";
import type { Membership } from "../membership/membership.ts";
import type { Proxy, ProxyStats } from "../proxy/mod.ts";
import type { Observation } from "../workloads/context.ts";
import type { Workload } from "../workloads/workload.ts";
import type { AdmissionLedger } from "../workloads/admission.ts";
import type { PolicyObservation } from "../policy/observation.ts";
import { PolicyMetrics } from "./policy_metrics.ts";

/** What the metrics read when they are asked for. */
export interface MetricsSources {
  workloads: () => readonly Workload[];
  ledger: () => Pick<AdmissionLedger, "capacity" | "usage">;
  proxy: Pick<Proxy, "stats">;
  /** Readers of workload events that did not keep up. */
  readersCutOff: () => number;
}

/** The cluster's part of what is read. */
export interface ClusterFigures {
  membership: Pick<Membership, "members" | "serf">;
  core: Pick<ClusterCore, "sizes" | "counters">;
  /** Who follows the cluster's events. */
  events: { readers: number; cutOff: number };
  /** The original's queries: in work, and left without an answer because of too many. */
  queries: { inWork: number; dropped: number };
}

const SPAWN_BUCKETS = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300];
const LAG_RESOLUTION_MS = 20;
const NANOSECONDS = 1e9;

/** The agent's metrics in a registry of their own, so that two agents in one process don't mix theirs. */
export class AgentMetrics implements Disposable {
  readonly #registry = new Registry();
  readonly #lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  readonly #spawn: Histogram;
  readonly #restarts: Counter;
  readonly #changes: Counter;
  readonly #policy: PolicyMetrics;

  constructor(options: { version: string; nodeName: string }) {
    const registers = [this.#registry];
    this.#spawn = new Histogram({
      name: "hypercore_spawn_duration_seconds",
      help: "Time from a spawn request to a running, routed container",
      labelNames: ["outcome"],
      buckets: SPAWN_BUCKETS,
      registers,
    });
    this.#restarts = new Counter({
      name: "hypercore_workload_restarts_total",
      help: "Restarts of workloads that ended",
      registers,
    });
    this.#changes = new Counter({
      name: "hypercore_state_changes_total",
      help: "Changes of any workload's state",
      registers,
    });
    this.#policy = new PolicyMetrics(this.#registry);
    new Gauge({
      name: "hypercore_build_info",
      help: "What this agent is",
      labelNames: ["version", "node", "deno"],
      registers,
    }).set({ version: options.version, node: options.nodeName, deno: Deno.version.deno }, 1);
    this.#lag.enable();
    this.#addProcess();
  }

  /** Where other parts put their own metrics. */
  get registry(): Registry {
    return this.#registry;
  }

  /** Counts what happened. */
  observe(observation: Observation): void {
    switch (observation.kind) {
      case "spawn":
        return this.#spawn.observe({ outcome: observation.outcome }, observation.durationMs / 1000);
      case "restart":
        return this.#restarts.inc();
      case "change":
        return this.#changes.inc();
    }
  }

  /** Counts what the policies did. */
  observePolicy(observation: PolicyObservation): void {
    this.#policy.observe(observation);
  }

  /** The same for gossip, which knows nothing of prom-client. */
  get gossip(): MetricsRegistry {
    return {
      gauge: (name, help, read) => this.#gauge(name, help, read),
      counter: (name, help, read) => {
        new Counter({
          name,
          help,
          registers: [this.#registry],
          collect() {
            this.reset();
            this.inc(read());
          },
        });
      },
    };
  }

  /** Adds what is read on demand. */
  connect(sources: MetricsSources): void {
    const registers = [this.#registry];
    this.#gauge("hypercore_workload_count", "Workloads on this node", () => sources.workloads().length);
    new Gauge({
      name: "hypercore_workloads",
      help: "Workloads on this node by status",
      labelNames: ["status"],
      registers,
      collect() {
        for (const status of ["starting", "running", "backing-off", "stopping"]) {
          this.set({ status }, sources.workloads().filter((each) => each.phase === status).length);
        }
      },
    });
    this.#gauge(
      "hypercore_vcpus_total",
      "vCPUs this node hands out",
      () => sources.ledger().capacity.milliCpus / 1000,
    );
    this.#gauge("hypercore_vcpus_used", "vCPUs handed out", () => sources.ledger().usage.milliCpus / 1000);
    this.#gauge(
      "hypercore_memory_total_bytes",
      "Memory this node hands out",
      () => sources.ledger().capacity.memoryBytes,
    );
    this.#gauge("hypercore_memory_used_bytes", "Memory handed out", () => sources.ledger().usage.memoryBytes);
    this.gossip.counter(
      "hypercore_workload_event_readers_cut_off_total",
      "Callers that followed the workloads' events and did not keep up",
      sources.readersCutOff,
    );
    this.#proxy = sources.proxy;
  }

  /** Adds what is read of the cluster. */
  connectCluster(cluster: ClusterFigures): void {
    const registers = [this.#registry];
    new Gauge({
      name: "hypercore_members",
      help: "Members of the cluster by status",
      labelNames: ["status"],
      registers,
      collect() {
        const members = [...cluster.membership.members().values()];
        for (const status of ["alive", "leaving", "left", "failed"]) {
          this.set({ status }, members.filter((member) => member.status === status).length);
        }
      },
    });
    this.#gauge(
      "hypercore_serf_queue_depth",
      "Messages that wait to be gossiped",
      () => cluster.membership.serf.queueDepth.total,
    );
    const { counter } = this.gossip;
    const counters = () => cluster.core.counters;
    counter(
      "hypercore_broadcast_skipped_total",
      "Times that a heartbeat was sent in the place of this node's state",
      () => counters().broadcastsSkipped,
    );
    counter(
      "hypercore_states_fetched_total",
      "States of other nodes asked for by call, because news of them was missed",
      () => counters().statesFetched,
    );
    counter(
      "hypercore_reschedules_total",
      "Workloads of dead nodes that this node set out to start elsewhere",
      () => counters().reschedules,
    );
    counter(
      "hypercore_copies_ended_total",
      "Copies on this node ended because another has the better claim, or the workload was stopped",
      () => counters().copiesEnded,
    );
    this.#gauge(
      "hypercore_event_readers",
      "Callers that follow the cluster's events",
      () => cluster.events.readers,
    );
    counter(
      "hypercore_event_readers_cut_off_total",
      "Callers that followed the cluster's events and did not keep up",
      () => cluster.events.cutOff,
    );
    this.#gauge(
      "hypercore_queries_in_work",
      "Queries of other nodes that are being worked on",
      () => cluster.queries.inWork,
    );
    counter(
      "hypercore_queries_dropped_total",
      "Queries of other nodes left without an answer because too many were being worked on",
      () => cluster.queries.dropped,
    );
    new Gauge({
      name: "hypercore_cluster_size",
      help: "What this node keeps of its cluster, by kind",
      labelNames: ["kind"],
      registers,
      collect() {
        for (const [kind, size] of Object.entries(cluster.core.sizes)) this.set({ kind }, size);
      },
    });
  }

  #proxy?: Pick<Proxy, "stats">;

  /** The Prometheus text. */
  async text(): Promise<{ contentType: string; body: string }> {
    const own = await this.#registry.metrics();
    const proxy = this.#proxy === undefined ? "" : proxyText(await this.#proxy.stats());
    return { contentType: this.#registry.contentType, body: own + proxy };
  }

  [Symbol.dispose](): void {
    this.#lag.disable();
    this.#registry.clear();
  }

  #addProcess(): void {
    const startedSeconds = (Date.now() - performance.now()) / 1000;
    this.#gauge(
      "process_resident_memory_bytes",
      "Memory of this process in RAM",
      () => Deno.memoryUsage().rss,
    );
    this.#gauge("process_start_time_seconds", "When this process started", () => startedSeconds);
    this.#gauge(
      "process_open_fds",
      "Open file descriptors",
      () => [...Deno.readDirSync("/proc/self/fd")].length,
    );
    const lag = this.#lag;
    new Gauge({
      name: "hypercore_event_loop_lag_seconds",
      help: "Delay of the event loop since the last reading",
      labelNames: ["quantile"],
      registers: [this.#registry],
      collect() {
        this.set({ quantile: "0.5" }, lag.percentile(50) / NANOSECONDS);
        this.set({ quantile: "0.99" }, lag.percentile(99) / NANOSECONDS);
        this.set({ quantile: "1" }, lag.max / NANOSECONDS);
        lag.reset();
      },
    });
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(read());
      },
    });
  }
}

/** The proxy's sums, which its workers count themselves, in Prometheus text. */
export function proxyText(stats: ProxyStats): string {
  const lines: string[] = [];
  const metric = (name: string, type: string, help: string) => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  };
  metric("hypercore_proxy_requests_total", "counter", "Proxied requests by status class");
  for (const [code, count] of Object.entries(stats.requests)) {
    lines.push(`hypercore_proxy_requests_total{code="${code}"} ${count}`);
  }
  metric("hypercore_proxy_received_bytes_total", "counter", "Bytes from clients");
  lines.push(`hypercore_proxy_received_bytes_total ${stats.bytesIn}`);
  metric("hypercore_proxy_sent_bytes_total", "counter", "Bytes to clients");
  lines.push(`hypercore_proxy_sent_bytes_total ${stats.bytesOut}`);
  metric("hypercore_proxy_open_connections", "gauge", "Client connections open");
  lines.push(`hypercore_proxy_open_connections ${stats.openConnections}`);
  const counter = (name: string, help: string, count: number) => {
    metric(name, "counter", help);
    lines.push(`${name} ${count}`);
  };
  counter(
    "hypercore_proxy_refused_connections_total",
    "Client connections answered 503 because there were as many as may be",
    stats.refusedConnections,
  );
  counter(
    "hypercore_proxy_cut_connections_total",
    "TLS connections whose other end did not let them come to an end in time",
    stats.cutConnections,
  );
  counter("hypercore_proxy_hops_sent_total", "Requests sent to other nodes' proxies", stats.hops.sent);
  counter(
    "hypercore_proxy_hops_received_total",
    "Requests taken from other nodes' proxies",
    stats.hops.received,
  );
  counter(
    "hypercore_proxy_hops_refused_total",
    "Connections to the hop port that did not prove membership, or were beyond the limits",
    stats.hops.refused,
  );
  metric(
    "hypercore_proxy_request_duration_seconds",
    "histogram",
    "Time from request head to the end of the answer",
  );
  const { bounds, counts, count, sumSeconds } = stats.duration;
  bounds.forEach((bound, i) => {
    lines.push(`hypercore_proxy_request_duration_seconds_bucket{le="${bound}"} ${counts[i] ?? 0}`);
  });
  lines.push(`hypercore_proxy_request_duration_seconds_bucket{le="+Inf"} ${count}`);
  lines.push(`hypercore_proxy_request_duration_seconds_sum ${sumSeconds}`);
  lines.push(`hypercore_proxy_request_duration_seconds_count ${count}`);
  return `${lines.join("\n")}\n`;
}
