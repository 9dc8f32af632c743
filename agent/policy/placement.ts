import type { Evaluation } from "./evaluate.ts";

/** What a policy says of a node to whoever chooses one: it may not, or how good it is. */
export type Judgement = { refused: string } | { score: number };

/**
 * The verdicts of an evaluation by node id. Scores are 0 to `scale`; a node that a permissive policy does not like gets
 * `scale` less, so it comes after all that it likes. A node the evaluation did not know is refused.
 */
export function judgements(evaluation: Evaluation, scale: number): (nodeId: string) => Judgement {
  const byId = new Map<string, Judgement>();
  for (const { node, score, violations } of evaluation.ranked) {
    byId.set(node.id, { score: scale * (violations.length > 0 ? score - 1 : score) });
  }
  for (const { node, reasons } of evaluation.refused) {
    byId.set(node.id, {
      refused: [...new Set(reasons)].map(({ policy, rule, reason }) =>
        `policy "${policy}": ${rule}: ${reason}`
      ).join("; "),
    });
  }
  return (nodeId) => byId.get(nodeId) ?? { refused: "the policy has no facts about it" };
}
