import type { WorkloadProof, WorkloadState } from "../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Image } from "../proto/gen/hypercore/v1/image_pb.ts";

/** One workload of `list --json`. */
export interface WorkloadJson {
  id: string;
  name: string;
  image: string;
  node: string;
  status: string;
  url: string;
  cpus: number;
  memoryMib: number;
  /** Host port to container port. */
  ports: Record<string, number>;
  runtime: string;
  labels: Record<string, string>;
  generation: number;
  restarts: number;
  createdAt?: string;
  startedAt?: string;
  exitCode?: number;
  reason: string;
  proof?: ProofJson;
}

/** A workload's newest proof, in short; `proof show` prints all of it. */
export interface ProofJson {
  hash: string;
  seq: number;
  at?: string;
  wallMs: number;
  cpuUs: number;
  memoryBytes: number;
  memoryPeakBytes: number;
}

/** A workload as `list --json` and `inspect` show it; its environment stays out. */
export function workloadJson(state: WorkloadState, node: string): WorkloadJson {
  const request = state.sourceRequest;
  return {
    id: state.id,
    name: request?.name ?? "",
    image: request?.imageRef ?? "",
    node,
    status: state.status,
    url: state.url,
    cpus: request === undefined ? 0 : request.milliCpus > 0 ? request.milliCpus / 1000 : request.cores,
    memoryMib: request?.memory ?? 0,
    ports: request?.ports ?? {},
    runtime: request?.runtime?.name || "runc",
    labels: request?.labels ?? {},
    generation: Number(state.generation),
    restarts: state.restarts,
    createdAt: timestamp(state.createdAtMs),
    startedAt: timestamp(state.startedAtMs),
    exitCode: state.exitCode,
    reason: state.reason,
    ...(state.proof && { proof: proofJson(state.proof) }),
  };
}

function proofJson({ proofHash, proofTimestamp, metrics }: WorkloadProof): ProofJson {
  return {
    hash: proofHash,
    seq: Number(metrics.seq ?? 0),
    at: timestamp(proofTimestamp),
    wallMs: Number(metrics.wall_ms ?? 0),
    cpuUs: Number(metrics.cpu_us ?? 0),
    memoryBytes: Number(metrics.memory_bytes ?? 0),
    memoryPeakBytes: Number(metrics.memory_peak_bytes ?? 0),
  };
}

/** An image as `image list --json` shows it. */
export function imageJson(image: Image) {
  return {
    name: image.name,
    digest: image.digest,
    sizeBytes: Number(image.sizeBytes),
    createdAt: timestamp(image.createdAtMs),
    platform: image.platform,
  };
}

function timestamp(ms: bigint): string | undefined {
  const value = Number(ms);
  return value > 0 && value <= MAX_DATE_MS ? new Date(value).toISOString() : undefined;
}

/** The last moment a Date can hold. */
const MAX_DATE_MS = 8.64e15;
