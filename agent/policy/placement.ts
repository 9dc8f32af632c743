import { RuntimeError } from "../../runtime/errors.ts";
import type { Evaluation } from "./evaluate.ts";
import type { Violation } from "./facts.ts";
import { MAX_REASONS } from "./limits.ts";
import type { Policy } from "./policy.ts";

/** What a policy says of a node to whoever chooses one: it may not, or how good it is. */
export type Judgement = { refused: string } | { score: number };

/**
 * The verdicts of an evaluation by node id. Scores are 0 to 1; a node that a permissive policy does not like gets 1 less,
 * so it comes after all that it likes. A node the evaluation did not know is refused.
 */
export function judgements(evaluation: Evaluation): (nodeId: string) => Judgement {
  const byId = new Map<string, Judgement>();
  for (const { node, score, violations } of evaluation.ranked) {
    byId.set(node.id, { score: violations.length > 0 ? score - 1 : score });
  }
  for (const { node, reasons } of evaluation.refused) {
    const texts = [...new Set(reasons)].map(({ policy, rule, reason }) => {
      return `policy "${policy}": ${rule}: ${reason}`;
    });
    byId.set(node.id, { refused: firstOf(texts) });
  }
  return (nodeId) => byId.get(nodeId) ?? { refused: "the policy has no facts about it" };
}

/** Throws `denied` where the request itself breaks a rule, so that no node is at fault. */
export function checkRequest(evaluation: Evaluation, options: { policy: Policy; what: string }): void {
  const refusing = evaluation.request.filter(({ advisory }) => !advisory);
  if (refusing.length === 0) return;
  throw new RuntimeError(
    "denied",
    `Cannot place "${options.what}": ${refusalText(options.policy, refusing)}`,
  );
}

/** Why a policy refuses, in words: `policy "site" refuses it: rules.max_latency_ms: …; …`. */
export function refusalText(policy: Policy, reasons: readonly Violation[]): string {
  const texts = reasons.map(({ rule, reason }) => `${rule}: ${reason}`);
  return `policy "${policy.name}" refuses it: ${firstOf(texts)}`;
}

function firstOf(texts: string[]): string {
  const shown = texts.slice(0, MAX_REASONS);
  if (texts.length > MAX_REASONS) shown.push(`and ${texts.length - MAX_REASONS} more`);
  return shown.join("; ");
}
