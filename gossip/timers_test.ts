import assert from "node:assert/strict";
import { seededRandom } from "./random.ts";
import { type Timer, TimerHeap } from "./timers.ts";

Deno.test("timers run by time, those of one time in the order in which they were set; cancelled ones never", () => {
  const random = seededRandom(7);
  const timers = new TimerHeap();
  const ran: [atMs: number, order: number][] = [];
  const live = new Map<number, Timer>();
  const due: [atMs: number, order: number][] = [];
  let order = 0;
  for (let nowMs = 0; nowMs < 2_000; nowMs += 1 + random.int(3)) {
    for (let i = random.int(6); i > 0; i--) {
      // Few times, so that many are equal; some are fractions, as delays are.
      const atMs = nowMs + random.int(i % 2 === 1 ? 2_000 : 40) / 2;
      const id = order++;
      live.set(id, timers.set(atMs, () => ran.push([atMs, id])));
    }
    for (const [id, timer] of live) {
      // Now and then most go at once.
      if (random.int(10) >= (nowMs % 100 < 3 ? 8 : 1)) continue;
      timer.cancel();
      live.delete(id);
    }
    for (const [id, { atMs }] of live) if (atMs <= nowMs && live.delete(id)) due.push([atMs, id]);
    timers.run(nowMs);
    due.sort(([a, first], [b, second]) => a - b || first - second);
    assert.deepEqual(ran.splice(0), due.splice(0));
    const next = Math.min(...Array.from(live.values(), ({ atMs }) => atMs));
    assert.equal(timers.nextMs, live.size === 0 ? undefined : next);
  }
  assert.ok(order > 1_000);
});

Deno.test("cancelled timers are gone long before their time, however many they are", () => {
  const timers = new TimerHeap();
  let ran = 0;
  for (let i = 0; i < 100; i++) timers.set(i, () => ran++);
  for (let i = 0; i < 10_000; i++) {
    timers.set(600_000 + i, () => assert.fail("it was cancelled")).cancel();
    assert.ok(timers.size <= 250, `${timers.size} are kept`);
  }
  timers.run(100);
  assert.deepEqual([ran, timers.nextMs], [100, undefined]);
});

Deno.test("what a timer sets for the same moment runs in the same go", () => {
  const timers = new TimerHeap();
  const ran: string[] = [];
  timers.set(5, () => {
    ran.push("first");
    timers.set(5, () => ran.push("third"));
  });
  timers.set(5, () => ran.push("second"));
  timers.run(5);
  assert.deepEqual(ran, ["first", "second", "third"]);
  assert.deepEqual([timers.nextMs, timers.size], [undefined, 0]);
});
