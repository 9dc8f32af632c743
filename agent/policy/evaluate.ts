import { RuntimeError } from "../../runtime/errors.ts";
import type { Candidate, PlacementRequest, Violation } from "./facts.ts";
import { MAX_CANDIDATES } from "./limits.ts";
import { type NodeCheck, nodeChecks, spreadChecks } from "./node_rules.ts";
import { type Finding, requestFindings } from "./permission.ts";
import type { Policy } from "./policy.ts";
import { type Scorer, scorer, type ScoreTerm } from "./score.ts";

/** A node that may take the workload. */
export interface RankedNode {
  node: Candidate;
  /** 0 to 1. */
  score: number;
  terms: readonly ScoreTerm[];
  /** What a permissive policy does not like about it. */
  violations: readonly Violation[];
}

/** A node that may not. */
export interface RefusedNode extends RankedNode {
  /** Why; of the request itself too. */
  reasons: readonly Violation[];
}

/** What a policy says of a request. */
export interface Evaluation {
  /** Of the request itself, whatever the node; one that is not advisory refuses it everywhere. */
  request: readonly Violation[];
  /** Best first; empty when the request itself is refused. */
  ranked: readonly RankedNode[];
  /** By name. */
  refused: readonly RefusedNode[];
}

/** Rule of a node that has no room; it refuses whatever the policy's mode. */
export const CAPACITY_RULE = "capacity";
/** Rule of a node that takes no new workloads; whatever the policy's mode, too. */
export const CORDON_RULE = "cordon";

/** Which workloads count against quotas, and which nodes may be left out of the answer. */
export interface EvaluateOptions {
  /** Only these nodes are judged; the others only count for affinity, spread and quotas. All by default. */
  only?: (node: Candidate) => boolean;
}

/**
 * Judges a request and every node for it. Among equals the node with fewer workloads comes first, then the one whose
 * name, then id, sorts first: the same input always gives the same order. In a permissive policy, nodes it does not
 * like come after those it likes. Throws `exhausted` for more than {@linkcode MAX_CANDIDATES} nodes.
 */
export function evaluate(
  policy: Policy,
  request: PlacementRequest,
  nodes: readonly Candidate[],
  options: EvaluateOptions = {},
): Evaluation {
  if (nodes.length > MAX_CANDIDATES) {
    throw new RuntimeError(
      "exhausted",
      `Cannot evaluate policy "${policy.name}": ${nodes.length} nodes, at most ${MAX_CANDIDATES}`,
    );
  }
  const judged = options.only === undefined ? nodes : nodes.filter(options.only);
  const layers = layersOf(policy).map((layer) => new Layer(layer, request, nodes));
  const ofRequest = layers.flatMap((layer) => layer.ofRequest);
  const refusal = ofRequest.filter(({ advisory }) => !advisory);
  const scores = scorer(policy, request, nodes);

  const verdicts = judged.map((node) => {
    const verdict = new Verdict(node, scores);
    for (const layer of layers) layer.judge(verdict);
    addState(verdict, policy, request);
    return verdict;
  });
  if (layers.some((layer) => layer.hasSpread)) {
    const passing = verdicts.filter(({ reasons }) => reasons.length === 0).map(({ node }) => node);
    for (const layer of layers) layer.judgeSpread(verdicts, { all: nodes, passing });
  }
  const ranked: Verdict[] = [];
  const refused: Verdict[] = [];
  for (const verdict of verdicts) {
    if (refusal.length > 0) verdict.reasons.unshift(...refusal);
    (verdict.reasons.length > 0 ? refused : ranked).push(verdict);
  }
  return {
    request: ofRequest,
    ranked: ranked.sort(byRank),
    refused: refused.sort((a, b) => byName(a.node, b.node)),
  };
}

/** The policy and the permissive one that was combined with it. */
export function layersOf(policy: Policy): Policy[] {
  return policy.advisory === undefined ? [policy] : [policy, ...layersOf(policy.advisory)];
}

