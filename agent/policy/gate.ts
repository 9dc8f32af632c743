import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { NetworkRules } from "../../runtime/network/rules.ts";
import { CAPACITY_RULE, evaluate, type Evaluation } from "./evaluate.ts";
import type { Candidate, PlacementRequest, Violation } from "./facts.ts";
import { MAX_REASONS } from "./limits.ts";
import { type PolicyObservation, ruleFamily } from "./observation.ts";
import { MAX_SPAWN_POLICY_BYTES } from "../workloads/limits.ts";
import type { Policy } from "./policy.ts";
import type { PolicyStore } from "./store.ts";
import { tighten } from "./tighten.ts";

/** What a {@linkcode PolicyGate} works with. */
export interface PolicyGateOptions {
  store: Pick<PolicyStore, "current" | "named" | "parse">;
  /** Id of this node among the candidates. */
  nodeId: string;
  /** All nodes as they are known now, this one among them. */
  candidates: () => readonly Candidate[];
  log: Log;
  /** Milliseconds from anywhere, for durations. */
  elapsedMs: () => number;
  observe?: (observation: PolicyObservation) => void;
}

/** The parts of a spawn request that say which policy it brings. */
export interface PolicyChoice {
  /** Name in the policy folder; empty means none. */
  policy: string;
  /** JSON text; empty means none. */
  policyJson: string;
}

/** A request's own policy. */
export interface ChosenPolicy {
  /** Absent when it brings none. */
  own?: Policy;
  /** Its text; empty when it brings none. */
  policyJson: string;
}

/** What the policies grant a workload. */
export interface Admission {
  /** What narrows its network; absent means nothing. */
  networkRules?: NetworkRules;
}

/**
 * Where policies meet spawns: combines the cluster's policy with the spawn's own, evaluates, counts, logs, and turns
 * refusals into errors. An evaluation that fails refuses, unless the policy says otherwise.
 */
export class PolicyGate {
  readonly #options: PolicyGateOptions;

  constructor(options: PolicyGateOptions) {
    this.#options = options;
  }

  /**
   * The policy a request brings, and its text, which stands for its name from then on: whatever becomes of the file, the
   * workload keeps the policy it was spawned with. Throws `not-found` for a name nobody knows, `invalid` for what is no
   * policy or is too long to travel with a request.
   */
  async choose({ policy: name, policyJson }: PolicyChoice): Promise<ChosenPolicy> {
    const { store } = this.#options;
    if (name === "" && policyJson === "") return { policyJson };
    const { policy, text } = name === "" ? await store.parse(policyJson) : await store.named(name);
    const bytes = new TextEncoder().encode(text).length;
    if (bytes > MAX_SPAWN_POLICY_BYTES) {
      throw new RuntimeError(
        "invalid",
        `Cannot use policy "${policy.name}": it has ${bytes} bytes, a spawn takes ${MAX_SPAWN_POLICY_BYTES}`,
      );
    }
    return { own: policy, policyJson: text };
  }

  /** What is in force for a request with this policy of its own; `undefined` when nothing is. */
  effective(own: Policy | undefined): Policy | undefined {
    const cluster = this.#options.store.current?.policy;
    return cluster === undefined || own === undefined ? cluster ?? own : tighten(cluster, own);
  }

  /** What the policies grant a workload with this policy of its own, judged by nothing else. */
  networkRules(own: Policy | undefined): NetworkRules | undefined {
    return networkRulesOf(this.effective(own));
  }

  /**
   * Whether this node may take the workload. One step without await, so that nothing changes between this and what the
   * caller does next. Throws `denied` when the request itself breaks a rule, `precondition` when this node does, with
   * every reason.
   */
  admit(own: Policy | undefined, request: PlacementRequest): Admission {
    const policy = this.effective(own);
    if (policy === undefined) return {};
    const evaluation = this.#try(policy, () => this.#evaluateHere(policy, request));
    const [refused] = evaluation?.refused ?? [];
    if (refused !== undefined) {
      const error = refusal(policy, refused.reasons, refused.node.name);
      this.#options.log.info("policy refused a workload", { policy: policy.name, reason: error.message });
      throw error;
    }
    const networkRules = networkRulesOf(policy);
    return networkRules === undefined ? {} : { networkRules };
  }

