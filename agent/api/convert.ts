import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ImageSchema, PullProgressSchema } from "../../proto/gen/hypercore/v1/image_pb.ts";
import type { Image, PullProgress } from "../../runtime/image/mod.ts";
import { DEFAULT_CORES, DEFAULT_MEMORY_MIB, DEFAULT_PIDS } from "../workloads/limits.ts";
import type { Workload } from "../workloads/workload.ts";

/** What stands for the value of an environment variable wherever it is shown. */
export const REDACTED = "***";

/** A workload as the API shows it: the values of its environment are left out. */
export function workloadState(workload: Workload, url: string): WorkloadState {
  const { id, phase, reason, record } = workload;
  return create(WorkloadStateSchema, {
    id,
    sourceRequest: redactRequest(record.request),
    proof: workload.proof,
    status: phase,
    generation: BigInt(record.generation),
    restarts: record.restarts,
    url,
    createdAtMs: BigInt(record.createdAtMs),
    startedAtMs: BigInt(record.startedAtMs),
    exitCode: record.exitCode,
    reason,
  });
}

/** The request with the defaults that stand in for what it leaves out, and without the values of its environment. */
export function redactRequest(request: VmSpawnRequest): VmSpawnRequest {
  return create(VmSpawnRequestSchema, {
    ...request,
    cores: request.cores || Math.ceil(request.milliCpus / 1000) || DEFAULT_CORES,
    memory: request.memory || DEFAULT_MEMORY_MIB,
    pidsLimit: request.pidsLimit || DEFAULT_PIDS,
    env: request.env.map(redactEntry),
  });
}

/** An OCI runtime spec without the values of its environment. */
export function redactSpec(spec: Record<string, unknown>): Record<string, unknown> {
  const process = spec.process as { env?: string[] } | undefined;
  if (process?.env === undefined) return spec;
  return { ...spec, process: { ...process, env: process.env.map(redactEntry) } };
}

export function pullProgress(progress: PullProgress): MessageInitShape<typeof PullProgressSchema> {
  return {
    digest: progress.digest,
    status: progress.status,
    bytes: BigInt(progress.bytes),
    totalBytes: BigInt(progress.totalBytes),
    bytesPerSecond: BigInt(Math.round(progress.bytesPerSecond)),
  };
}

export function imageMessage(image: Image): MessageInitShape<typeof ImageSchema> {
  return { ...image, sizeBytes: BigInt(image.sizeBytes), createdAtMs: BigInt(image.createdAtMs) };
}

function redactEntry(entry: string): string {
  return `${entry.split("=", 1)[0]}=${REDACTED}`;
}
