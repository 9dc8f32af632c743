import type { Log } from "../../runtime/log.ts";
import type { HopEnd, PeerUpstream, StaleRoute } from "./hop/contract.ts";
import type { ProxyLimits } from "./limits.ts";

export type { HopEnd, HopIdentity, PeerUpstream, StaleRoute } from "./hop/contract.ts";
export { fingerprintOf, HOP_ALPN, HOP_SERVER_NAME, hopSecret, parseFingerprint } from "./hop/protocol.ts";
export { openProxy } from "./supervisor.ts";
export { DEFAULT_LIMITS, PLAIN_HTTP_PORT, type ProxyLimits } from "./limits.ts";

/** How {@linkcode openProxy} serves. */
export interface ProxyOptions {
  /** Addresses every host port is opened on; `::` takes IPv4 as well. */
  bindHosts: readonly string[];
  /** Threads; 0 means one per CPU. */
  workers: number;
  /** Serves HTTPS on every host port but `plainPorts`; changed files are taken up while running. Absent: plain HTTP. */
  tls?: { certFile: string; keyFile: string };
  /** Host ports that stay plain HTTP; {@linkcode PLAIN_HTTP_PORT} by default. */
  plainPorts?: readonly number[];
  /** Only `<id>.<baseDomain>` is served; absent means that any domain will do. */
  baseDomain?: string;
  /** Offers HTTP/2: by ALPN with TLS, by prior knowledge on plain ports. On by default. */
  http2?: boolean;
  limits?: Partial<ProxyLimits>;
  log: Log;
  /** Told of routes to other nodes that proved wrong; at most once a second for one route and node. */
  onStale?: (route: StaleRoute) => void;
  /** How often the certificate files are looked at. */
  tlsPollMs?: number;
  /** Starts a worker thread; only tests give another. */
  createWorker?: () => Worker;
}

/** One way from a host port and a Host header to a container. */
export interface Route {
  /** Workload id: the first label of the Host header. */
  id: string;
  /** Other first labels that lead here: the workload's name. */
  aliases: readonly string[];
  hostPort: number;
  upstream: Upstream;
  /** Other ways to the workload, in the order they are tried when the one before cannot have had an effect. */
  fallbacks?: readonly Upstream[];
}

/** A container of this node. */
export interface LocalUpstream {
  kind: "tcp";
  hostname: string;
  port: number;
}

export type Upstream = LocalUpstream | PeerUpstream;

/** A host port the proxy could not open. */
export interface PortFailure {
  hostPort: number;
  reason: string;
}

/**
 * The data plane as the agent sees it. It knows routes; it knows nothing of gossip or containerd.
 */
export interface Proxy extends HopEnd, AsyncDisposable {
  /**
   * Replaces the whole route table. Resolves when every worker serves the new table and every listener that is
   * needed is open and every other one closed (connections in flight finish). Failures leave the other ports alone.
   */
  apply(routes: readonly Route[]): Promise<PortFailure[]>;
  /**
   * Opens the listener of a host port ahead of its first route, so that a taken port is known before anything is
   * created. Throws an Error that names port and reason. The reservation lasts until released or until `apply` has a
   * route on that port.
   */
  reserve(hostPort: number): Promise<{ release(): Promise<void> }>;
  /** Sums over all workers since start. */
  stats(): Promise<ProxyStats>;
}

export interface ProxyStats {
  /** By status class "1xx" … "5xx". */
  requests: Record<string, number>;
  bytesIn: number;
  bytesOut: number;
  openConnections: number;
  /** Client connections answered 503 because there were as many as may be. */
  refusedConnections: number;
  /** TLS connections, of clients and of other nodes, that were ended in mid-handshake or before what was written had gone. */
  cutConnections: number;
  /** Requests sent to, and taken from, other nodes' proxies, and connections from there that could not prove membership. */
  hops: { sent: number; received: number; refused: number };
  /**
   * Cumulative histogram of request duration: upper bounds in seconds, counts, then the count of all (also of those
   * above the last bound) and the sum.
   */
  duration: { bounds: readonly number[]; counts: number[]; count: number; sumSeconds: number };
}
