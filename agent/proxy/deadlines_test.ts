import assert from "node:assert/strict";
import { Deadlines } from "./deadlines.ts";

Deno.test("a deadline passes with its time, but not with time in which the thread was held up", () => {
  let nowMs = 0, passed = 0;
  const deadlines = new Deadlines({ sweepMs: 10, now: () => nowMs });
  deadlines.stop(); // swept by hand
  const sweepAfter = (ms: number) => {
    nowMs += ms;
    deadlines.sweep();
  };
  const watched = { deadlineMs: deadlines.nowMs + 50, onDeadline: () => passed++ };
  deadlines.add(watched);
  sweepAfter(60_000);
  assert.equal(passed, 0);
  for (let sweeps = 0; sweeps < 3; sweeps++) sweepAfter(10);
  assert.equal(passed, 0);
  sweepAfter(10);
  assert.equal(passed, 1);
  watched.deadlineMs = deadlines.nowMs + 50;
  for (let sweeps = 0; sweeps < 6; sweeps++) sweepAfter(10);
  assert.equal(passed, 2);
});
