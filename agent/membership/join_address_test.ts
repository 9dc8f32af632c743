import assert from "node:assert/strict";
import { MAX_JOIN_ADDRESSES, parseJoin } from "./join_address.ts";

Deno.test("rule 8: a join line has no more addresses than the limit", () => {
  const line = (count: number) => Array.from({ length: count }, (_, i) => `n${i}:7946`).join(",");
  assert.equal(parseJoin(line(MAX_JOIN_ADDRESSES)).length, MAX_JOIN_ADDRESSES);
  assert.throws(() => parseJoin(line(MAX_JOIN_ADDRESSES + 1)), /^Error: at most 64 addresses to join$/);
});
