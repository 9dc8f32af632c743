import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { ATTESTATION_TYPES } from "../beacon/attestation.ts";
import type { BeaconObservation } from "../beacon/observation.ts";

const LATENCY_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000];

/** What is counted of beacons; the names are the Go original's. */
export class BeaconMetrics {
  readonly #connected: Gauge;
  readonly #attestations: Counter;
  readonly #latency: Histogram;
  readonly #refused: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#connected = new Gauge({
      name: "ibrl_beacon_connected",
      help: "Whether the beacon registry knows this node; 0 in standalone mode",
      registers,
    });
    this.#attestations = new Counter({
      name: "ibrl_beacon_attestations_total",
      help: "Attestations by kind: signed for others (or refused), asked of others and verified (or refused)",
      labelNames: ["type", "result"],
      registers,
    });
    this.#latency = new Histogram({
      name: "ibrl_beacon_attestation_latency_ms",
      help: "Time from the question to the verdict on another node's attestation, milliseconds",
      buckets: LATENCY_BUCKETS_MS,
      registers,
    });
    this.#refused = new Counter({
      name: "hypercore_states_refused_total",
      help: "States of other nodes that were not believed (forged, replayed or damaged), by how they came",
      labelNames: ["via"],
      registers,
    });
    for (const via of ["event", "owner", "relay"]) this.#refused.inc({ via }, 0);
    this.#connected.set(0);
    // There from the start, so that a rate can be taken of them.
    for (const type of ATTESTATION_TYPES) {
      for (const result of ["signed", "answer-refused", "verified", "refused"]) {
        this.#attestations.inc({ type, result }, 0);
      }
    }
  }

  /** Counts what happened. */
  observe(observation: BeaconObservation): void {
    switch (observation.kind) {
      case "answered": {
        const { type, result } = observation;
        return this.#attestations.inc({ type, result: result === "signed" ? result : "answer-refused" });
      }
      case "asked":
        this.#attestations.inc({ type: observation.type, result: observation.result });
        return this.#latency.observe(observation.latencyMs);
      case "state-refused":
        return this.#refused.inc({ via: observation.via });
      case "registry":
        return this.#connected.set(observation.isConnected ? 1 : 0);
    }
  }
}
