import type { ProxyLimits } from "./limits.ts";
import type { HopIdentity, PortFailure, ProxyStats, Route, StaleRoute } from "./mod.ts";

/** A certificate chain and its key, PEM. */
export interface KeyPair {
  cert: string;
  key: string;
}

/** From the supervisor to a worker. Each request is answered by a reply with its `id`. */
export type WorkerRequest =
  | {
    type: "start";
    id: number;
    limits: ProxyLimits;
    http2: boolean;
    plainPorts: readonly number[];
    bindHosts: readonly string[];
    baseDomain?: string;
  }
  | { type: "apply"; id: number; routes: readonly Route[]; ports: readonly number[]; tls?: KeyPair }
  /** Takes hops on the hop port; or, with failures, goes on as before. */
  | { type: "hop"; id: number; identity: HopIdentity }
  | { type: "stats"; id: number }
  /** Closes the listeners, lets requests in flight finish within the grace period, then the rest. */
  | { type: "stop"; id: number };

/** What a worker says unasked. */
export interface WorkerNews {
  type: "stale";
  route: StaleRoute;
}

/** A worker's answer to a request. */
export type WorkerReply =
  | { type: "done"; id: number; failures: PortFailure[] }
  | { type: "stats"; id: number; stats: ProxyStats };
