import type { Candidate, PlacementRequest } from "./facts.ts";
import { spreadSelector } from "./node_rules.ts";
import { DEFAULT_SCORING, type Policy, type Scoring } from "./policy.ts";
import { tally } from "./selector.ts";

/** One part of a node's score. */
export interface ScoreTerm {
  name: "latency" | "price" | "reputation" | "queue" | "spread" | "affinity";
  /** Part of the whole; the weights of all terms add up to 1. */
  weight: number;
  /** 0 (worst) to 1 (best); 0 when it is not known. */
  value: number;
  /** As measured; absent when unknown. */
  measured?: number;
}

/** Scores nodes for one request. */
export interface Scorer {
  /** 0 to 1. */
  scoreOf(node: Candidate): number;
  /** What its score is made of. */
  termsOf(node: Candidate): ScoreTerm[];
}

/** Worst values where a policy names no limit, as in the original. */
const WORST = { latencyMs: 200, pricePerGb: 1, queueDepth: 100 };
/** What a preference adds to its weight. */
const PREFERENCE = 0.5;

/** How a term is found out. */
interface Measure {
  name: ScoreTerm["name"];
  weight: number;
  measure: (node: Candidate) => number | undefined;
  /** 0 to 1 of what was measured. */
  value: (measured: number) => number;
}

/**
 * What scores nodes for a request. A term is 1 at the best value there can be and 0 at the policy's own limit (without
 * one: 200 ms, a price of 1, a queue of 100, a reputation of 0). What is not known earns nothing.
 */
export function scorer(policy: Policy, request: PlacementRequest, nodes: readonly Candidate[]): Scorer {
  const measures = measuresOf(policy, request, nodes).filter(({ weight }) => weight > 0);
  const sum = measures.reduce((total, { weight }) => total + weight, 0);
  const valueOf = ({ value }: Measure, measured: number | undefined) =>
    measured === undefined || Number.isNaN(measured) ? 0 : clamp(value(measured));
  return {
    scoreOf(node) {
      let score = 0;
      for (const each of measures) score += (each.weight / sum) * valueOf(each, each.measure(node));
      return score;
    },
    termsOf: (node) =>
      measures.map((each) => {
        const measured = each.measure(node);
        const term = { name: each.name, weight: each.weight / sum, value: valueOf(each, measured) };
        return measured === undefined || Number.isNaN(measured) ? term : { ...term, measured };
      }),
  };
}

function measuresOf(policy: Policy, request: PlacementRequest, nodes: readonly Candidate[]): Measure[] {
  const { rules } = policy;
  const weights = weightsOf(policy);
  const fall = (worst: number) => (measured: number) =>
    worst > 0 ? 1 - measured / worst : measured > 0 ? 0 : 1;
  const least = rules.minReputationScore ?? 0;
  return [
    {
      name: "latency",
      weight: weights.latencyWeight,
      measure: (node) => node.latencyMs,
      value: fall(rules.maxLatencyMs ?? WORST.latencyMs),
    },
    {
      name: "price",
      weight: weights.priceWeight,
      measure: (node) => node.pricePerGb,
      value: fall(rules.maxPricePerGb ?? WORST.pricePerGb),
    },
    {
      name: "reputation",
      weight: weights.reputationWeight,
      measure: (node) => node.reputation,
      value: (measured) => least < 1 ? (measured - least) / (1 - least) : measured >= 1 ? 1 : 0,
    },
    {
      name: "queue",
      weight: weights.queueWeight,
      measure: (node) => node.queueDepth,
      value: fall(rules.maxQueueDepth ?? WORST.queueDepth),
    },
    ...spreadMeasures(policy, request, { nodes, weight: weights.spreadWeight }),
    ...affinityMeasures(policy, request, { nodes, weight: weights.affinityWeight }),
  ];
}

/** Weights with preferences added; all zero means the default. */
function weightsOf({ scoring, rules }: Policy): Scoring {
  const given = scoring ?? DEFAULT_SCORING;
  const weights = {
    ...given,
    latencyWeight: given.latencyWeight + (rules.preferLowLatency ? PREFERENCE : 0),
    priceWeight: given.priceWeight + (rules.preferLowPrice ? PREFERENCE : 0),
    reputationWeight: given.reputationWeight + (rules.preferHighReputation ? PREFERENCE : 0),
  };
  const { latencyWeight, priceWeight, reputationWeight, queueWeight } = weights;
  if (latencyWeight + priceWeight + reputationWeight + queueWeight > 0) return weights;
  const { spreadWeight, affinityWeight } = weights;
  return { ...DEFAULT_SCORING, spreadWeight, affinityWeight };
}

/** The fewer of the same kind a node's value of the tag has, the better. */
function spreadMeasures(
  policy: Policy,
  request: PlacementRequest,
  options: { nodes: readonly Candidate[]; weight: number },
): Measure[] {
  const { spread } = policy.rules;
  return spread.map((rule) => {
    const { domainOf, count } = tally(spreadSelector(rule, request), request, options.nodes);
    const counts = [...new Set(options.nodes.map(domainOf))].map((domain) =>
      domain === undefined ? 0 : count(domain)
    );
    const most = counts.reduce((a, b) => Math.max(a, b), 0);
    return {
      name: "spread",
      weight: options.weight / spread.length,
      measure: (node) => {
        const domain = domainOf(node);
        return domain === undefined ? undefined : count(domain);
      },
      value: (measured) => most === 0 ? 1 : 1 - measured / most,
    };
  });
}

/** The part of the preferences that a node fulfils. */
function affinityMeasures(
  policy: Policy,
  request: PlacementRequest,
  options: { nodes: readonly Candidate[]; weight: number },
): Measure[] {
  const { preferBeside, preferNotBeside } = policy.rules;
  const preferences = [
    ...preferBeside.map((selector) => ({ selector, wanted: true })),
    ...preferNotBeside.map((selector) => ({ selector, wanted: false })),
  ].map(({ selector, wanted }) => ({ wanted, ...tally(selector, request, options.nodes) }));
  if (preferences.length === 0) return [];
  return [{
    name: "affinity",
    weight: options.weight,
    measure: (node) => {
      const kept = preferences.filter(({ wanted, domainOf, count }) => {
        const domain = domainOf(node);
        return (domain !== undefined && count(domain) > 0) === wanted;
      });
      return kept.length / preferences.length;
    },
    value: (measured) => measured,
  }];
}

function clamp(value: number): number {
  return Math.min(1, Math.max(0, value));
}
