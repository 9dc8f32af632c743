import type { Authority } from "./authority.ts";
import type { LocalUpstream, Route, Upstream } from "./mod.ts";

/** All ways of a route, in the order they are tried. */
export function candidates(route: Route): readonly Upstream[] {
  return route.fallbacks?.length ? [route.upstream, ...route.fallbacks] : [route.upstream];
}

/** Which workload answers a host name on a host port. Immutable; `apply` builds a new one. */
export class RouteTable {
  readonly #ports: ReadonlyMap<number, ReadonlyMap<string, Route>>;

  /**
   * An id wins over another workload's alias; of two workloads with one alias the lower id gets it, on every node
   * alike. With `baseDomain`, only `<label>.<baseDomain>` and the bare label are served.
   */
  constructor(routes: readonly Route[], private readonly baseDomain?: string) {
    const ports = new Map<number, Map<string, Route>>();
    const ordered = routes.toSorted((a, b) => a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
    const add = (port: number, label: string, route: Route) => {
      let labels = ports.get(port);
      if (!labels) ports.set(port, labels = new Map());
      if (!labels.has(label)) labels.set(label, route);
    };
    for (const route of ordered) add(route.hostPort, route.id.toLowerCase(), route);
    for (const route of ordered) {
      for (const alias of route.aliases) add(route.hostPort, alias.toLowerCase(), route);
    }
    this.#ports = ports;
  }

  /** The host ports that have a route. */
  ports(): number[] {
    return [...this.#ports.keys()];
  }

  lookup(hostPort: number, authority: Authority): Route | undefined {
    const route = this.#ports.get(hostPort)?.get(authority.label);
    if (!route) return undefined;
    const { hostname, label } = authority;
    if (this.baseDomain !== undefined && hostname !== label && hostname !== `${label}.${this.baseDomain}`) {
      return undefined;
    }
    return route;
  }

  /** The container of this very node that serves a workload, for requests that came through another node. */
  lookupLocal(hostPort: number, id: string): LocalUpstream | undefined {
    const route = this.#ports.get(hostPort)?.get(id);
    if (route?.id.toLowerCase() !== id) return undefined;
    return candidates(route).find((upstream) => upstream.kind === "tcp");
  }
}
