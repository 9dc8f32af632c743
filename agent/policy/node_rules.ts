import type { Candidate, PlacementRequest } from "./facts.ts";
import { anyOf, glob } from "./pattern.ts";
import type { Finding } from "./permission.ts";
import type { NodeRules, Policy, Selector, TagRule } from "./policy.ts";
import { selectorText, tally } from "./selector.ts";

/** Says why a node breaks a rule, or nothing. */
export type NodeCheck = (node: Candidate) => Finding | undefined;

/** One limit of a measured value. */
export interface Limit {
  rule: string;
  /** What is measured, in words. */
  what: string;
  unit: string;
  /** -1 when the value may be at most the limit, 1 when it must be at least that. */
  sign: -1 | 1;
  limitOf: (rules: NodeRules) => number | undefined;
  valueOf: (node: Candidate) => number | undefined;
}

/** The limits of measured values, in the order of the policy file. */
export const LIMITS: readonly Limit[] = [
  {
    rule: "rules.max_latency_ms",
    what: "latency",
    unit: " ms",
    sign: -1,
    limitOf: (rules) => rules.maxLatencyMs,
    valueOf: (node) => node.latencyMs,
  },
  {
    rule: "rules.max_price_per_gb",
    what: "price per GB",
    unit: "",
    sign: -1,
    limitOf: (rules) => rules.maxPricePerGb,
    valueOf: (node) => node.pricePerGb,
  },
  {
    rule: "rules.min_reputation_score",
    what: "reputation",
    unit: "",
    sign: 1,
    limitOf: (rules) => rules.minReputationScore,
    valueOf: (node) => node.reputation,
  },
  {
    rule: "rules.max_queue_depth",
    what: "queue depth",
    unit: "",
    sign: -1,
    limitOf: (rules) => rules.maxQueueDepth,
    valueOf: (node) => node.queueDepth,
  },
  {
    rule: "rules.max_packet_loss",
    what: "packet loss",
    unit: " %",
    sign: -1,
    limitOf: (rules) => rules.maxPacketLoss,
    valueOf: (node) => node.packetLossPercent,
  },
  {
    rule: "rules.max_jitter_ms",
    what: "jitter",
    unit: " ms",
    sign: -1,
    limitOf: (rules) => rules.maxJitterMs,
    valueOf: (node) => node.jitterMs,
  },
];

/**
 * The checks a policy makes of each node, made ready for one request; what needs a look at all nodes is counted here
 * once. Spread limits are apart, see {@linkcode spreadChecks}.
 */
export function nodeChecks(
  policy: Policy,
  request: PlacementRequest,
  nodes: readonly Candidate[],
): NodeCheck[] {
  const { rules } = policy;
  const refusesUnknown = rules.unknownValues === "refuse";
  const checks: NodeCheck[] = [];
  for (const limit of LIMITS) {
    const bound = limit.limitOf(rules);
    if (bound !== undefined) checks.push(limitCheck(limit, bound, refusesUnknown));
  }
  if (rules.requiredCapabilities.length > 0) checks.push(capabilityCheck(rules, refusesUnknown));
  for (const patterns of rules.nodes) {
    const matches = anyOf(patterns.map(glob));
    checks.push((node) =>
      matches(node.name) || matches(node.id)
        ? undefined
        : { rule: "rules.nodes", reason: `it is none of ${patterns.join(", ") || "none"}` }
    );
  }
  for (const pattern of rules.notNodes) {
    const matches = glob(pattern);
    checks.push((node) =>
      matches(node.name) || matches(node.id)
        ? { rule: "rules.not_nodes", reason: `it is one of ${pattern}` }
        : undefined
    );
  }
  for (const tagRule of rules.nodeTags) checks.push(tagCheck(tagRule));
  for (const tagRule of rules.notNodeTags) checks.push(notTagCheck(tagRule));
  rules.beside.forEach((selector, index) => {
    checks.push(besideCheck({ rule: `rules.beside[${index}]`, selector, wanted: true }, request, nodes));
  });
  rules.notBeside.forEach((selector, index) => {
    checks.push(besideCheck({ rule: `rules.not_beside[${index}]`, selector, wanted: false }, request, nodes));
  });
  return checks;
}

