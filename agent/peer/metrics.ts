import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { CallOutcome } from "../api/count_calls.ts";
import type { Refusal } from "./handshake/refusal.ts";

/** What happens to connections between nodes. */
export type PeerObservation =
  /** A connection from another node was taken; `ms` since its first byte. */
  | { kind: "accepted"; ms: number }
  /** A connection to the port was closed before it was one. `limit`: too many were open. */
  | { kind: "refused"; reason: Refusal | "limit" | "silence" | "tls" }
  /** A connection to another node is open after `ms`. */
  | { kind: "dialled"; ms: number }
  | { kind: "dial-failed"; reason: Refusal | "network" }
  /** A call that another node made has ended. */
  | { kind: "call" } & CallOutcome
  | { kind: "stream" };

/** Takes observations. */
export type Observe = (observation: PeerObservation) => void;

const SECONDS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Counts what happens to connections between nodes in a registry of the agent's. */
export class PeerMetrics {
  readonly observe: Observe;

  constructor(
    registry: Registry,
    gauges: { incoming: () => number; outgoing: () => number; pending: () => number },
  ) {
    const registers = [registry];
    const handshakes = new Histogram({
      name: "hypercore_peer_handshake_duration_seconds",
      help: "Time until a connection between nodes was open, both ends known as members",
      labelNames: ["direction"],
      buckets: SECONDS,
      registers,
    });
    const failures = new Counter({
      name: "hypercore_peer_handshake_failures_total",
      help: "Connections between nodes that failed before both ends were known as members",
      labelNames: ["direction", "reason"],
      registers,
    });
    const calls = new Counter({
      name: "hypercore_peer_calls_total",
      help: "Calls that other nodes made, by method and outcome",
      labelNames: ["method", "code"],
      registers,
    });
    const streams = new Counter({
      name: "hypercore_peer_gossip_streams_total",
      help: "Connections to the gossip port that were handed to gossip",
      registers,
    });
    new Gauge({
      name: "hypercore_peer_connections",
      help: "Open connections between nodes",
      labelNames: ["direction"],
      registers,
      collect() {
        this.set({ direction: "in" }, gauges.incoming());
        this.set({ direction: "out" }, gauges.outgoing());
      },
    });
    new Gauge({
      name: "hypercore_peer_pending_connections",
      help: "Connections to the gossip port that have not yet shown what they are",
      registers,
      collect() {
        this.set(gauges.pending());
      },
    });
    this.observe = (seen) => {
      switch (seen.kind) {
        case "accepted":
          return handshakes.observe({ direction: "in" }, seen.ms / 1000);
        case "dialled":
          return handshakes.observe({ direction: "out" }, seen.ms / 1000);
        case "refused":
          return failures.inc({ direction: "in", reason: seen.reason });
        case "dial-failed":
          return failures.inc({ direction: "out", reason: seen.reason });
        case "call":
          return calls.inc({ method: seen.method, code: seen.code });
        case "stream":
          return streams.inc();
      }
    };
  }
}
