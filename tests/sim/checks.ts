import { MAX_NODES } from "../../gossip/memberlist/membership.ts";
import { MAX_INTENTS } from "../../gossip/serf/members.ts";
import { MemberStatus } from "../../gossip/serf/member.ts";
import type { SimNode } from "./node.ts";
import type { World } from "./world.ts";

/** A property that did not hold; the message says which, where and when. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** Timers of one node at most: a handful of periodic ones, and per suspicion, ping or query. */
const MAX_TIMERS = 20_000;

/** Watches a world for what must never happen. */
export class Checks {
  /** Healthy, reachable nodes that were declared failed. */
  falseDeaths = 0;
  readonly #world: World;
  readonly #delivered = new Map<string, Set<number>>();
  readonly #isHealthy: (node: SimNode) => boolean;
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

  #failed(observer: SimNode, subject: SimNode): void {
    if (!this.#isHealthy(subject) || !this.#isHealthy(observer)) return;
    this.falseDeaths++;
    if (this.#calm) throw new Violation(`${observer.name} declared the healthy ${subject.name} dead`);
  }

  #once(observer: SimNode, what: string): void {
    let seen = this.#delivered.get(what);
    if (seen === undefined) this.#delivered.set(what, seen = new Set());
    if (seen.has(observer.index)) throw new Violation(`${observer.name} got ${what} twice`);
    seen.add(observer.index);
  }

  /** Whether every running node sees exactly the running nodes as alive. */
  converged(): boolean {
    const up = this.#world.nodes.filter((node) => node.up);
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
      const limits: [keyof typeof sizes, number][] = [
        ["nodes", MAX_NODES],
        ["broadcasts", 2 * this.#world.nodes.length + 2],
        ["intentQueue", 4_096],
        ["queryQueue", 4_096],
        ["eventQueue", 4_096],
        ["intents", MAX_INTENTS],
        ["pendingPings", 4_096],
        ["openStreams", 128],
        ["timers", MAX_TIMERS],
      ];
      for (const [name, limit] of limits) {
        if (sizes[name] > limit) {
          throw new Violation(`${name} of ${node.name} is ${sizes[name]}, the limit ${limit}`);
        }
      }
    }
  }
}
