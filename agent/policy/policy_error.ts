import { RuntimeError } from "../../runtime/errors.ts";
import type { Problem } from "./source_text.ts";

/** A policy cannot be used. The message names the first problem; all are in {@linkcode problems}, in order of line. */
export class PolicyError extends RuntimeError {
  /** @param source what the policy is called: a file, or "of the request" */
  constructor(readonly source: string, readonly problems: readonly Problem[], options?: ErrorOptions) {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
    super("invalid", `Cannot use policy "${source}": ${problemText(problems[0])}${more}`, options);
  }
}

/** `line 12, rules.max_latency_ms: must be a number`. */
export function problemText({ line, path, message }: Problem): string {
  const where = [...line === undefined ? [] : [`line ${line}`], ...path === "" ? [] : [path]].join(", ");
  return where === "" ? message : `${where}: ${message}`;
}
