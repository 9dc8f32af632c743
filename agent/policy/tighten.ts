import { createHash } from "node:crypto";
import { RuntimeError } from "../../runtime/errors.ts";
import {
  type EgressRule,
  formatCidr,
  intersectCidr,
  intersectPorts,
  MAX_GUEST_RULES,
  type NetworkRules,
  parseCidr,
} from "../../runtime/network/rules.ts";
import type { NodeRules, Permissions, Policy } from "./policy.ts";

/**
 * What a spawn's own policy makes of the cluster's: everything that either refuses is refused. Upper limits become the
 * smaller, lower ones the larger, lists are intersected, constraints add up. When one of the two is permissive and the
 * other is not, the permissive one's rules are noted only, and the enforcing one stands as it is. Weights of the score
 * are the spawn's where it has some: they choose among what is allowed. Throws `exhausted` when the network rules of
 * both together are too many.
 */
export function tighten(cluster: Policy, spawn: Policy): Policy {
  const scoring = spawn.scoring ?? cluster.scoring;
  if (cluster.mode !== spawn.mode) {
    const [enforcing, permissive] = cluster.mode === "enforce" ? [cluster, spawn] : [spawn, cluster];
    return {
      ...enforcing,
      ...named(cluster, spawn),
      onFailure: failure(cluster, spawn),
      scoring,
      rules: withPreferences(enforcing.rules, permissive.rules),
      advisory: enforcing.advisory === undefined ? permissive : tighten(enforcing.advisory, permissive),
    };
  }
  const [a, b] = [cluster.advisory, spawn.advisory];
  const advisory = a === undefined ? b : b === undefined ? a : tighten(a, b);
  const network = tightenNetwork(cluster.network, spawn.network);
  return {
    ...named(cluster, spawn),
    mode: cluster.mode,
    onFailure: failure(cluster, spawn),
    rules: tightenRules(cluster.rules, spawn.rules),
    permissions: tightenPermissions(cluster.permissions, spawn.permissions),
    ...(network !== undefined && { network }),
    ...(scoring !== undefined && { scoring }),
    ...(advisory !== undefined && { advisory }),
  };
}

/** What both rules allow; absent allows everything. Throws `exhausted` beyond {@linkcode MAX_GUEST_RULES}. */
export function tightenNetwork(
  a: NetworkRules | undefined,
  b: NetworkRules | undefined,
): NetworkRules | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const egress = a.egress === undefined || b.egress === undefined
    ? a.egress ?? b.egress
    : intersectEgress(a.egress, b.egress);
  const ingressPorts = a.ingressPorts === undefined || b.ingressPorts === undefined
    ? a.ingressPorts ?? b.ingressPorts
    : intersectPorts(a.ingressPorts, b.ingressPorts);
  return { ...(egress !== undefined && { egress }), ...(ingressPorts !== undefined && { ingressPorts }) };
}

function named(cluster: Policy, spawn: Policy): Pick<Policy, "id" | "name" | "description"> {
  const digest = createHash("sha256").update(`${cluster.id}\n${spawn.id}`).digest("hex");
  return {
    id: `sha256:${digest}`,
    name: `${cluster.name}+${spawn.name}`,
    description: `${cluster.name}, tightened by ${spawn.name}`,
  };
}

function failure(cluster: Policy, spawn: Policy): Policy["onFailure"] {
  return cluster.onFailure === "permissive" && spawn.onFailure === "permissive" ? "permissive" : "refuse";
}

function tightenRules(a: NodeRules, b: NodeRules): NodeRules {
  return withPreferences({
    ...limits({
      maxLatencyMs: least(a.maxLatencyMs, b.maxLatencyMs),
      maxPricePerGb: least(a.maxPricePerGb, b.maxPricePerGb),
      minReputationScore: most(a.minReputationScore, b.minReputationScore),
      maxQueueDepth: least(a.maxQueueDepth, b.maxQueueDepth),
      maxPacketLoss: least(a.maxPacketLoss, b.maxPacketLoss),
      maxJitterMs: least(a.maxJitterMs, b.maxJitterMs),
    }),
    requiredCapabilities: [...new Set([...a.requiredCapabilities, ...b.requiredCapabilities])],
    preferLowLatency: a.preferLowLatency,
    preferLowPrice: a.preferLowPrice,
    preferHighReputation: a.preferHighReputation,
    unknownValues: a.unknownValues === "admit" && b.unknownValues === "admit" ? "admit" : "refuse",
    nodes: [...a.nodes, ...b.nodes],
    notNodes: [...a.notNodes, ...b.notNodes],
    nodeTags: [...a.nodeTags, ...b.nodeTags],
    notNodeTags: [...a.notNodeTags, ...b.notNodeTags],
    beside: [...a.beside, ...b.beside],
    notBeside: [...a.notBeside, ...b.notBeside],
    preferBeside: a.preferBeside,
    preferNotBeside: a.preferNotBeside,
    spread: [...a.spread, ...b.spread],
  }, b);
}

