import assert from "node:assert/strict";
import { fuzzPolicy } from "./policy.ts";

Deno.test("twenty thousand damaged policies are taken or refused with their place, and none breaks the engine", () => {
  const report = fuzzPolicy({ seed: 20261127, cases: 20_000 });
  assert.ok(report.accepted > 1_000, `the damage is so great that only ${report.accepted} are taken`);
  assert.ok(report.refused > 1_000, `the damage is so small that only ${report.refused} are refused`);
});
