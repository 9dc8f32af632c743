import type { ProxyLimits } from "./limits.ts";
import type { PortFailure, ProxyStats, Route } from "./mod.ts";

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
  | { type: "stats"; id: number }
  /** Closes the listeners, lets requests in flight finish within the grace period, then the rest. */
  | { type: "stop"; id: number };

/** From a worker to the supervisor. */
export type WorkerReply =
  | { type: "done"; id: number; failures: PortFailure[] }
  | { type: "stats"; id: number; stats: ProxyStats };