/** Preferences refuse nothing, so they add up whatever the modes. */
function withPreferences(rules: NodeRules, other: NodeRules): NodeRules {
  return {
    ...rules,
    preferLowLatency: rules.preferLowLatency || other.preferLowLatency,
    preferLowPrice: rules.preferLowPrice || other.preferLowPrice,
    preferHighReputation: rules.preferHighReputation || other.preferHighReputation,
    preferBeside: [...rules.preferBeside, ...other.preferBeside],
    preferNotBeside: [...rules.preferNotBeside, ...other.preferNotBeside],
  };
}

function tightenPermissions(a: Permissions, b: Permissions): Permissions {
  return {
    ...limits({
      maxCores: least(a.maxCores, b.maxCores),
      maxMemoryMib: least(a.maxMemoryMib, b.maxMemoryMib),
      maxEnv: least(a.maxEnv, b.maxEnv),
      maxPorts: least(a.maxPorts, b.maxPorts),
    }),
    allowedImages: [...a.allowedImages, ...b.allowedImages],
    deniedImages: [...a.deniedImages, ...b.deniedImages],
    allowedRegistries: [...a.allowedRegistries, ...b.allowedRegistries],
    requireImageDigest: a.requireImageDigest || b.requireImageDigest,
    requiredImageDigests: [...a.requiredImageDigests, ...b.requiredImageDigests],
    allowedHostPorts: [...a.allowedHostPorts, ...b.allowedHostPorts],
    allowedContainerPorts: [...a.allowedContainerPorts, ...b.allowedContainerPorts],
    allowedRuntimes: [...a.allowedRuntimes, ...b.allowedRuntimes],
    allowedEnvKeys: [...a.allowedEnvKeys, ...b.allowedEnvKeys],
    requiredLabels: [...new Set([...a.requiredLabels, ...b.requiredLabels])],
    quotas: [...a.quotas, ...b.quotas],
  };
}

function intersectEgress(a: readonly EgressRule[], b: readonly EgressRule[]): EgressRule[] {
  const rules = new Map<string, EgressRule>();
  for (const x of a) {
    for (const y of b) {
      const both = intersectRule(x, y);
      if (both !== undefined) rules.set(JSON.stringify(both), both);
    }
  }
  if (rules.size > MAX_GUEST_RULES) {
    throw new RuntimeError(
      "exhausted",
      `Cannot combine network policies: together they have ${rules.size} egress rules, at most ${MAX_GUEST_RULES}`,
    );
  }
  return [...rules.values()];
}

function intersectRule(a: EgressRule, b: EgressRule): EgressRule | undefined {
  const [network, other] = [a, b].map(({ cidr }) => parseCidr(cidr));
  if ("reason" in network || "reason" in other) return undefined;
  const cidr = intersectCidr(network, other);
  if (cidr === undefined) return undefined;
  if (a.protocol !== b.protocol && a.protocol !== "any" && b.protocol !== "any") return undefined;
  const protocol = a.protocol === "any" ? b.protocol : a.protocol;
  const ports = a.ports === undefined || b.ports === undefined
    ? a.ports ?? b.ports
    : intersectPorts(a.ports, b.ports);
  if (ports?.length === 0) return undefined;
  return { cidr: formatCidr(cidr), protocol, ...(ports !== undefined && { ports }) };
}

function least(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? a ?? b : Math.min(a, b);
}

function most(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? a ?? b : Math.max(a, b);
}

/** Without the keys that have no value. */
function limits<T extends Record<string, number | undefined>>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}
