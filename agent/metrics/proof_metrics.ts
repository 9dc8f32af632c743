import { Counter, Histogram, type Registry } from "prom-client";
import type { ProofObservation } from "../proof/keeper.ts";

const LATENCY_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000];

/** What is counted of proofs; the names are the Go original's. */
export class ProofMetrics {
  readonly #generation: Histogram;
  readonly #aggregation: Histogram;
  readonly #verifications: Counter;
  readonly #failures: Counter;
  readonly #unmade: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    const buckets = LATENCY_BUCKETS_MS;
    this.#generation = new Histogram({
      name: "ibrl_proof_generation_latency_ms",
      help: "Time to measure, sign and store one proof, milliseconds",
      buckets,
      registers,
    });
    this.#aggregation = new Histogram({
      name: "ibrl_proof_aggregation_latency_ms",
      help: "Time of a round of proofs over all running workloads, milliseconds",
      buckets,
      registers,
    });
    this.#verifications = new Counter({
      name: "ibrl_proof_verifications_total",
      help: "Verifications of proofs by result",
      labelNames: ["result"],
      registers,
    });
    this.#failures = new Counter({
      name: "ibrl_proof_verification_failures",
      help: "Verifications that found a proof invalid",
      registers,
    });
    this.#unmade = new Counter({
      name: "hypercore_proof_failures_total",
      help: "Proofs that could not be made",
      registers,
    });
    for (const result of ["VALID", "INVALID", "UNKNOWN"]) this.#verifications.inc({ result }, 0);
  }

  /** Counts what happened. */
  observe(observation: ProofObservation): void {
    switch (observation.kind) {
      case "generated":
        return this.#generation.observe(observation.durationMs);
      case "aggregated":
        return this.#aggregation.observe(observation.durationMs);
      case "failed":
        return this.#unmade.inc();
      case "verified":
        this.#verifications.inc({ result: observation.result });
        if (observation.result === "INVALID") this.#failures.inc();
    }
  }
}
