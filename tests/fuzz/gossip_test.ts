import assert from "node:assert/strict";
import { fuzzGossip } from "./gossip.ts";

Deno.test("a million damaged messages give nothing but the typed decode error", () => {
  const report = fuzzGossip({ seed: 20261124, cases: 1_000_000 });
  assert.ok(report.accepted > 1_000, "the damage is so great that nothing gets past the first check");
  assert.ok(report.refused > 1_000, "the damage is so small that nothing is refused");
});
