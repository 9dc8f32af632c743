import { create } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { MAX_REASON_LENGTH, MAX_WORKLOAD_BYTES } from "./limits.ts";
import { workloadDigest } from "./state_digest.ts";

/** A workload as this node tells others of it. */
export interface ToldWorkload {
  state: WorkloadState;
  digest: string;
  /** Of its binary form. */
  bytes: number;
}

/**
 * Makes a workload fit to be told: not longer than {@linkcode MAX_WORKLOAD_BYTES}, and marked as cut where the request
 * lacks something. Values of the environment are taken out should they still be there.
 */
export function toldWorkload(given: WorkloadState): ToldWorkload {
  const source = given.sourceRequest;
  const state = create(WorkloadStateSchema, {
    ...given,
    reason: given.reason.slice(0, MAX_REASON_LENGTH),
    sourceRequest: source && withoutValues(source),
    requestIsCut: given.requestIsCut || (source !== undefined && source.env.length > 0),
  });
  const told = { state, ...workloadDigest(state) };
  if (told.bytes <= MAX_WORKLOAD_BYTES || source === undefined) return told;
  const { imageRef, ports, name, cores, memory, milliCpus, requestId } = source;
  const short = create(VmSpawnRequestSchema, { imageRef, name, cores, memory, milliCpus, requestId, ports });
  const cut = create(WorkloadStateSchema, {
    ...state,
    proof: undefined,
    sourceRequest: short,
    requestIsCut: true,
  });
  return { state: cut, ...workloadDigest(cut) };
}

/** Whether starting it elsewhere takes more than its state says. */
export function needsTrust(state: WorkloadState): boolean {
  return state.requestIsCut || (state.sourceRequest?.env.length ?? 0) > 0;
}

function withoutValues(request: VmSpawnRequest): VmSpawnRequest {
  if (request.env.length === 0) return request;
  return create(VmSpawnRequestSchema, {
    ...request,
    env: request.env.map((entry) => `${entry.split("=", 1)[0]}=***`),
  });
}