  /**
   * All nodes judged for a request, best first; `undefined` when no policy is in force. When the evaluation fails and the
   * policy says so, every node is as good as another. Throws `failed` otherwise.
   */
  rank(own: Policy | undefined, request: PlacementRequest): Evaluation | undefined {
    const policy = this.effective(own);
    if (policy === undefined) return undefined;
    return this.#try(policy, () => evaluate(policy, request, this.#options.candidates()));
  }

  #evaluateHere(policy: Policy, request: PlacementRequest): Evaluation {
    const { nodeId } = this.#options;
    // Room is the admission ledger's business, which promises it in the same step.
    const nodes = this.#options.candidates().map((node) =>
      node.id === nodeId ? { ...node, capacity: undefined } : node
    );
    const evaluation = evaluate(policy, request, nodes, { only: ({ id }) => id === nodeId });
    if (evaluation.ranked.length + evaluation.refused.length !== 1) {
      throw new Error("this node is not among the candidates");
    }
    return evaluation;
  }

  /** Evaluates, measures and tells; `undefined` when it fails and the policy admits then. */
  #try(policy: Policy, work: () => Evaluation): Evaluation | undefined {
    const { elapsedMs, log, observe } = this.#options;
    const beganMs = elapsedMs();
    try {
      const evaluation = work();
      const isRefused = evaluation.ranked.length === 0;
      observe?.({
        kind: "evaluation",
        outcome: isRefused ? "refused" : "admitted",
        durationMs: elapsedMs() - beganMs,
      });
      this.#tell(evaluation);
      return evaluation;
    } catch (error) {
      observe?.({ kind: "evaluation", outcome: "failed", durationMs: elapsedMs() - beganMs });
      const reason = error instanceof Error ? error.message : String(error);
      log.error("cannot evaluate the policy", {
        policy: policy.name,
        onFailure: policy.onFailure,
        error: reason,
      });
      if (policy.onFailure === "permissive") return undefined;
      throw new RuntimeError("failed", `Cannot evaluate policy "${policy.name}": ${reason}`, {
        cause: error,
      });
    }
  }

  #tell(evaluation: Evaluation): void {
    const { log, observe } = this.#options;
    const tell = ({ rule, reason, policy, advisory }: Violation, node?: string) => {
      observe?.({ kind: "violation", rule: ruleFamily(rule), mode: advisory ? "permissive" : "enforce" });
      if (advisory) {
        log.warn("policy violated", { policy, rule, reason, ...(node !== undefined && { node }) });
      }
    };
    for (const violation of evaluation.request) tell(violation);
    for (const { node, violations } of evaluation.ranked) {
      for (const each of violations) tell(each, node.name);
    }
    for (const { node, violations, reasons } of evaluation.refused) {
      for (const each of violations) tell(each, node.name);
      for (const each of reasons) if (!evaluation.request.includes(each)) tell(each, node.name);
    }
  }
}

/** A permissive policy narrows nothing. */
function networkRulesOf(policy: Policy | undefined): NetworkRules | undefined {
  return policy?.mode === "enforce" ? policy.network : undefined;
}

/** All reasons in one error: `denied` when the request itself is at fault, `precondition` when the node is. */
export function refusal(policy: Policy, reasons: readonly Violation[], node: string): RuntimeError {
  const ofNode = ({ rule }: Violation) => rule.startsWith("rules.") || rule === CAPACITY_RULE;
  const texts = reasons.slice(0, MAX_REASONS).map(({ rule, reason }) => `${rule}: ${reason}`);
  if (reasons.length > MAX_REASONS) texts.push(`and ${reasons.length - MAX_REASONS} more`);
  const code = reasons.every(ofNode) ? "precondition" : "denied";
  return new RuntimeError(
    code,
    `Cannot admit the workload on "${node}": policy "${policy.name}" refuses it: ${texts.join("; ")}`,
  );
}
