import type { CopyIndex } from "./copies.ts";
import { isRunning } from "./copies.ts";

/** Where requests for a workload go: to this node's container, or to the node that runs it. */
export type RouteTarget = { kind: "local" } | { kind: "node"; nodeId: string };

/** One way from a host port and a Host header to a workload. */
export interface PlannedRoute {
  id: string;
  /** The workload's name. */
  aliases: readonly string[];
  hostPort: number;
  target: RouteTarget;
  /** Other live copies, while there are any: the best claim first. */
  fallbacks: readonly RouteTarget[];
}

const LOCAL: RouteTarget = { kind: "local" };
const NO_ROUTES: readonly PlannedRoute[] = [];

/**
 * Who serves what, in the whole cluster: every running copy on a node that is there, the local one first. Only ids that
 * were {@linkcode touch}ed are planned anew.
 */
export class RoutePlan {
  readonly #selfId: string;
  readonly #copies: CopyIndex;
  readonly #routes = new Map<string, readonly PlannedRoute[]>();
  readonly #touched = new Set<string>();
  #list: readonly PlannedRoute[] | undefined = NO_ROUTES;

  constructor(options: { selfId: string; copies: CopyIndex }) {
    this.#selfId = options.selfId;
    this.#copies = options.copies;
  }

  /** The copies of this id, or the nodes that have them, may have changed. */
  touch(id: string): void {
    this.#touched.add(id);
  }

  /** Plans what was touched; whether any route is another now. */
  update(): boolean {
    let isChanged = false;
    for (const id of this.#touched) {
      const before = this.#routes.get(id) ?? NO_ROUTES;
      const after = this.#plan(id);
      if (areSame(before, after)) continue;
      isChanged = true;
      if (after.length === 0) this.#routes.delete(id);
      else this.#routes.set(id, after);
    }
    this.#touched.clear();
    if (isChanged) this.#list = undefined;
    return isChanged;
  }

  /** All routes, in the order of their ids and host ports. The same array until something changes. */
  list(): readonly PlannedRoute[] {
    return this.#list ??= [...this.#routes.keys()].sort().flatMap((id) => this.#routes.get(id)!);
  }

  /** The routes of one workload. */
  of(id: string): readonly PlannedRoute[] {
    return this.#routes.get(id) ?? NO_ROUTES;
  }

  #plan(id: string): readonly PlannedRoute[] {
    const running = this.#copies.live(id).filter(({ state }) => isRunning(state));
    if (running.length === 0) return NO_ROUTES;
    const local = running.findIndex(({ nodeId }) => nodeId === this.#selfId);
    const ordered = local > 0 ? [running[local], ...running.toSpliced(local, 1)] : running;
    const request = ordered[0].state.sourceRequest;
    if (request === undefined) return NO_ROUTES;
    const [target, ...fallbacks] = ordered.map(({ nodeId }): RouteTarget => {
      return nodeId === this.#selfId ? LOCAL : { kind: "node", nodeId };
    });
    const aliases = request.name === "" ? [] : [request.name];
    return Object.keys(request.ports).map((port) => ({
      id,
      aliases,
      hostPort: Number(port),
      target,
      fallbacks,
    }))
      .sort((a, b) => a.hostPort - b.hostPort);
  }
}

function areSame(a: readonly PlannedRoute[], b: readonly PlannedRoute[]): boolean {
  return a.length === b.length && a.every((route, i) => isSame(route, b[i]));
}

function isSame(a: PlannedRoute, b: PlannedRoute): boolean {
  return a.hostPort === b.hostPort && a.aliases[0] === b.aliases[0] &&
    nodeOf(a.target) === nodeOf(b.target) &&
    a.fallbacks.length === b.fallbacks.length &&
    a.fallbacks.every((target, i) => nodeOf(target) === nodeOf(b.fallbacks[i]));
}

function nodeOf(target: RouteTarget): string | undefined {
  return target.kind === "node" ? target.nodeId : undefined;
}
