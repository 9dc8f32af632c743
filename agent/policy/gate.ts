import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { NetworkRules } from "../../runtime/network/rules.ts";
import { CAPACITY_RULE, CORDON_RULE, evaluate, type Evaluation } from "./evaluate.ts";
import type { Candidate, PlacementRequest, Violation } from "./facts.ts";
import { type PolicyObservation, ruleFamily } from "./observation.ts";
import { checkRequest, type Judgement, judgements, refusalText } from "./placement.ts";
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
   * every reason. A dry run admits nothing, so what a permissive policy has against it is counted, and not logged.
   */
  admit(
    own: Policy | undefined,
    request: PlacementRequest,
    { isDryRun = false }: { isDryRun?: boolean } = {},
  ): Admission {
    const policy = this.effective(own);
    if (policy === undefined) return {};
    const evaluation = this.#try(policy, () => this.#evaluateHere(policy, request), {
      isLogged: !isDryRun,
    });
    const [refused] = evaluation?.refused ?? [];
    if (refused !== undefined) {
      const error = refusal(policy, refused.reasons, refused.node.name);
      if (!isDryRun) {
        this.#options.log.info("policy refused a workload", { policy: policy.name, reason: error.message });
      }
      throw error;
    }
    const networkRules = networkRulesOf(policy);
    return networkRules === undefined ? {} : { networkRules };
  }

  /**
   * All nodes judged for a request, once; `undefined` when no policy is in force, or when the evaluation fails and the
   * policy says that then every node is as good as another. Room is not looked at: a node that is asked knows better.
   * Throws `denied` when the request itself breaks a rule, `failed` when the evaluation does and nothing else is said.
   */
  rank(own: Policy | undefined, request: PlacementRequest, nodes: readonly Candidate[]): Ranking | undefined {
    const policy = this.effective(own);
    if (policy === undefined) return undefined;
    const bare = nodes.map((node) => ({ ...node, capacity: undefined }));
    const evaluation = this.#try(policy, () => evaluate(policy, request, bare), { isLogged: false });
    if (evaluation === undefined) return undefined;
    checkRequest(evaluation, { policy, what: request.name ?? request.image });
    return {
      policy,
      judge: judgements(evaluation),
      chosen: (nodeId) => {
        const verdict = evaluation.ranked.find(({ node }) => node.id === nodeId);
        for (const violation of verdict?.violations ?? []) this.#log(violation, verdict?.node.name);
      },
    };
  }

  #evaluateHere(policy: Policy, request: PlacementRequest): Evaluation {
    const { nodeId } = this.#options;
    // Room is the admission ledger's business, which promises it in the same step; whether it is open, its caller's.
    const nodes = this.#options.candidates().map((node) =>
      node.id === nodeId ? { ...node, capacity: undefined, cordoned: false } : node
    );
    const evaluation = evaluate(policy, request, nodes, { only: ({ id }) => id === nodeId });
    if (evaluation.ranked.length + evaluation.refused.length !== 1) {
      throw new Error("this node is not among the candidates");
    }
    return evaluation;
  }

  /** Evaluates, measures and tells; `undefined` when it fails and the policy admits then. */
  #try(
    policy: Policy,
    work: () => Evaluation,
    { isLogged } = { isLogged: true },
  ): Evaluation | undefined {
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
      this.#tell(evaluation, isLogged);
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

  /** Counts what was violated, and logs what was admitted nevertheless. */
  #tell(evaluation: Evaluation, isLogged: boolean): void {
    const { observe } = this.#options;
    const tell = (violation: Violation, node?: string) => {
      const { rule, advisory } = violation;
      observe?.({ kind: "violation", rule: ruleFamily(rule), mode: advisory ? "permissive" : "enforce" });
      if (isLogged) this.#log(violation, node);
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

  #log({ rule, reason, policy, advisory }: Violation, node: string | undefined): void {
    if (!advisory) return;
    this.#options.log.warn("policy violated", { policy, rule, reason, ...(node !== undefined && { node }) });
  }
}

/** What the policies say of all nodes for one request. */
export interface Ranking {
  policy: Policy;
  judge(nodeId: string): Judgement;
  /** The workload runs there: what a permissive policy has against it is logged. */
  chosen(nodeId: string): void;
}

/** A permissive policy narrows nothing. */
function networkRulesOf(policy: Policy | undefined): NetworkRules | undefined {
  return policy?.mode === "enforce" ? policy.network : undefined;
}

/** All reasons in one error: `denied` when the request itself is at fault, `precondition` when the node is. */
export function refusal(policy: Policy, reasons: readonly Violation[], node: string): RuntimeError {
  const ofNode = ({ rule }: Violation) =>
    rule.startsWith("rules.") || rule === CAPACITY_RULE || rule === CORDON_RULE;
  const code = reasons.every(ofNode) ? "precondition" : "denied";
  return new RuntimeError(code, `Cannot admit the workload on "${node}": ${refusalText(policy, reasons)}`);
}