/** What is found out about a node. Its score is taken apart only where somebody looks: most never do. */
class Verdict implements RefusedNode {
  readonly reasons: Violation[] = [];
  readonly violations: Violation[] = [];
  readonly score: number;
  readonly #scores: Scorer;

  constructor(readonly node: Candidate, scores: Scorer) {
    this.#scores = scores;
    this.score = scores.scoreOf(node);
  }

  get terms(): readonly ScoreTerm[] {
    return this.#scores.termsOf(this.node);
  }
}

/** One policy made ready for one request. */
class Layer {
  readonly ofRequest: readonly Violation[];
  readonly hasSpread: boolean;
  readonly #checks: readonly NodeCheck[];
  readonly #policy: Policy;
  readonly #request: PlacementRequest;

  constructor(policy: Policy, request: PlacementRequest, nodes: readonly Candidate[]) {
    this.#policy = policy;
    this.#request = request;
    this.hasSpread = policy.rules.spread.length > 0;
    const running = () => nodes.flatMap(({ workloads }) => workloads);
    this.ofRequest = requestFindings(policy, request, running).map((finding) => this.#violation(finding));
    this.#checks = nodeChecks(policy, request, nodes);
  }

  judge(verdict: Verdict): void {
    this.#run(this.#checks, verdict);
  }

  judgeSpread(
    verdicts: readonly Verdict[],
    nodes: { all: readonly Candidate[]; passing: readonly Candidate[] },
  ): void {
    const checks = spreadChecks(this.#policy, this.#request, nodes);
    for (const verdict of verdicts) this.#run(checks, verdict);
  }

  #run(checks: readonly NodeCheck[], verdict: Verdict): void {
    for (const check of checks) {
      const finding = check(verdict.node);
      if (finding === undefined) continue;
      const violation = this.#violation(finding);
      (violation.advisory ? verdict.violations : verdict.reasons).push(violation);
    }
  }

  #violation({ rule, reason }: Finding): Violation {
    const { name, mode } = this.#policy;
    return { rule, reason, policy: name, advisory: mode === "permissive" };
  }
}

/** What refuses whatever the rules are. */
function addState({ node, reasons }: Verdict, policy: Policy, request: PlacementRequest): void {
  const { capacity, cordoned, isForeign } = node;
  const add = (reason: string, rule = CAPACITY_RULE) => {
    reasons.push({ rule, reason, policy: policy.name, advisory: false });
  };
  if (cordoned) add("it takes no new workloads", CORDON_RULE);
  if (isForeign && policy.mode === "enforce" && policy.network !== undefined) {
    add("it does not enforce network policies", "network");
  }
  if (capacity === undefined) return;
  if (request.milliCpus > capacity.milliCpus) {
    const left = Math.max(0, capacity.milliCpus) / 1000;
    add(`${request.milliCpus / 1000} vCPUs are asked for, ${left} are left`);
  }
  if (request.memoryBytes > capacity.memoryBytes) {
    const [asked, left] = [request.memoryBytes, capacity.memoryBytes].map(mebibytes);
    add(`${asked} MiB of memory are asked for, ${left} are left`);
  }
}

/** Differences of scores below this are noise of the arithmetic. */
const EPSILON = 1e-9;

function byRank(a: RankedNode, b: RankedNode): number {
  const disliked = Number(a.violations.length > 0) - Number(b.violations.length > 0);
  if (disliked !== 0) return disliked;
  // Rounded first: a tolerance between two of three is no order.
  const better = Math.round(b.score / EPSILON) - Math.round(a.score / EPSILON);
  return better || a.node.workloads.length - b.node.workloads.length || byName(a.node, b.node);
}

function byName(a: Candidate, b: Candidate): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function mebibytes(bytes: number): number {
  return Math.max(0, Math.floor(bytes / 1_048_576));
}
