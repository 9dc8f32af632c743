import assert from "node:assert/strict";
import { Slots } from "./slots.ts";

Deno.test("one more than there are slots is refused, and one that is given back makes room once", () => {
  const slots = new Slots("talks", 2);
  const first = slots.take();
  using _second = slots.take();
  assert.throws(() => slots.take(), /^RuntimeError: Cannot open another of talks: 2 are open already$/);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.equal(slots.used, 1);
  using _third = slots.take();
  assert.throws(() => slots.take());
});
