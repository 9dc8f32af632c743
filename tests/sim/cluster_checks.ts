import { heartbeatMs } from "../../agent/cluster/announcer.ts";
import {
  MAX_FETCHES,
  MAX_RESCHEDULES,
  MAX_STATES,
  MAX_TOMBSTONES,
  MAX_TRUSTED,
} from "../../agent/cluster/limits.ts";
import type { SimAgent } from "./cluster_agent.ts";
import type { ClusterWorld } from "./cluster_world.ts";
import { Violation } from "./checks.ts";

/** A node that has been left alone for this long is healthy and idle. */
const IDLE_MS = 60_000;

/** Watches a cluster for what must never happen, or must have happened by now. */
export class ClusterChecks {
  readonly #world: ClusterWorld;
  /** How long a route may outlive its workload: until the death of its node is known. */
  readonly routeMs: number;
  #differing: SimAgent | undefined;

  constructor(world: ClusterWorld, options: { routeMs: number }) {
    this.#world = world;
    this.routeMs = options.routeMs;
  }

  /** What holds at every moment, whatever happens: rules 5, 7 and 8 of the issue. */
  always(): void {
    for (const agent of this.#world.agents) {
      const { runtime, node: { name } } = agent;
      if (runtime.usedMiB > runtime.memoryMiB) {
        throw new Violation(`${name} has promised ${runtime.usedMiB} MiB of ${runtime.memoryMiB}`);
      }
      for (const { id, createdAtMs, request } of runtime.workloads.values()) {
        const wanted = this.#world.wanted.get(id);
        if (wanted && (wanted.createdAtMs !== createdAtMs || wanted.request.imageRef !== request.imageRef)) {
          throw new Violation(`${id} is another workload on ${name} than was asked for`);
        }
        if (wanted && wanted.request.env.join() !== request.env.join()) {
          throw new Violation(`${id} lost its environment on its way to ${name}`);
        }
      }
      if (agent.node.up) this.#bounded(agent);
    }
  }

  #bounded(agent: SimAgent): void {
    const { sizes } = agent.core;
    const all = this.#world.agents.length;
    const workloads = this.#world.wanted.size + this.#world.uncertain.size + this.#world.stopped.size;
    const limits: [string, number, number][] = [
      ["nodes", sizes.nodes, Math.min(all, MAX_STATES)],
      ["workloads", sizes.workloads, workloads],
      ["fetches", sizes.fetches, all],
      ["fetches in flight", sizes.fetchesInFlight, MAX_FETCHES],
      ["tombstones", sizes.tombstones, Math.min(workloads, MAX_TOMBSTONES)],
      ["endings", sizes.endings, agent.runtime.workloads.size + 1],
      ["conflicts", sizes.conflicts, workloads],
      ["duplicates", sizes.duplicates, agent.runtime.workloads.size + 1],
      ["reschedules", sizes.reschedules, workloads],
      ["reschedules under way", sizes.reschedulesUnderWay, MAX_RESCHEDULES],
      ["requests in trust", sizes.trusted, Math.min(workloads, MAX_TRUSTED)],
      ["event queue", agent.node.core.sizes.eventQueue, 4_096],
    ];
    for (const [what, size, limit] of limits) {
      if (size > limit) {
        throw new Violation(`${what} of ${agent.node.name} are ${size}, the limit is ${limit}`);
      }
    }
  }

  /** Rule 3: idle healthy nodes are in each other's views, alive and with their state. */
  seen(): void {
    const { up, nowMs } = this.#world;
    const idle = up.filter(({ node }) => nowMs - node.disturbedMs > IDLE_MS && nowMs >= node.stalledUntilMs);
    const ids = new Set(idle.map(({ id }) => id));
    for (const agent of idle) {
      let seen = 0;
      for (const { id, life, header } of agent.core.nodes()) {
        if (!ids.has(id)) continue;
        if (life !== "live") throw new Violation(`${agent.node.name} takes the healthy ${id} for ${life}`);
        if (header === undefined) {
          throw new Violation(`${agent.node.name} knows nothing of the healthy ${id}`);
        }
        seen++;
      }
      if (seen !== ids.size) {
        throw new Violation(`${agent.node.name} sees ${seen} of ${ids.size} healthy nodes`);
      }
    }
  }

  /** Rule 4: no route of a running node outlives its workload by more than the bound. */
  routes(): void {
    const { up, nowMs } = this.#world;
    for (const agent of up) {
      if (nowMs - agent.node.disturbedMs < this.routeMs || nowMs < agent.node.stalledUntilMs + this.routeMs) {
        continue;
      }
      for (const { id, target, fallbacks } of agent.core.routes()) {
        for (const each of [target, ...fallbacks]) {
          const owner = each.kind === "local" ? agent : this.#world.agent(each.nodeId)!;
          if (owner.runtime.isRunning(id)) continue;
          const sinceMs = nowMs - (owner.runtime.ranMs.get(id) ?? -Infinity);
          if (sinceMs > this.routeMs) {
            throw new Violation(
              `${agent.node.name} routes ${id} to ${owner.node.name}, where it ended ${sinceMs} ms ago`,
            );
          }
        }
      }
    }
  }

  /** Rules 1 and 6: one live copy of each wanted workload, none of a stopped one. The reason why not, or nothing. */
  settled(): string | undefined {
    const copies = this.#copies();
    for (const id of this.#world.wanted.keys()) {
      const running = copies.get(id) ?? [];
      if (running.length !== 1) return `${id} has ${running.length} live copies (${running.join(", ")})`;
    }
    for (const id of this.#world.stopped.keys()) {
      const running = copies.get(id) ?? [];
      if (running.length > 0) return `${id} was stopped and lives on ${running.join(", ")}`;
    }
  }

  /** Whether every running node's view is what is: each wanted workload, live, where it runs. The reason why not. */
  agreed(): string | undefined {
    const copies = this.#copies();
    // Whoever was the last to differ mostly still does: the others need not be looked at to know.
    const last = this.#differing;
    if (last?.node.up) {
      const reason = this.#differs(last, copies);
      if (reason !== undefined) return reason;
    }
    for (const agent of this.#world.up) {
      const reason = this.#differs(agent, copies);
      if (reason === undefined) continue;
      this.#differing = agent;
      return reason;
    }
  }

  #differs(agent: SimAgent, copies: ReadonlyMap<string, readonly string[]>): string | undefined {
    for (const id of this.#world.wanted.keys()) {
      const found = agent.core.find(id);
      if (found.kind !== "found") return `${agent.node.name} does not know ${id}`;
      const [first] = found.copies;
      if (!first.isLive || !copies.get(id)?.includes(first.nodeId)) {
        return `${agent.node.name} takes ${id} to be on ${first.nodeId}`;
      }
      if (agent.core.routesOf(id).length === 0) return `${agent.node.name} has no route to ${id}`;
    }
  }

  /** Node ids that run each id. */
  #copies(): Map<string, string[]> {
    const copies = new Map<string, string[]>();
    for (const agent of this.#world.up) {
      for (const { id, status } of agent.runtime.workloads.values()) {
        if (status !== "running") continue;
        const of = copies.get(id);
        if (of === undefined) copies.set(id, [agent.id]);
        else of.push(agent.id);
      }
    }
    return copies;
  }

  /** Time within which a heartbeat is missed for good. */
  get silenceMs(): number {
    return 4 * heartbeatMs(this.#world.agents.length);
  }
}
