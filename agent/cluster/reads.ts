import { create } from "@bufbuild/protobuf";
import {
  type NodeStateResponse,
  NodeStateResponseSchema,
  type WorkloadState,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { CoreContext } from "./context.ts";
import { compareClaims } from "./copies.ts";
import type { ClusterMember, StateVersion } from "./ports.ts";
import { headerDigest, stateRoot } from "./state_digest.ts";
import type { Life, NodeView } from "./state_table.ts";

/** A node of the cluster as this node sees it. */
export interface NodeSummary {
  id: string;
  name: string;
  isSelf: boolean;
  kind: NodeView["kind"];
  life: Life;
  /** Absent for this node until membership has told of it. */
  member: ClusterMember | undefined;
  /** Its state without workloads; absent while nothing of it is known. */
  header: NodeStateResponse | undefined;
  workloads: number;
  /** Whether its state is signed by its own key; its own is, to itself. */
  isVerified: boolean;
}

/** A copy of a workload, and whether its node is there. */
export interface ListedCopy {
  nodeId: string;
  nodeName: string;
  isSelf: boolean;
  /** False where the node failed, left or fell silent. */
  isLive: boolean;
  workload: WorkloadState;
}

/** What is found by an id, a name or the beginning of an id. */
export type Found =
  /** The copy that counts first. */
  | { kind: "found"; id: string; copies: readonly ListedCopy[] }
  | { kind: "ambiguous"; ids: readonly string[] }
  | { kind: "none" };

/** Ids that an ambiguous answer lists. */
const MAX_AMBIGUOUS = 16;

/** Questions about the whole cluster, answered from what this node knows. */
export class Reads {
  readonly #context: CoreContext;
  readonly #self: { id: string; name: string };
  readonly #isStopped: (id: string) => boolean;

  /** `isStopped`: whether there is a tombstone for an id. */
  constructor(
    context: CoreContext,
    options: { self: { id: string; name: string }; isStopped: (id: string) => boolean },
  ) {
    this.#context = context;
    this.#self = options.self;
    this.#isStopped = options.isStopped;
  }

  /** Every node, this one first. */
  nodes(selfMember: ClusterMember | undefined): NodeSummary[] {
    const { table, own } = this.#context.parts;
    const self: NodeSummary = {
      ...this.#self,
      isSelf: true,
      kind: "hypercore",
      life: "live",
      member: selfMember,
      header: own.header,
      workloads: own.workloads.size,
      isVerified: true,
    };
    const others = Array.from(table.nodes.values(), ({ id, kind, life, member, state }): NodeSummary => ({
      id,
      name: member.name,
      isSelf: false,
      kind,
      life,
      member,
      header: state?.header,
      workloads: state?.workloads.size ?? 0,
      isVerified: state?.isVerified ?? false,
    }));
    return [self, ...others];
  }

  /** The version of a node's state that is known, and the root that commits to it. */
  root(nodeId: string): (StateVersion & { root: Uint8Array }) | undefined {
    const { table, own } = this.#context.parts;
    if (nodeId === this.#self.id) return { ...own.at, root: own.root };
    const state = table.get(nodeId)?.state;
    if (state === undefined) return undefined;
    const { incarnation, version, header, workloads } = state;
    return { incarnation, version, root: stateRoot(headerDigest(header), workloads) };
  }

  /** The states of all nodes, this one first; those of dead nodes as they were last. */
  states(): NodeStateResponse[] {
    const { table, own } = this.#context.parts;
    const self = create(NodeStateResponseSchema, {
      ...own.header,
      workloads: Array.from(own.workloads.values(), ({ state }) => state),
    });
    const states = [self];
    for (const { state } of table.nodes.values()) if (state !== undefined) states.push(table.whole(state));
    return states;
  }

  /**
   * Every workload once, by its id: the live copy with the best claim, else the best of those that are not live. Oldest
   * first. What was stopped while its node was away is no workload any more.
   */
  list(): ListedCopy[] {
    const listed: ListedCopy[] = [];
    for (const id of this.#context.copies.ids()) listed.push(...this.copies(id).slice(0, 1));
    return listed.sort((a, b) => compareAge(a.workload, b.workload));
  }

  /** All copies of an id: live ones first, the better claim first among them. */
  copies(id: string): ListedCopy[] {
    const copies = this.#context.copies.of(id);
    let listed = copies.map((copy) => this.#listed(copy.nodeId, copy.state));
    if (copies.length > 0 && this.#isStopped(id)) listed = listed.filter(({ isLive }) => isLive);
    if (listed.length < 2) return listed;
    return listed.sort((a, b) =>
      Number(b.isLive) - Number(a.isLive) ||
      Number(a.workload.status === "stopping") - Number(b.workload.status === "stopping") ||
      compareClaims({ nodeId: a.nodeId, state: a.workload }, { nodeId: b.nodeId, state: b.workload })
    );
  }

  /** By id, else by name, else by the beginning of an id. */
  find(text: string): Found {
    const { copies } = this.#context;
    const exact = this.copies(text);
    if (exact.length > 0) return { kind: "found", id: text, copies: exact };
    if (text === "") return { kind: "none" };
    const named: string[] = [];
    const prefixed: string[] = [];
    for (const id of copies.ids()) {
      if (this.#isStopped(id) && this.copies(id).length === 0) continue;
      if (copies.of(id).some(({ state }) => state.sourceRequest?.name === text)) named.push(id);
      else if (id.startsWith(text)) prefixed.push(id);
    }
    const ids = named.length > 0 ? this.#preferLive(named) : prefixed;
    if (ids.length === 0) return { kind: "none" };
    if (ids.length === 1) return { kind: "found", id: ids[0], copies: this.copies(ids[0]) };
    return { kind: "ambiguous", ids: ids.sort().slice(0, MAX_AMBIGUOUS) };
  }

  /** A name that only one live workload has is that one's, whatever the dead are called. */
  #preferLive(ids: string[]): string[] {
    const live = ids.filter((id) => this.#context.copies.live(id).length > 0);
    return live.length > 0 ? live : ids;
  }

  #listed(nodeId: string, workload: WorkloadState): ListedCopy {
    if (nodeId === this.#self.id) {
      return { nodeId, nodeName: this.#self.name, isSelf: true, isLive: true, workload };
    }
    const view = this.#context.parts.table.get(nodeId);
    return {
      nodeId,
      nodeName: view?.member.name ?? nodeId,
      isSelf: false,
      isLive: view?.life === "live",
      workload,
    };
  }
}

function compareAge(a: WorkloadState, b: WorkloadState): number {
  if (a.createdAtMs !== b.createdAtMs) return a.createdAtMs < b.createdAtMs ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}
