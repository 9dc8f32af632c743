import type { WorkloadState } from "../../proto/gen/cluster/services/api/cluster_pb.ts";

/** What happened to a workload, as its node's state tells; `type` is one of those named in `hypercore.v1.WorkloadEvent`. */
export interface WorkloadChange {
  type: "spawned" | "started" | "restart-scheduled" | "stopped" | "failed";
  /** In words. */
  detail: string;
}

/** What lies between two states of one node's copy of a workload; undefined where it is nothing that counts as an event. */
export function changeOf(
  before: WorkloadState | undefined,
  after: WorkloadState | undefined,
): WorkloadChange | undefined {
  if (after === undefined) return before && { type: "stopped", detail: "stopped and removed" };
  if (before === undefined) {
    return { type: "spawned", detail: `spawned from ${after.sourceRequest?.imageRef}` };
  }
  if (after.status === before.status && after.restarts === before.restarts) return undefined;
  switch (after.status) {
    case "running":
      return { type: "started", detail: after.restarts > 0 ? `restart ${after.restarts}` : "" };
    case "backing-off":
      return { type: "restart-scheduled", detail: after.reason };
    case "failed":
      return { type: "failed", detail: after.reason };
    default:
      return undefined;
  }
}
