import { Counter, Histogram, type Registry } from "prom-client";
import type { PolicyObservation } from "../policy/observation.ts";

/** An evaluation takes microseconds on one node, and a few milliseconds over thousands. */
const LATENCY_BUCKETS_MS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250];

/** The metrics of the policies. */
export class PolicyMetrics {
  readonly #violations: Counter;
  readonly #evaluations: Counter;
  readonly #latency: Histogram;
  readonly #reloads: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#violations = new Counter({
      name: "ibrl_policy_violations_total",
      help: "Rules that requests or nodes broke, by rule and by whether the policy refuses or only notes it",
      labelNames: ["rule", "mode"],
      registers,
    });
    this.#evaluations = new Counter({
      name: "ibrl_policy_evaluations_total",
      help: "Evaluations of a policy",
      labelNames: ["outcome"],
      registers,
    });
    this.#latency = new Histogram({
      name: "ibrl_policy_evaluation_latency_ms",
      help: "Time of one evaluation of a policy, milliseconds",
      buckets: LATENCY_BUCKETS_MS,
      registers,
    });
    this.#reloads = new Counter({
      name: "hypercore_policy_reloads_total",
      help: "Readings of a changed policy file",
      labelNames: ["outcome"],
      registers,
    });
    // There from the start, so that a rate can be taken of them.
    for (const outcome of ["admitted", "refused", "failed"]) this.#evaluations.inc({ outcome }, 0);
    for (const outcome of ["ok", "failed"]) this.#reloads.inc({ outcome }, 0);
  }

  /** Counts what happened. */
  observe(observation: PolicyObservation): void {
    switch (observation.kind) {
      case "evaluation":
        this.#evaluations.inc({ outcome: observation.outcome });
        return this.#latency.observe(observation.durationMs);
      case "violation":
        return this.#violations.inc({ rule: observation.rule, mode: observation.mode });
      case "reload":
        return this.#reloads.inc({ outcome: observation.outcome });
    }
  }
}
