import { createHash } from "node:crypto";
import canonicalize from "canonicalize";
import {
  type EgressRule,
  formatCidr,
  mergePorts,
  type NetworkRules,
  parseCidr,
  type PortRange,
} from "../../runtime/network/rules.ts";
import {
  DEFAULT_SCORING,
  type NodeRules,
  type Permissions,
  type Policy,
  type Scoring,
  type Selector,
  type TagRule,
} from "./policy.ts";
import { escapePointer } from "./source_text.ts";
import type {
  NetworkFile,
  PermissionsFile,
  PolicyFile,
  PortFile,
  RulesFile,
  ScoringKey,
  SelectorFile,
} from "./wire.ts";

/** Tells that the value at a JSON pointer is wrong. */
export type Report = (pointer: string, message: string) => void;

/** Turns a file that the schema has passed into a policy; what no schema can see is told to `report`. */
export function convertPolicy(file: PolicyFile, report: Report): Policy {
  const network = file.network === undefined ? undefined : convertNetwork(file.network, report);
  return {
    id: policyId(file),
    name: file.name,
    description: file.description ?? "",
    mode: file.mode,
    onFailure: file.on_failure ?? "refuse",
    rules: convertRules(file.rules ?? {}),
    permissions: convertPermissions(file.permissions ?? {}, report),
    ...(network !== undefined && { network }),
    ...(file.scoring !== undefined && { scoring: convertScoring(file.scoring) }),
  };
}

/** Name of a policy by its content: the digest of its canonical JSON (RFC 8785). */
export function policyId(file: PolicyFile): string {
  return `sha256:${createHash("sha256").update(canonicalize(file) as string).digest("hex")}`;
}

/** What a user may have meant otherwise. */
export function policyNotes(file: PolicyFile): string[] {
  const notes: string[] = [];
  for (const key of ZERO_IS_NONE) {
    if (file.rules?.[key] === 0) notes.push(`rules.${key} is 0, which means no limit`);
  }
  if (file.mode === "permissive" && file.network !== undefined) {
    notes.push("network is not enforced: the policy is permissive");
  }
  const { egress } = file.network ?? {};
  if (egress !== undefined && egress.length > 0 && !egress.some(allowsDns)) {
    notes.push("network.egress has no entry for DNS (port 53): names will not resolve");
  }
  return notes;
}

const ZERO_IS_NONE = [
  "max_latency_ms",
  "max_price_per_gb",
  "max_queue_depth",
  "max_packet_loss",
  "max_jitter_ms",
] as const;

function allowsDns({ protocol, ports }: { protocol?: string; ports?: PortFile[] }): boolean {
  if (protocol === "icmp" || protocol === "tcp") return false;
  return ports === undefined || ports.some((port) => {
    const [from, to = from] = String(port).split("-").map(Number);
    return from <= 53 && to >= 53;
  });
}

function convertRules(rules: RulesFile): NodeRules {
  return {
    ...defined({
      maxLatencyMs: rules.max_latency_ms || undefined,
      maxPricePerGb: rules.max_price_per_gb || undefined,
      minReputationScore: rules.min_reputation_score || undefined,
      maxQueueDepth: rules.max_queue_depth || undefined,
      maxPacketLoss: rules.max_packet_loss || undefined,
      maxJitterMs: rules.max_jitter_ms || undefined,
    }),
    requiredCapabilities: rules.required_capabilities ?? [],
    preferLowLatency: rules.prefer_low_latency ?? false,
    preferLowPrice: rules.prefer_low_price ?? false,
    preferHighReputation: rules.prefer_high_reputation ?? false,
    unknownValues: rules.unknown_values ?? "refuse",
    nodes: listOf(rules.nodes),
    notNodes: rules.not_nodes ?? [],
    nodeTags: tagRules(rules.node_tags),
    notNodeTags: tagRules(rules.not_node_tags),
    beside: (rules.beside ?? []).map(convertSelector),
    notBeside: (rules.not_beside ?? []).map(convertSelector),
    preferBeside: (rules.prefer_beside ?? []).map(convertSelector),
    preferNotBeside: (rules.prefer_not_beside ?? []).map(convertSelector),
    spread: (rules.spread ?? []).map(({ tag, among, max_skew: maxSkew }) => ({
      tag,
      ...(among !== undefined && { among: convertSelector(among) }),
      ...(maxSkew !== undefined && { maxSkew }),
    })),
  };
}

function convertSelector({ workload, image, labels, same_labels, tag }: SelectorFile): Selector {
  return defined({ workload, image, labels, sameLabels: same_labels, tag });
}

