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
 * lacks something. Values of the environment are taken out should they still be there, and the policy of its own is: that
 * may have 64 KiB, and only who starts it needs it. Labels are kept as long as they fit: policies count by them.
 */
export function toldWorkload(given: WorkloadState): ToldWorkload {
  const source = given.sourceRequest;
  const state = create(WorkloadStateSchema, {
    ...given,
    reason: given.reason.slice(0, MAX_REASON_LENGTH),
    sourceRequest: source && tellable(source),
    requestIsCut: given.requestIsCut ||
      (source !== undefined && (source.env.length > 0 || source.policyJson !== "")),
  });
  const told = { state, ...workloadDigest(state) };
  if (told.bytes <= MAX_WORKLOAD_BYTES || source === undefined) return told;
  const { imageRef, ports, name, cores, memory, milliCpus, requestId, labels } = source;
  const short = create(VmSpawnRequestSchema, { imageRef, name, cores, memory, milliCpus, requestId, ports });
  const cut = { ...state, proof: undefined, requestIsCut: true };
  const labelled = create(WorkloadStateSchema, {
    ...cut,
    sourceRequest: create(VmSpawnRequestSchema, { ...short, labels }),
  });
  const marked = { state: labelled, ...workloadDigest(labelled) };
  if (marked.bytes <= MAX_WORKLOAD_BYTES) return marked;
  const bare = create(WorkloadStateSchema, { ...cut, sourceRequest: short });
  return { state: bare, ...workloadDigest(bare) };
}

/** Whether starting it elsewhere takes more than its state says. */
export function needsTrust(state: WorkloadState): boolean {
  const { sourceRequest, requestIsCut } = state;
  return requestIsCut || (sourceRequest !== undefined &&
    (sourceRequest.env.length > 0 || sourceRequest.policyJson !== ""));
}

function tellable(request: VmSpawnRequest): VmSpawnRequest {
  if (request.env.length === 0 && request.policyJson === "") return request;
  return create(VmSpawnRequestSchema, {
    ...request,
    policyJson: "",
    env: request.env.map((entry) => `${entry.split("=", 1)[0]}=***`),
  });
}
