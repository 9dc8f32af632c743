import { create } from "@bufbuild/protobuf";
import {
  NodeSchema,
  type NodesStateResponse,
  NodesStateResponseSchema,
  NodeStateResponseSchema,
  type VmSpawnRequest,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
  type WorkloadProof,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { ClusterCore } from "../cluster/core.ts";
import type { Candidate } from "../cluster/placement.ts";
import type { ListedCopy, NodeSummary } from "../cluster/reads.ts";
import { couldTake } from "./policy_nodes.ts";
import { parseIdOrName } from "../workloads/parse_spawn.ts";

/** Status of a workload whose node does not answer. */
export const UNREACHABLE = "unreachable";

/** What the API asks about the whole cluster, from what this node knows. */
export class ClusterView {
  readonly #core: ClusterCore;
  readonly #ownProof: (id: string) => WorkloadProof | undefined;

  /** `ownProof` gives the newest proof of a workload of this node, which its state tells of only now and then. */
  constructor(
    core: ClusterCore,
    ownProof: (id: string) => WorkloadProof | undefined = () => undefined,
  ) {
    this.#core = core;
    this.#ownProof = ownProof;
  }

  /** Every node with the workloads whose best copy it has. */
  list(): NodesStateResponse {
    const byNode = new Map<string, WorkloadState[]>();
    for (const { nodeId, isLive, isSelf, workload } of this.#core.list()) {
      const workloads = byNode.get(nodeId) ?? [];
      const proof = isSelf ? this.#ownProof(workload.id) : undefined;
      const shown = proof === undefined ? workload : create(WorkloadStateSchema, { ...workload, proof });
      workloads.push(isLive ? shown : create(WorkloadStateSchema, { ...workload, status: UNREACHABLE }));
      byNode.set(nodeId, workloads);
    }
    const states = this.#core.nodes().flatMap(({ id, name, header, member }) => {
      const workloads = byNode.get(id) ?? [];
      if (header === undefined && workloads.length === 0) return [];
      const node = create(NodeSchema, { id, ip: member?.address.host ?? header?.node?.ip ?? "", name });
      return [{ ...(header ?? create(NodeStateResponseSchema)), node, workloads }];
    });
    return create(NodesStateResponseSchema, { states });
  }

  /** The copy that counts. Throws `invalid`, or `not-found` for what is nowhere or in several places. */
  find(idOrName: string): ListedCopy {
    const found = this.#core.find(parseIdOrName(idOrName));
    switch (found.kind) {
      case "found":
        return found.copies[0];
      case "ambiguous":
        throw new RuntimeError(
          "not-found",
          `Cannot find workload "${idOrName}": it could be any of ${found.ids.join(", ")}`,
        );
      case "none":
        throw new RuntimeError(
          "not-found",
          `Cannot find workload "${idOrName}": no such id or name in the cluster`,
        );
    }
  }

  /** The answer of a spawn that made this workload earlier; undefined when there is no live copy. */
  spawned(id: string): VmSpawnResponse | undefined {
    const found = this.#core.find(id);
    if (found.kind !== "found" || found.id !== id || !found.copies[0].isLive) return undefined;
    const { workload: { url }, nodeName } = found.copies[0];
    return create(VmSpawnResponseSchema, { id, url, node: nodeName });
  }

  /** Id of the live workload that has this name. */
  named(name: string): string | undefined {
    const found = this.#core.find(name);
    if (found.kind !== "found") return undefined;
    const copy = found.copies[0];
    return copy.isLive && copy.workload.sourceRequest?.name === name ? found.id : undefined;
  }

  /**
   * What a placement knows of every node that is there. Of members of another kind only those that showed themselves a
   * Go node by their state, or are asked for by name: a stock Serf agent never answers.
   */
  candidates({ imageRef, node }: VmSpawnRequest): Candidate[] {
    const sameImage = new Map<string, number>();
    for (const { nodeId, isLive, workload } of this.#core.list()) {
      if (!isLive || workload.sourceRequest?.imageRef !== imageRef) continue;
      sameImage.set(nodeId, (sameImage.get(nodeId) ?? 0) + 1);
    }
    return this.#core.nodes()
      .filter((each) => couldTake(each, node))
      .map(({ id, name, member, header }) => ({
        id,
        name,
        tags: { ...member?.tags, ...header?.tags },
        cordoned: header?.cordoned ?? false,
        capacity: header?.capacity,
        sameImage: sameImage.get(id) ?? 0,
      }));
  }

  /** Node id by name or id. Throws `not-found`. */
  nodeId(node: string): string {
    return this.node(node).id;
  }

  /** A node by name or id. Throws `not-found`. */
  node(node: string): NodeSummary {
    const nodes = this.#core.nodes();
    const found = nodes.find(({ id }) => id === node) ?? nodes.find(({ name }) => name === node);
    if (found !== undefined) return found;
    throw new RuntimeError(
      "not-found",
      `Cannot find node "${node.slice(0, 128)}": no node has this name or id`,
    );
  }

  nodeName(nodeId: string): string {
    return this.#core.nodes().find(({ id }) => id === nodeId)?.name ?? nodeId;
  }
}
