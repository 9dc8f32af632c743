import assert from "node:assert/strict";
import { MAX_JSON_DEPTH, parseStrictJson } from "./strict_json.ts";

Deno.test("rule 8: JSON that is nested deeper than the limit is refused", () => {
  const nested = (depth: number) => new TextEncoder().encode("[".repeat(depth) + "]".repeat(depth));
  parseStrictJson(nested(MAX_JSON_DEPTH));
  assert.throws(() => parseStrictJson(nested(MAX_JSON_DEPTH + 1)), /^Error: it is nested deeper than 32$/);
});
