import { create } from "@bufbuild/protobuf";
import {
  type ClusterMessage,
  PolicyQuerySchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { ListedCopy } from "../cluster/reads.ts";
import { policyQueries } from "../policies.ts";
import type { Candidate, PlacementRequest } from "../policy/facts.ts";
import type { PolicyGate } from "../policy/gate.ts";
import type { KnownWorkload } from "../policy/query.ts";
import { parseSpawn } from "../workloads/parse_spawn.ts";
import { packMessage, unwrap } from "./cluster_messages.ts";
import type { JudgedRequest } from "./placer.ts";
import type { PolicyNodes } from "./policy_nodes.ts";

/** What {@linkcode ClusterPolicies} works with. */
export interface ClusterPoliciesParts {
  node: { id: string; name: string };
  gate: Pick<PolicyGate, "choose" | "effective" | "rank">;
  nodes: Pick<PolicyNodes, "list">;
  /** A workload anywhere, with its whole request; `undefined` when there is none. */
  find(idOrName: string): Promise<KnownWorkload | undefined>;
}

/** The policies of this node at work on the whole cluster: they judge placements, and answer questions of others. */
export class ClusterPolicies {
  readonly #parts: ClusterPoliciesParts;
  readonly #answer: ReturnType<typeof policyQueries>;

  constructor(parts: ClusterPoliciesParts) {
    this.#parts = parts;
    const { node, gate, nodes, find } = parts;
    this.#answer = policyQueries({ node, gate, find, parse, candidates: () => nodes.list() });
  }

  /** All nodes judged for a request, once. Throws what is wrong with the request, or with its policy, everywhere. */
  async judge(request: VmSpawnRequest, options: { id?: string }): Promise<JudgedRequest> {
    const { gate, nodes } = this.#parts;
    const { own, policyJson } = await gate.choose(request);
    const kept = policyJson === ""
      ? request
      : create(VmSpawnRequestSchema, { ...request, policy: "", policyJson });
    const ranking = gate.rank(own, { ...parse(request), id: options.id }, nodes.list(request));
    if (ranking === undefined) return { request: kept };
    return {
      request: kept,
      policy: { judge: (_request, { id }) => ranking.judge(id) },
      chosen: ranking.chosen,
    };
  }

  /** All nodes as policies see them now, this one first. */
  candidates(): readonly Candidate[] {
    return this.#parts.nodes.list();
  }

  /** Answers POLICY_QUERY; nothing to what is no such question. */
  async answer(message: ClusterMessage): Promise<Uint8Array | undefined> {
    const query = unwrap(message, PolicyQuerySchema);
    return query && packMessage(await this.#answer(query));
  }
}

/** Which node may have it is the question here. */
function parse(request: VmSpawnRequest): PlacementRequest {
  return parseSpawn({ ...request, node: "" }, { nodeName: "", reservedPorts: new Set() });
}

/** Finds a workload, and has its node tell its request where what all are told is not the whole. */
export function findWhole(parts: {
  /** One of this node. */
  own(idOrName: string): KnownWorkload | undefined;
  /** One of any node. Throws `not-found`. */
  find(idOrName: string): ListedCopy;
  fetch(nodeId: string, id: string): Promise<VmSpawnRequest | undefined>;
}): (idOrName: string) => Promise<KnownWorkload | undefined> {
  return async (idOrName) => {
    const own = parts.own(idOrName);
    if (own !== undefined) return own;
    try {
      const { nodeId, workload: { id, sourceRequest, requestIsCut } } = parts.find(idOrName);
      const request = requestIsCut ? await parts.fetch(nodeId, id) : sourceRequest;
      return request && { id, request };
    } catch (error) {
      if (error instanceof RuntimeError && error.code === "not-found") return undefined;
      throw error;
    }
  };
}
