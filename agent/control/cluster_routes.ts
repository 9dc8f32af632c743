import type { PlannedRoute, RouteTarget } from "../cluster/route_plan.ts";
import type { PeerUpstream, Route } from "../proxy/mod.ts";

/**
 * The proxy's table of a cluster: this node's own routes as they are, with copies on other nodes behind them, and the
 * routes to what runs only elsewhere. Nodes that cannot be reached (`upstream` gives nothing) have none.
 */
export function clusterRoutes(
  own: readonly Route[],
  cluster: { planned: readonly PlannedRoute[]; upstream: (nodeId: string) => PeerUpstream | undefined },
): Route[] {
  const isOwn = new Set(own.map(key));
  const upstreams = new Map<string, PeerUpstream | undefined>();
  const peers = (targets: readonly RouteTarget[]) =>
    targets.flatMap((target) => {
      if (target.kind === "local") return [];
      if (!upstreams.has(target.nodeId)) upstreams.set(target.nodeId, cluster.upstream(target.nodeId));
      return upstreams.get(target.nodeId) ?? [];
    });
  const elsewhere = new Map<string, PeerUpstream[]>();
  const routes: Route[] = [];
  for (const { id, aliases, hostPort, target, fallbacks } of cluster.planned) {
    const [upstream, ...rest] = peers([target, ...fallbacks]);
    if (upstream === undefined) continue;
    if (isOwn.has(key({ id, hostPort }))) elsewhere.set(key({ id, hostPort }), [upstream, ...rest]);
    else routes.push({ id, aliases, hostPort, upstream, fallbacks: rest });
  }
  for (const route of own) {
    const behind = elsewhere.get(key(route));
    routes.push(behind === undefined ? route : { ...route, fallbacks: behind });
  }
  return routes;
}

function key({ id, hostPort }: Pick<Route, "id" | "hostPort">): string {
  return `${id} ${hostPort}`;
}
