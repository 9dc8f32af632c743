import { MAX_BROADCASTS } from "../../gossip/memberlist/gossip.ts";
import { MAX_NODES } from "../../gossip/memberlist/membership.ts";
import { MAX_INTENTS } from "../../gossip/serf/members.ts";
import { MemberStatus } from "../../gossip/serf/member.ts";
import { MAX_OPEN_QUERIES } from "../../gossip/serf/open_queries.ts";
import { MAX_UNANSWERED } from "../../gossip/serf/queries.ts";
import type { SerfCore } from "../../gossip/serf/serf.ts";
import type { SimNode, World } from "./world.ts";

/** A property that did not hold; the message says which, where and when. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** Timers of one node at most: a handful of periodic ones, and per suspicion, ping or query. */
const MAX_TIMERS = 20_000;
/** Bounds of one node's sizes, whatever happens to it. */
const LIMITS: readonly [keyof SerfCore["sizes"], number][] = [
  ["nodes", MAX_NODES],
  ["members", MAX_NODES],
  ["broadcasts", MAX_BROADCASTS],
  ["intentQueue", 4_096],
  ["queryQueue", 4_096],
  ["eventQueue", 4_096],
  ["intents", MAX_INTENTS],
  ["pendingPings", 4_096],
  ["openStreams", 128],
  ["openQueries", MAX_OPEN_QUERIES],
  ["unansweredQueries", MAX_UNANSWERED],
  ["coordinates", MAX_NODES],
  ["rememberedPeers", 3 * 1_024],
  ["timers", MAX_TIMERS],
];
/** Time after which a running process must have probed somebody again. */
const LIVENESS_MS = 60_000;

/** Watches a world for what must never happen. */
export class Checks {
  /** Healthy, reachable nodes that were declared failed. */
  falseDeaths = 0;
  readonly #world: World;
  readonly #delivered = new Map<string, Set<number>>();
  readonly #isHealthy: (node: SimNode) => boolean;
  /** Probes of each process when it was looked at last, and when that was. */
  readonly #probes = new Map<SerfCore, { probes: number; atMs: number }>();
  #calm = false;

  /** `isHealthy` says whether a node is up, reachable and not stalled, so that no one may declare it dead. */
  constructor(world: World, isHealthy: (node: SimNode) => boolean) {
    this.#world = world;
    this.#isHealthy = isHealthy;
    const byName = new Map(world.nodes.map((node) => [node.name, node]));
    world.onEvent = (observer, event) => {
      if (event.kind === "member-failed") {
        for (const member of event.members) this.#failed(observer, byName.get(member.name)!);
      } else if (event.kind === "user") this.#once(observer, `event ${event.name}`);
      else if (event.kind === "query") this.#once(observer, `query ${event.name}`);
    };
  }

  /** In calm times no death at all is right. */
  set calm(calm: boolean) {
    this.#calm = calm;
  }

  /** Nodes that got the event or query. */
  deliveries(what: string): number {
    return this.#delivered.get(what)?.size ?? 0;
  }

  /** Checks bounds and liveness every `everyMs` from now on. */
  watch(everyMs: number): void {
    const look = () => {
      this.bounded();
      this.#lively();
      this.#world.at(this.#world.nowMs + everyMs, look);
    };
    this.#world.at(this.#world.nowMs + everyMs, look);
  }

  #failed(observer: SimNode, subject: SimNode): void {
    if (!this.#isHealthy(subject) || !this.#isHealthy(observer)) return;
    this.falseDeaths++;
    if (this.#calm) this.#fail(`${observer.name} declared the healthy ${subject.name} dead`);
  }

  #once(observer: SimNode, what: string): void {
    let seen = this.#delivered.get(what);
    if (seen === undefined) this.#delivered.set(what, seen = new Set());
    if (seen.has(observer.index)) this.#fail(`${observer.name} got ${what} twice`);
    seen.add(observer.index);
  }

  /** Whether every running node sees exactly the running nodes as alive. */
  converged(): boolean {
    const up = this.#world.nodes.filter((node) => node.up);
    // Cheap first: while many views are not whole yet, this is asked often.
    if (up.some((node) => node.core.members.aliveCount !== up.length)) return false;
    const names = new Set(up.map((node) => node.name));
    for (const node of up) {
      let alive = 0;
      for (const member of node.core.members.values()) {
        if (member.status !== MemberStatus.alive) continue;
        if (!names.has(member.name)) return false;
        alive++;
      }
      if (alive !== up.length) return false;
    }
    return true;
  }

  /** Throws where anything grew beyond its bound. */
  bounded(): void {
    for (const node of this.#world.nodes) {
      const { sizes } = node.core;
      for (const [name, limit] of LIMITS) {
        if (sizes[name] > limit) this.#fail(`${name} of ${node.name} is ${sizes[name]}, the limit ${limit}`);
      }
    }
  }

  /** Throws where a running process that knows others no longer probes them. */
  #lively(): void {
    const { nowMs } = this.#world;
    for (const node of this.#world.nodes) {
      const { core } = node;
      const { probes } = core.memberlist.counters;
      const last = this.#probes.get(core);
      const idles = !node.up || nowMs < node.stalledUntilMs || core.members.aliveCount < 2;
      if (last === undefined || idles || probes > last.probes) {
        this.#probes.set(core, { probes, atMs: nowMs });
      } else if (nowMs - last.atMs > LIVENESS_MS) this.#fail(`${node.name} has stopped probing`);
    }
  }

  #fail(what: string): never {
    throw new Violation(`${what} (at ${Math.round(this.#world.nowMs)} ms)`);
  }
}
