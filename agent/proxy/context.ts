import type { BufferPool } from "./buffers.ts";
import type { Closer } from "./closer.ts";
import type { Counters } from "./counters.ts";
import type { Deadlines } from "./deadlines.ts";
import type { StaleRoutes } from "./hop/stale_routes.ts";
import type { ProxyLimits } from "./limits.ts";
import type { RouteTable } from "./route_table.ts";
import type { UpstreamPool } from "./upstream_pool.ts";

/** What all connections of one worker share. */
export interface WorkerContext {
  readonly limits: ProxyLimits;
  readonly buffers: BufferPool;
  readonly deadlines: Deadlines;
  readonly closer: Closer;
  readonly counters: Counters;
  readonly upstreams: UpstreamPool;
  readonly stale: StaleRoutes;
  /** Replaced by `apply`. */
  routes: RouteTable;
  readonly now: () => number;
}

/** One accepted client connection, as its front serves it. */
export interface ClientInfo {
  readonly address: string;
  readonly hostPort: number;
  readonly secure: boolean;
  /** Another node's proxy, which has proved to be a member: its requests say themselves who asked. */
  readonly hop?: { node: string };
}