function convertPermissions(file: PermissionsFile, report: Report): Permissions {
  const ports = (key: "allowed_host_ports" | "allowed_container_ports") => {
    const given = file[key];
    return given === undefined ? [] : [convertPorts(given, `/permissions/${key}`, report)];
  };
  for (const repository of Object.keys(file.required_image_digests ?? {})) {
    if (repository.lastIndexOf(":") <= repository.lastIndexOf("/")) continue;
    report(
      `/permissions/required_image_digests/${escapePointer(repository)}`,
      "names a repository, so it has no tag",
    );
  }
  file.quotas?.forEach((quota, index) => {
    if (
      quota.max_workloads === undefined && quota.max_cores === undefined && quota.max_memory_mib === undefined
    ) {
      report(`/permissions/quotas/${index}`, "names no maximum");
    }
  });
  return {
    ...defined({
      maxCores: file.max_cores,
      maxMemoryMib: file.max_memory_mib,
      maxEnv: file.max_env,
      maxPorts: file.max_ports,
    }),
    allowedImages: listOf(file.allowed_images),
    deniedImages: file.denied_images ?? [],
    allowedRegistries: listOf(file.allowed_registries),
    requireImageDigest: file.require_image_digest ?? false,
    requiredImageDigests: Object.entries(file.required_image_digests ?? {}).map(([image, digests]) => ({
      image,
      digests: [digests].flat(),
    })),
    allowedHostPorts: ports("allowed_host_ports"),
    allowedContainerPorts: ports("allowed_container_ports"),
    allowedRuntimes: listOf(file.allowed_runtimes),
    allowedEnvKeys: listOf(file.allowed_env_keys),
    requiredLabels: file.required_labels ?? [],
    quotas: (file.quotas ?? []).map((quota) => ({
      label: quota.label,
      ...defined({
        value: quota.value,
        maxWorkloads: quota.max_workloads,
        maxCores: quota.max_cores,
        maxMemoryMib: quota.max_memory_mib,
      }),
    })),
  };
}

function convertNetwork(file: NetworkFile, report: Report): NetworkRules {
  const egress = file.egress?.flatMap((rule, index) =>
    convertEgress(rule, `/network/egress/${index}`, report)
  );
  const { ingress_ports: ports } = file;
  return defined({
    egress,
    ingressPorts: ports === undefined ? undefined : convertPorts(ports, "/network/ingress_ports", report),
  });
}

function convertEgress(
  rule: NonNullable<NetworkFile["egress"]>[number],
  pointer: string,
  report: Report,
): EgressRule[] {
  const parsed = parseCidr(rule.cidr ?? "0.0.0.0/0");
  if ("reason" in parsed) {
    report(`${pointer}/cidr`, parsed.reason);
    return [];
  }
  const cidr = formatCidr(parsed);
  if (rule.ports === undefined) return [{ cidr, protocol: rule.protocol ?? "any" }];
  if (rule.protocol === "icmp") report(`${pointer}/ports`, "icmp has no ports");
  const ports = convertPorts(rule.ports, `${pointer}/ports`, report);
  const protocols = rule.protocol === undefined || rule.protocol === "any"
    ? ["tcp", "udp"] as const
    : [rule.protocol];
  return protocols.map((protocol) => ({ cidr, protocol, ports }));
}

function convertPorts(ports: readonly PortFile[], pointer: string, report: Report): PortRange[] {
  return mergePorts(ports.flatMap((port, index) => {
    const [from, to = from] = String(port).split("-").map(Number);
    if (from < 1 || to > 65_535 || from > to) {
      report(`${pointer}/${index}`, "must be a port from 1 to 65535, or a range such as 8000-8100");
      return [];
    }
    return [{ from, to }];
  }));
}

function convertScoring(weights: Partial<Record<ScoringKey, number>>): Scoring {
  return {
    latencyWeight: weights.latency_weight ?? 0,
    priceWeight: weights.price_weight ?? 0,
    reputationWeight: weights.reputation_weight ?? 0,
    queueWeight: weights.queue_weight ?? 0,
    spreadWeight: weights.spread_weight ?? DEFAULT_SCORING.spreadWeight,
    affinityWeight: weights.affinity_weight ?? DEFAULT_SCORING.affinityWeight,
  };
}

function tagRules(tags: Record<string, string | string[]> = {}): TagRule[] {
  return Object.entries(tags).map(([tag, values]) => ({ tag, values: [values].flat() }));
}

function listOf(patterns: string[] | undefined): string[][] {
  return patterns === undefined ? [] : [patterns];
}

/** Without the keys that have no value. */
function defined<T extends Record<string, unknown>>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> };
}
