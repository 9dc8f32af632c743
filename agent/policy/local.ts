import type { Candidate, PlacedWorkload } from "./facts.ts";
import type { WorkloadSpec } from "../workloads/spec.ts";

/** What a node measures and declares about itself. */
export type LocalFacts = Pick<
  Candidate,
  "capabilities" | "pricePerGb" | "reputation" | "queueDepth" | "latencyMs" | "jitterMs" | "packetLossPercent"
>;

/** This node as a candidate: it is at no distance from itself. */
export function localCandidate(options: {
  id: string;
  name: string;
  tags: Readonly<Record<string, string>>;
  workloads: readonly { id: string; spec: WorkloadSpec }[];
  capacity: { milliCpus: number; memoryBytes: number };
  usage: { milliCpus: number; memoryBytes: number };
  cordoned?: boolean;
  facts: LocalFacts;
}): Candidate {
  const { id, name, tags, capacity, usage, cordoned = false } = options;
  return {
    id,
    name,
    tags,
    latencyMs: 0,
    jitterMs: 0,
    packetLossPercent: 0,
    queueDepth: 0,
    ...options.facts,
    cordoned,
    workloads: options.workloads.map(({ id, spec }) => placedWorkload(id, spec)),
    capacity: {
      milliCpus: capacity.milliCpus - usage.milliCpus,
      memoryBytes: capacity.memoryBytes - usage.memoryBytes,
    },
  };
}

/** A workload as policies count it. */
export function placedWorkload(id: string, spec: WorkloadSpec): PlacedWorkload {
  const { name, image, labels, milliCpus, memoryBytes } = spec;
  return { id, ...(name !== undefined && { name }), image, labels, milliCpus, memoryBytes };
}
