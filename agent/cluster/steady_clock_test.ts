import assert from "node:assert/strict";
import { MAX_CLOCK_STEP_MS } from "./limits.ts";
import { SteadyClock } from "./steady_clock.ts";

Deno.test("the steady clock follows, but not back and not far at once", () => {
  const clock = new SteadyClock();
  assert.equal(clock.advance(1_000_000.7), 0);
  assert.equal(clock.advance(1_000_100.2), 100);
  assert.equal(clock.advance(900_000), 100);
  assert.equal(clock.advance(900_050), 150);
  assert.equal(clock.advance(9_000_000), 150 + MAX_CLOCK_STEP_MS);
});

Deno.test("a time to wake is never before the time it is for", () => {
  const clock = new SteadyClock();
  clock.advance(1_700_000_000_000.9);
  for (const dueMs of [0, 0.25, 10.0001, 999.999]) {
    const wakeMs = clock.toWallMs(dueMs);
    assert.ok(Number.isInteger(wakeMs));
    assert.ok(wakeMs - 1_700_000_000_000 >= dueMs);
  }
});
