import { PLAIN_HTTP_PORT, type Route } from "../proxy/mod.ts";
import type { PortMapping } from "./spec.ts";

/** What the route table needs to know of a workload. */
export interface Routable {
  id: string;
  name?: string;
  ports: readonly PortMapping[];
  /** Absent while it must not be routed to. */
  address?: string;
}

/** The whole route table of these workloads. */
export function planRoutes(workloads: Iterable<Routable>): Route[] {
  const routes: Route[] = [];
  for (const { id, name, ports, address } of workloads) {
    if (address === undefined) continue;
    for (const { hostPort, containerPort } of ports) {
      const aliases = name === undefined ? [] : [name];
      routes.push({
        id,
        aliases,
        hostPort,
        upstream: { kind: "tcp", hostname: address, port: containerPort },
      });
    }
  }
  return routes;
}

/** Where a workload answers: on 443, else 80, else its lowest host port. Empty when it exposes none. */
export function workloadUrl(
  workload: { id: string; ports: readonly PortMapping[] },
  options: { baseUrl: string; tls: boolean },
): string {
  const ports = workload.ports.map((port) => port.hostPort);
  if (ports.length === 0) return "";
  const port = ports.includes(443) ? 443 : ports.includes(80) ? 80 : Math.min(...ports);
  const scheme = options.tls && port !== PLAIN_HTTP_PORT ? "https" : "http";
  const isImplied = port === (scheme === "https" ? 443 : 80);
  return `${scheme}://${workload.id}.${options.baseUrl}${isImplied ? "" : `:${port}`}`;
}
