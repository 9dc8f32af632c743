import type { NodeStateResponse, WorkloadState } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { DEFAULT_CORES, DEFAULT_MEMORY_MIB } from "../workloads/limits.ts";
import type { Candidate, PlacedWorkload } from "./facts.ts";

/** What the node that evaluates has measured of the line to another, and what it thinks of it. */
export type Measured = Pick<Candidate, "latencyMs" | "jitterMs" | "packetLossPercent" | "reputation">;

const MEBIBYTE = 1_048_576;

/** What {@linkcode remoteCandidate} is told besides the state. */
export interface RemoteCandidateOptions {
  name: string;
  /** Whether the state is signed by its node: what nobody answers for is no record of reliability. */
  isVerified: boolean;
  measured?: Measured;
  /** In place of those in the state. */
  workloads?: readonly PlacedWorkload[];
}

/**
 * Another node as a candidate, from the state it told. What was measured here wins over what it says of itself; without
 * a beacon nothing but its workloads and its room is known. A beacon's packet loss is percent. An unsigned reputation is
 * taken for none.
 */
export function remoteCandidate(state: NodeStateResponse, options: RemoteCandidateOptions): Candidate {
  const { node, beacon, capacity, cordoned, tags } = state;
  const { name, isVerified, measured, workloads } = options;
  return {
    id: node?.id ?? "",
    name,
    tags,
    ...(beacon !== undefined && {
      capabilities: beacon.nodeCapabilities,
      latencyMs: beacon.latencyMs,
      jitterMs: beacon.jitterMs,
      packetLossPercent: beacon.packetLoss,
      queueDepth: beacon.queueDepth,
      pricePerGb: beacon.pricePerGb,
      reputation: isVerified ? scoreOf(beacon.reputationScore) : undefined,
    }),
    ...known(measured ?? {}),
    workloads: workloads ?? state.workloads.map(placedState),
    cordoned,
    ...(capacity !== undefined && {
      capacity: {
        milliCpus: capacity.milliCpus - capacity.usedMilliCpus,
        memoryBytes: Number(capacity.memoryBytes - capacity.usedMemoryBytes),
      },
    }),
  };
}

/** A told workload as policies count it, with the defaults for what its request leaves out. */
export function placedState({ id, sourceRequest }: WorkloadState): PlacedWorkload {
  const name = sourceRequest?.name ?? "";
  const milliCpus = sourceRequest?.milliCpus || (sourceRequest?.cores || DEFAULT_CORES) * 1000;
  return {
    id,
    ...(name !== "" && { name }),
    image: sourceRequest?.imageRef ?? "",
    labels: sourceRequest?.labels ?? {},
    milliCpus,
    memoryBytes: (sourceRequest?.memory || DEFAULT_MEMORY_MIB) * MEBIBYTE,
  };
}

/** The original writes the score as text. */
function scoreOf(text: string): number | undefined {
  const score = text.trim() === "" ? NaN : Number(text);
  return Number.isFinite(score) ? score : undefined;
}

/** Without what is not known, which would hide what the node says. */
function known(measured: Measured): Measured {
  return Object.fromEntries(Object.entries(measured).filter(([, value]) => value !== undefined));
}
