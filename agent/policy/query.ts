import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import {
  ClusterEvent,
  type ClusterMessage,
  ClusterMessageSchema,
  ErrorResponseSchema,
  type PolicyQuery,
  PolicyQuerySchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { cutText, MAX_ANSWER_BYTES, MAX_REFUSAL_BYTES } from "../control/cluster_messages.ts";
import type { NetworkRules } from "../../runtime/network/rules.ts";
import type { Evaluation } from "./evaluate.ts";
import type { PlacementRequest, Violation } from "./facts.ts";
import type { Policy } from "./policy.ts";
import { networkTexts } from "./words.ts";

/** Reasons in one answer: a query's answer is one packet. */
export const MAX_QUERY_REASONS = 4;
/** Length of one of them. */
const MAX_REASON_LENGTH = 120;

/** A workload and its whole request. */
export interface KnownWorkload {
  id: string;
  request: VmSpawnRequest;
}

/** What an answer to a policy query is made from. */
export interface PolicyQueryParts {
  /** This node. */
  node: { id: string; name: string };
  /** A workload by id or name; `undefined` when it is not known here. */
  find: (idOrName: string) => Promise<KnownWorkload | undefined>;
  /** Checks a request. Throws what is wrong with it. */
  parse: (request: VmSpawnRequest) => PlacementRequest;
  /** The policy in force for a request; `undefined` when there is none. Throws what is wrong with its own. */
  policyOf: (request: VmSpawnRequest) => Promise<Policy | undefined>;
  /** Judges this node. */
  judge: (policy: Policy, request: PlacementRequest) => Evaluation;
}

/** Keys of a query's context that describe a workload which does not run. */
const CONTEXT_KEYS = ["image_ref", "cores", "memory", "ports", "labels", "env_keys", "runtime", "policy"];

/**
 * Answers a POLICY_QUERY for this node: whether it may have a workload (SCHEDULING), whether the workload may be as it is
 * (PERMISSION), or what it may do on the network (NETWORK). The workload is one that is known here, or one that the
 * query's context describes: `image_ref`, `cores`, `memory` (MiB), `ports` (`443:8080,…`), `labels` (`k=v,…`), `env_keys`
 * (`A,B`), `runtime`, `policy` (a name). The answer is the query with its context replaced by the findings, in a
 * ClusterMessage; what cannot be answered is an ERROR with the reason, never an exception.
 */
export async function answerPolicyQuery(
  query: PolicyQuery,
  parts: PolicyQueryParts,
): Promise<ClusterMessage> {
  try {
    const { id, request } = await subjectOf(query, parts);
    const placement = { ...parts.parse(request), ...(id !== undefined && { id }) };
    const policy = await parts.policyOf(request);
    return message(query, {
      node: parts.node.name,
      node_id: parts.node.id,
      policy: policy?.name ?? "",
      policy_id: policy?.id ?? "",
      enforcement_level: policy?.mode ?? "",
      ...findings(query.policyType, { policy, placement, judge: parts.judge }),
    });
  } catch (error) {
    const reason = cutText(error instanceof Error ? error.message : String(error), MAX_REFUSAL_BYTES);
    return create(ClusterMessageSchema, {
      event: ClusterEvent.ERROR,
      wrappedMessage: anyPack(ErrorResponseSchema, create(ErrorResponseSchema, { error: reason })),
    });
  }
}

function findings(
  type: string,
  options: { policy: Policy | undefined; placement: PlacementRequest; judge: PolicyQueryParts["judge"] },
): Record<string, string> {
  const { policy, placement, judge } = options;
  switch (type) {
    case "NETWORK":
      return network(policy?.mode === "enforce" ? policy.network : undefined);
    case "SCHEDULING":
    case "PERMISSION": {
      if (policy === undefined) return { decision: "ADMIT" };
      const { request, ranked, refused } = judge(policy, placement);
      if (type === "PERMISSION") return decision(request);
      const [verdict] = [...ranked, ...refused];
      return {
        ...decision([...request, ...verdict.violations, ...refused.flatMap(({ reasons }) => reasons)]),
        score: verdict.score.toFixed(4),
        ...Object.fromEntries(verdict.terms.map(({ name, value }) => [`score.${name}`, value.toFixed(4)])),
      };
    }
    default:
      throw new Error(
        `Cannot answer policy query "${type.slice(0, 64)}": it is none of SCHEDULING, PERMISSION, NETWORK`,
      );
  }
}

function decision(violations: readonly Violation[]): Record<string, string> {
  const distinct = [...new Set(violations)];
  const refusing = distinct.filter(({ advisory }) => !advisory);
  const told = (refusing.length > 0 ? refusing : distinct).slice(0, MAX_QUERY_REASONS);
  return {
    decision: refusing.length > 0 ? "REFUSE" : "ADMIT",
    violations: String(distinct.length),
    ...Object.fromEntries(told.map(({ rule, reason }, index) => {
      return [`reason.${index}`, `${rule}: ${reason}`.slice(0, MAX_REASON_LENGTH)];
    })),
  };
}

function network(rules: NetworkRules | undefined): Record<string, string> {
  const { limitsEgress, egress, limitsIngress, ingressPorts } = networkTexts(rules);
  const list = (texts: string[]) => {
    const shown = texts.slice(0, MAX_QUERY_REASONS).join("; ");
    return texts.length > MAX_QUERY_REASONS
      ? `${shown}; and ${texts.length - MAX_QUERY_REASONS} more`
      : shown;
  };
  return {
    egress: limitsEgress ? list(egress) || "none" : "any",
    ingress_ports: limitsIngress ? list(ingressPorts) || "none" : "any",
  };
}

/** The workload that is asked about. */
async function subjectOf(
  { workloadId, context }: PolicyQuery,
  parts: PolicyQueryParts,
): Promise<{ id?: string; request: VmSpawnRequest }> {
  if (workloadId === "") return { request: described(context) };
  const known = await parts.find(workloadId);
  if (known !== undefined) return known;
  throw new Error(`Cannot find workload "${workloadId.slice(0, 100)}": it is not known to this node`);
}

function described(context: Record<string, string>): VmSpawnRequest {
  for (const key of Object.keys(context)) {
    if (!CONTEXT_KEYS.includes(key)) {
      throw new Error(
        `Cannot read the query's context "${key.slice(0, 64)}": it is none of ${CONTEXT_KEYS.join(", ")}`,
      );
    }
  }
  return create(VmSpawnRequestSchema, {
    imageRef: context.image_ref ?? "",
    cores: count(context, "cores"),
    memory: count(context, "memory"),
    ports: Object.fromEntries(
      items(context.ports).map((pair) => {
        const [host, container = host] = pair.split(":").map(Number);
        if (!isUint32(host) || !isUint32(container)) {
          throw new Error(`Cannot read ports "${pair}": not HOST:CONTAINER`);
        }
        return [host, container];
      }),
    ),
    labels: Object.fromEntries(
      items(context.labels).map((pair) => {
        const equals = pair.indexOf("=");
        if (equals < 1) throw new Error(`Cannot read labels "${pair}": not KEY=value`);
        return [pair.slice(0, equals), pair.slice(equals + 1)];
      }),
    ),
    env: items(context.env_keys).map((key) => `${key}=`),
    ...(context.runtime !== undefined && { runtime: { name: context.runtime } }),
    policy: context.policy ?? "",
  });
}

function items(text: string | undefined): string[] {
  return (text ?? "").split(",").map((item) => item.trim()).filter((item) => item !== "");
}

function count(context: Record<string, string>, key: string): number {
  const value = Number(context[key] ?? 0);
  if (!isUint32(value)) {
    throw new Error(`Cannot read ${key} "${context[key].slice(0, 64)}": it is not a whole number`);
  }
  return value;
}

function isUint32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff;
}

/** The answer; the longest findings are cut until it fits a packet. */
function message(query: PolicyQuery, context: Record<string, string>): ClusterMessage {
  const { policyType } = query;
  const workloadId = query.workloadId.slice(0, MAX_REASON_LENGTH);
  const found = { ...context };
  for (;;) {
    const answer = create(PolicyQuerySchema, { workloadId, policyType, context: found });
    const message = create(ClusterMessageSchema, {
      event: ClusterEvent.POLICY_QUERY,
      wrappedMessage: anyPack(PolicyQuerySchema, answer),
    });
    const [longest] = Object.keys(found).sort((a, b) => found[b].length - found[a].length);
    const fits = toBinary(ClusterMessageSchema, message).length <= MAX_ANSWER_BYTES;
    if (fits || found[longest].length < 2) return message;
    found[longest] = cutText(found[longest], Math.floor(found[longest].length * 0.75));
  }
}
