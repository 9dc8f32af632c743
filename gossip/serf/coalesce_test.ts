import assert from "node:assert/strict";
import { NO_BYTES } from "../codec/text.ts";
import { TimerHeap } from "../timers.ts";
import { MAX_GATHERED, UserEventCoalescer } from "./coalesce.ts";

Deno.test("rule 8: no more events are gathered than the limit: then they are delivered, whatever the time", () => {
  let delivered = 0;
  const coalescer = new UserEventCoalescer({
    window: { periodMs: 60_000, quiescentMs: 60_000 },
    timers: new TimerHeap(),
    nowMs: () => 0,
    emit: () => void delivered++,
  });
  const take = (n: number) =>
    coalescer.take({ kind: "user", ltime: 1, name: `e${n}`, payload: NO_BYTES, coalesce: true });
  for (let n = 1; n < MAX_GATHERED; n++) take(n);
  assert.equal(delivered, 0);
  take(MAX_GATHERED);
  assert.equal(delivered, MAX_GATHERED);
});
