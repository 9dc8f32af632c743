import type { PolicyMode } from "./policy.ts";

/** What the metrics count of policies. */
export type PolicyObservation =
  | { kind: "evaluation"; outcome: "admitted" | "refused" | "failed"; durationMs: number }
  /** `rule` without places in lists and tags, so that there are few of them. */
  | { kind: "violation"; rule: string; mode: PolicyMode }
  | { kind: "reload"; outcome: "ok" | "failed" };

/** A rule as it is counted: `rules.node_tags.zone` and `permissions.quotas[3]` without their last part. */
export function ruleFamily(rule: string): string {
  return rule.split(".").slice(0, 2).join(".").replace(/\[.*$/, "");
}
