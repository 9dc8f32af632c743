import assert from "node:assert/strict";
import type { Outcome } from "./live_agent.ts";

/** Asserts that a command said in one line why it will not, printed nothing else, and ended with this code. */
export function assertRefused(outcome: Outcome, expected: { code: number; message: RegExp }): void {
  assert.equal(outcome.code, expected.code, outcome.err + outcome.out);
  assert.equal(outcome.out, "");
  assert.match(outcome.err, expected.message);
  assert.match(outcome.err, /^hypercore: [^\n]+\n$/, "one line");
}
