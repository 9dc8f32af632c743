import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ExplainResponseSchema, PolicyService } from "../../proto/gen/hypercore/v1/policy_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { evaluate, type RankedNode } from "../policy/evaluate.ts";
import type { Candidate, PlacementRequest, Violation } from "../policy/facts.ts";
import type { PolicyGate } from "../policy/gate.ts";
import { NO_PERMISSIONS, NO_RULES, type Policy } from "../policy/policy.ts";
import type { PolicyStore } from "../policy/store.ts";
import { networkTexts, ruleTexts } from "../policy/words.ts";

/** What the service works with. */
export interface PolicyServiceOptions {
  store: Pick<PolicyStore, "current" | "reloadError">;
  gate: Pick<PolicyGate, "choose" | "effective">;
  /** All nodes as they are known now. */
  candidates: () => readonly Candidate[];
  /** Checks a request. Throws `invalid`. */
  parse: (request: VmSpawnRequest) => PlacementRequest;
}

/** Stands in where nothing is in force: every node with room will do. */
const NO_POLICY: Policy = {
  id: "",
  name: "",
  description: "",
  mode: "enforce",
  onFailure: "refuse",
  rules: NO_RULES,
  permissions: NO_PERMISSIONS,
};

/** Which policy is in force, and what it says of a request. */
export function policyService(options: PolicyServiceOptions): ServiceImpl<typeof PolicyService> {
  const { store, gate, candidates, parse } = options;
  return {
    get() {
      const { current, reloadError } = store;
      if (current === undefined) return { reloadError };
      const { policy: { id, name, description, mode }, text, source, loadedAtMs } = current;
      return {
        policyId: id,
        name,
        description,
        mode,
        source,
        loadedAtMs: BigInt(loadedAtMs),
        reloadError,
        policyJson: text,
      };
    },
    async explain({ request, alone }) {
      if (request === undefined) {
        throw new RuntimeError("invalid", "Cannot explain: the message has no request");
      }
      const { own } = await gate.choose(request);
      if (alone && own === undefined) {
        throw new RuntimeError("invalid", "Cannot explain a policy alone: the request has none");
      }
      return explanation((alone ? own : gate.effective(own)) ?? NO_POLICY, parse(request), candidates());
    },
  };
}

function explanation(
  policy: Policy,
  request: PlacementRequest,
  nodes: readonly Candidate[],
): MessageInitShape<typeof ExplainResponseSchema> {
  const { request: violations, ranked, refused } = evaluate(policy, request, nodes);
  const ofNode = (each: Violation) => !violations.includes(each);
  return {
    policyId: policy.id,
    name: policy.name,
    mode: policy.mode,
    rules: ruleTexts(policy),
    requestViolations: [...violations],
    network: networkTexts(policy.mode === "enforce" ? policy.network : undefined),
    nodes: [
      ...ranked.map((node) => verdict(node, { admitted: true, violations: node.violations })),
      ...refused.map((node) =>
        verdict(node, { admitted: false, violations: [...node.reasons.filter(ofNode), ...node.violations] })
      ),
    ],
  };
}

function verdict(
  { node, score, terms }: RankedNode,
  more: { admitted: boolean; violations: readonly Violation[] },
) {
  return {
    id: node.id,
    name: node.name,
    admitted: more.admitted,
    score,
    terms: terms.map((term) => ({ ...term })),
    violations: [...more.violations],
  };
}
