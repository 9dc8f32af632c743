import { create } from "@bufbuild/protobuf";
import {
  type NodeStateResponse,
  NodeStateResponseSchema,
  type VmSpawnRequest,
  type WorkloadState,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ListedCopy, NodeSummary } from "../cluster/reads.ts";
import type { Candidate, PlacedWorkload } from "../policy/facts.ts";
import { type Measured, placedState, remoteCandidate } from "../policy/remote.ts";

/** What {@linkcode PolicyNodes} works with. */
export interface PolicyNodesParts {
  core: { nodes(): NodeSummary[]; list(): ListedCopy[] };
  /** This node. */
  self(): Candidate;
  /** What this node has measured of the line to another, and what it thinks of it. */
  measured(node: NodeSummary): Measured;
}

/** All nodes of the cluster as policies judge them: from their states, and from what was measured here. */
export class PolicyNodes {
  readonly #parts: PolicyNodesParts;
  /** A told workload never changes: what policies count of it is found out once. */
  readonly #placed = new WeakMap<WorkloadState, PlacedWorkload>();

  constructor(parts: PolicyNodesParts) {
    this.#parts = parts;
  }

  /**
   * Every node that could be placed on, this one first. Each workload is counted once, where its best copy is. A stock
   * Serf agent takes no workloads: it is among them only when `wanted` names it.
   */
  list(wanted?: Pick<VmSpawnRequest, "node">): Candidate[] {
    const { core, self, measured } = this.#parts;
    const byNode = new Map<string, PlacedWorkload[]>();
    for (const { nodeId, isLive, isSelf, workload } of core.list()) {
      if (!isLive || isSelf) continue;
      const workloads = byNode.get(nodeId);
      if (workloads === undefined) byNode.set(nodeId, [this.#placedOf(workload)]);
      else workloads.push(this.#placedOf(workload));
    }
    const candidates = [self()];
    for (const node of core.nodes()) {
      if (node.isSelf || !couldTake(node, wanted?.node)) continue;
      const { id, name, header, member } = node;
      const state = header ?? NO_STATE;
      const remote = remoteCandidate(state, {
        name,
        isVerified: node.isVerified,
        measured: measured(node),
        workloads: byNode.get(id) ?? [],
      });
      const isForeign = node.kind !== "hypercore";
      candidates.push({ ...remote, id, isForeign, tags: { ...member?.tags, ...state.tags } });
    }
    return candidates;
  }

  #placedOf(workload: WorkloadState): PlacedWorkload {
    let placed = this.#placed.get(workload);
    if (placed === undefined) this.#placed.set(workload, placed = placedState(workload));
    return placed;
  }
}

const NO_STATE: NodeStateResponse = create(NodeStateResponseSchema);

/**
 * Whether a node may be placed on at all. Of members of another kind only those that showed themselves a Go node by their
 * state, or are asked for by name or id.
 */
export function couldTake({ id, name, isSelf, life, kind, header }: NodeSummary, wanted = ""): boolean {
  if (isSelf) return true;
  if (life !== "live") return false;
  return kind === "hypercore" || header !== undefined || wanted === name || wanted === id;
}
