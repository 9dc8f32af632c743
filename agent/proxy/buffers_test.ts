import assert from "node:assert/strict";
import {
  BufferPool,
  LARGE_BUFFER_BYTES,
  MAX_FREE_LARGE,
  MAX_FREE_SMALL,
  SMALL_BUFFER_BYTES,
} from "./buffers.ts";

Deno.test("rule 8: no more free buffers are kept than the limits, and none of another size", () => {
  for (const [bytes, max] of [[SMALL_BUFFER_BYTES, MAX_FREE_SMALL], [LARGE_BUFFER_BYTES, MAX_FREE_LARGE]]) {
    const pool = new BufferPool();
    const take = () => bytes === SMALL_BUFFER_BYTES ? pool.takeSmall() : pool.takeLarge();
    const given = new Set(Array.from({ length: max + 1 }, () => new Uint8Array(bytes)));
    for (const buffer of given) pool.give(buffer);
    pool.give(new Uint8Array(bytes + 1));
    const taken = Array.from({ length: max + 2 }, take);
    assert.equal(taken.filter((buffer) => given.has(buffer)).length, max);
    assert.ok(taken.every(({ length }) => length === bytes));
  }
});
