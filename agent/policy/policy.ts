import type { NetworkRules, PortRange } from "../../runtime/network/rules.ts";

/** What a policy does with what it does not like: refuse it, or only note it. */
export type PolicyMode = "enforce" | "permissive";

/**
 * Where workloads may run and what they may be: the content of a policy file, checked (see `docs/policy.md`). Lists that
 * restrict are lists of lists: something must be in one entry of each, so two policies combine without loss.
 */
export interface Policy {
  /** `sha256:` and the digest of what it was made from. */
  id: string;
  name: string;
  description: string;
  mode: PolicyMode;
  /** What is done when it cannot be evaluated. */
  onFailure: "refuse" | "permissive";
  rules: NodeRules;
  permissions: Permissions;
  /** Absent means no restriction. */
  network?: NetworkRules;
  /** Absent means the default weights. */
  scoring?: Scoring;
  /** A permissive policy combined with this enforcing one: what it does not like is noted, and refuses nothing. */
  advisory?: Policy;
}

/** What a node must be. Absent limits do not limit. */
export interface NodeRules {
  requiredCapabilities: readonly string[];
  maxLatencyMs?: number;
  maxPricePerGb?: number;
  /** 0 to 1. */
  minReputationScore?: number;
  maxQueueDepth?: number;
  /** Percent. */
  maxPacketLoss?: number;
  maxJitterMs?: number;
  preferLowLatency: boolean;
  preferLowPrice: boolean;
  preferHighReputation: boolean;
  /** What is done with a node of which a limited value is not known. */
  unknownValues: "refuse" | "admit";
  /** Patterns of names or ids. */
  nodes: readonly (readonly string[])[];
  notNodes: readonly string[];
  nodeTags: readonly TagRule[];
  notNodeTags: readonly TagRule[];
  /** The node has a workload like each of these. */
  beside: readonly Selector[];
  /** It has none like any of these. */
  notBeside: readonly Selector[];
  preferBeside: readonly Selector[];
  preferNotBeside: readonly Selector[];
  spread: readonly SpreadRule[];
}

/** A tag and the patterns its value is compared with. */
export interface TagRule {
  tag: string;
  values: readonly string[];
}

/** Selects workloads; everything given must hold. */
export interface Selector {
  /** Pattern of an id or name. */
  workload?: string;
  /** Pattern of an image, see `image_pattern.ts`. */
  image?: string;
  /** Label to pattern of its value. */
  labels?: Readonly<Record<string, string>>;
  /** Labels that have the value they have in the request. */
  sameLabels?: readonly string[];
  /** Nodes with the same value of this tag count as one; absent means each node for itself. */
  tag?: string;
}

/** Spread like workloads over the values of a tag. */
export interface SpreadRule {
  tag: string;
  /** What is counted; absent means workloads of the same image. */
  among?: Selector;
  /** How many more one value may have than the one with the fewest; absent means it only counts in the score. */
  maxSkew?: number;
}

/** What a spawn may ask for. Absent limits do not limit; empty outer lists neither. */
export interface Permissions {
  allowedImages: readonly (readonly string[])[];
  deniedImages: readonly string[];
  allowedRegistries: readonly (readonly string[])[];
  requireImageDigest: boolean;
  /** Pattern of images to the digests one of which they must be given by. */
  requiredImageDigests: readonly { image: string; digests: readonly string[] }[];
  maxCores?: number;
  maxMemoryMib?: number;
  maxEnv?: number;
  maxPorts?: number;
  allowedHostPorts: readonly (readonly PortRange[])[];
  allowedContainerPorts: readonly (readonly PortRange[])[];
  allowedRuntimes: readonly (readonly string[])[];
  allowedEnvKeys: readonly (readonly string[])[];
  requiredLabels: readonly string[];
  quotas: readonly Quota[];
}

/** What all workloads with the same value of a label may have together. */
export interface Quota {
  label: string;
  /** Pattern of the values it is for; absent means each value. */
  value?: string;
  maxWorkloads?: number;
  maxCores?: number;
  maxMemoryMib?: number;
}

/** Weights of the terms of a score; only their proportion counts. */
export interface Scoring {
  latencyWeight: number;
  priceWeight: number;
  reputationWeight: number;
  queueWeight: number;
  spreadWeight: number;
  affinityWeight: number;
}

/** Rules of a policy that asks for nothing of a node. */
export const NO_RULES: NodeRules = {
  requiredCapabilities: [],
  preferLowLatency: false,
  preferLowPrice: false,
  preferHighReputation: false,
  unknownValues: "refuse",
  nodes: [],
  notNodes: [],
  nodeTags: [],
  notNodeTags: [],
  beside: [],
  notBeside: [],
  preferBeside: [],
  preferNotBeside: [],
  spread: [],
};

/** Permissions of a policy that forbids nothing. */
export const NO_PERMISSIONS: Permissions = {
  allowedImages: [],
  deniedImages: [],
  allowedRegistries: [],
  requireImageDigest: false,
  requiredImageDigests: [],
  allowedHostPorts: [],
  allowedContainerPorts: [],
  allowedRuntimes: [],
  allowedEnvKeys: [],
  requiredLabels: [],
  quotas: [],
};

/** Weights of a policy that names none; spread and affinity count where there are rules for them. */
export const DEFAULT_SCORING: Scoring = {
  latencyWeight: 0.25,
  priceWeight: 0.25,
  reputationWeight: 0.25,
  queueWeight: 0.25,
  spreadWeight: 0.5,
  affinityWeight: 0.5,
};
