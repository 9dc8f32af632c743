/** What an evaluation knows of a node. Everything that may be unknown is `undefined` then. */
export interface Candidate {
  id: string;
  name: string;
  tags: Readonly<Record<string, string>>;
  capabilities?: readonly string[];
  /** Round trip from the node that evaluates. */
  latencyMs?: number;
  jitterMs?: number;
  packetLossPercent?: number;
  queueDepth?: number;
  pricePerGb?: number;
  /** 0 to 1. */
  reputation?: number;
  workloads: readonly PlacedWorkload[];
  /** Takes no new workloads. */
  cordoned?: boolean;
  /** Of another kind, which enforces no policy itself. */
  isForeign?: boolean;
  /** What it has left. */
  capacity?: { milliCpus: number; memoryBytes: number };
}

/** A workload on a node. */
export interface PlacedWorkload {
  id: string;
  name?: string;
  image: string;
  labels: Readonly<Record<string, string>>;
  milliCpus: number;
  memoryBytes: number;
}

/** What is to be placed; a `WorkloadSpec` is one. */
export interface PlacementRequest {
  /** Set where it has one already: the workload of this id, wherever it is, does not count as another. */
  id?: string;
  name?: string;
  image: string;
  milliCpus: number;
  memoryBytes: number;
  /** `KEY=value`; only the keys are looked at. */
  env: readonly string[];
  ports: readonly { hostPort: number; containerPort: number }[];
  runtime: { name: string };
  labels: Readonly<Record<string, string>>;
}

/** Something a policy does not like. */
export interface Violation {
  /** Where in the policy, e.g. `rules.max_latency_ms`. */
  rule: string;
  /** In words. */
  reason: string;
  /** Name of the policy. */
  policy: string;
  /** Noted only, because the policy is permissive. */
  advisory: boolean;
}