/** The checks of how far one value of a tag may be ahead, among the nodes that pass everything else. */
export function spreadChecks(
  policy: Policy,
  request: PlacementRequest,
  nodes: { all: readonly Candidate[]; passing: readonly Candidate[] },
): NodeCheck[] {
  return policy.rules.spread.flatMap((spread, index) => {
    const { maxSkew } = spread;
    if (maxSkew === undefined) return [];
    const rule = `rules.spread[${index}]`;
    const { domainOf, count } = tally(spreadSelector(spread, request), request, nodes.all);
    const domains = new Set(nodes.passing.map(domainOf).filter((domain) => domain !== undefined));
    const fewest = Math.min(...[...domains].map(count));
    return (node: Candidate) => {
      const domain = domainOf(node);
      if (domain === undefined) {
        return policy.rules.unknownValues === "refuse"
          ? { rule, reason: `it has no tag ${spread.tag}` }
          : undefined;
      }
      const ahead = count(domain) + 1 - fewest;
      if (ahead <= maxSkew) return undefined;
      return {
        rule,
        reason: `${spread.tag}=${domain} would have ${ahead} more than the value with the fewest, at most ` +
          `${maxSkew} are allowed`,
      };
    };
  });
}

/** What a spread rule counts. */
export function spreadSelector(
  spread: { tag: string; among?: Selector },
  request: PlacementRequest,
): Selector {
  return { ...(spread.among ?? { image: request.image }), tag: spread.tag };
}

function limitCheck(limit: Limit, bound: number, refusesUnknown: boolean): NodeCheck {
  const { rule, what, unit, sign, valueOf } = limit;
  const allowed = `${sign < 0 ? "at most" : "at least"} ${bound}${unit} is allowed`;
  return (node) => {
    const value = valueOf(node);
    // Not a number is as good as unknown.
    if (value === undefined || Number.isNaN(value)) {
      return refusesUnknown ? { rule, reason: `${what} is not known, ${allowed}` } : undefined;
    }
    return (value - bound) * sign >= 0
      ? undefined
      : { rule, reason: `${what} is ${rounded(value)}${unit}, ${allowed}` };
  };
}

function capabilityCheck(rules: NodeRules, refusesUnknown: boolean): NodeCheck {
  const rule = "rules.required_capabilities";
  return ({ capabilities }) => {
    if (capabilities === undefined) {
      return refusesUnknown ? { rule, reason: "its capabilities are not known" } : undefined;
    }
    const missing = rules.requiredCapabilities.filter((each) => !capabilities.includes(each));
    return missing.length === 0 ? undefined : { rule, reason: `it lacks ${missing.join(", ")}` };
  };
}

function tagCheck({ tag, values }: TagRule): NodeCheck {
  const matches = anyOf(values.map(glob));
  const rule = `rules.node_tags.${tag}`;
  return ({ tags }) => {
    if (!Object.hasOwn(tags, tag)) return { rule, reason: `it has no tag ${tag}` };
    return matches(tags[tag])
      ? undefined
      : { rule, reason: `${tag} is "${tags[tag]}", none of ${values.join(", ")}` };
  };
}

function notTagCheck({ tag, values }: TagRule): NodeCheck {
  const matches = anyOf(values.map(glob));
  return ({ tags }) =>
    Object.hasOwn(tags, tag) && matches(tags[tag])
      ? { rule: `rules.not_node_tags.${tag}`, reason: `${tag} is "${tags[tag]}"` }
      : undefined;
}

function besideCheck(
  options: { rule: string; selector: Selector; wanted: boolean },
  request: PlacementRequest,
  nodes: readonly Candidate[],
): NodeCheck {
  const { rule, selector, wanted } = options;
  const { domainOf, count } = tally(selector, request, nodes);
  const text = selectorText(selector);
  return (node) => {
    const domain = domainOf(node);
    // Without the tag it is in nobody's domain: beside nothing.
    const found = domain === undefined ? 0 : count(domain);
    if (wanted ? found > 0 : found === 0) return undefined;
    return { rule, reason: wanted ? `no workload is there like ${text}` : `${found} there are like ${text}` };
  };
}

/** At most four digits after the point. */
function rounded(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
