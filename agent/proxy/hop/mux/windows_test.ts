import assert from "node:assert/strict";
import { seededRandom } from "../../../../gossip/random.ts";
import { INITIAL_WINDOW_BYTES } from "./frames.ts";
import { MAX_GROWTH_BYTES, MAX_WINDOW_BYTES, ReceiveWindow, WindowBudget } from "./windows.ts";

/** Time that stands still: whatever is read is read within a round trip. */
const FAST = { now: () => 0, roundTripMs: 1 };
/** No time in which a window could be tight. */
const SLOW = { now: () => 0, roundTripMs: 0 };
const HALF = INITIAL_WINDOW_BYTES / 2;

/** Lets all that may be sent be sent and read until the window grows no more; how large it is then. */
function growAll(window: ReceiveWindow): number {
  let allowed = INITIAL_WINDOW_BYTES;
  for (;;) {
    assert.ok(window.take(allowed));
    const raise = window.consume(allowed, true, FAST);
    if (raise === allowed) return allowed;
    allowed = raise;
  }
}

Deno.test("a sender is told of what has been read when it is half of what it may send, and not before", () => {
  const window = new ReceiveWindow(new WindowBudget(), 0);
  assert.ok(window.take(INITIAL_WINDOW_BYTES));
  assert.equal(window.consume(HALF - 1, false, FAST), 0);
  assert.equal(window.consume(1, false, FAST), HALF);
  assert.equal(window.consume(HALF, true, SLOW), HALF);
});

Deno.test("a sender that sends a byte more than it may is noticed, before and after it was told of more", () => {
  const window = new ReceiveWindow(new WindowBudget(), 0);
  assert.ok(window.take(INITIAL_WINDOW_BYTES));
  window.consume(HALF, false, SLOW);
  assert.ok(window.take(HALF));
  assert.equal(window.take(1), false);
});

Deno.test("a window grows while its reader keeps up within two round trips, and only then", () => {
  let nowMs = 0;
  const timing = { now: () => nowMs, roundTripMs: 10 };
  const raiseAfter = (ms: number, isEmpty: boolean) => {
    const window = new ReceiveWindow(new WindowBudget(), nowMs);
    window.take(HALF);
    nowMs += ms;
    return window.consume(HALF, isEmpty, timing);
  };
  assert.equal(raiseAfter(19, true), HALF + INITIAL_WINDOW_BYTES);
  assert.equal(raiseAfter(20, true), HALF);
  assert.equal(raiseAfter(19, false), HALF);
  const window = new ReceiveWindow(new WindowBudget(), nowMs);
  nowMs += 20;
  window.take(INITIAL_WINDOW_BYTES);
  assert.equal(window.consume(HALF, true, timing), HALF);
  nowMs += 19;
  assert.equal(window.consume(HALF, true, timing), HALF + INITIAL_WINDOW_BYTES);
});

Deno.test("what may be sent, is unread, or is not told of yet is the window, so that a sender never waits for nothing", () => {
  const random = seededRandom(7);
  const budget = new WindowBudget();
  const window = new ReceiveWindow(budget, 0);
  let allowed = INITIAL_WINDOW_BYTES, unread = 0, untold = 0;
  for (let step = 0; step < 10_000; step++) {
    const sent = 1 + random.int(allowed);
    assert.ok(window.take(sent));
    allowed -= sent;
    unread += sent;
    const read = 1 + random.int(unread);
    unread -= read;
    untold += read;
    const raise = window.consume(read, unread === 0, random.float() < 0.5 ? FAST : SLOW);
    allowed += raise;
    if (raise > 0) untold = 0;
    const bytes = INITIAL_WINDOW_BYTES + MAX_GROWTH_BYTES - budget.leftBytes;
    assert.equal(allowed + unread + untold, bytes);
    if (unread === 0) assert.ok(allowed > bytes / 2);
  }
  assert.equal(window.take(allowed + 1), false);
});

Deno.test("rule 8: one window grows to the limit and no further", () => {
  const budget = new WindowBudget();
  assert.equal(growAll(new ReceiveWindow(budget, 0)), MAX_WINDOW_BYTES);
  assert.equal(MAX_GROWTH_BYTES - budget.leftBytes, MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES);
});

Deno.test("rule 8: all windows together grow to the limit; one that closes gives back what it had, once", () => {
  const budget = new WindowBudget();
  const growthBytes = MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES;
  const windows = Array.from({ length: Math.ceil(MAX_GROWTH_BYTES / growthBytes) + 2 }, () => {
    return new ReceiveWindow(budget, 0);
  });
  const bytes = windows.map(growAll);
  assert.equal(budget.leftBytes, 0);
  const initial = windows.length * INITIAL_WINDOW_BYTES;
  assert.equal(bytes.reduce((sum, each) => sum + each), initial + MAX_GROWTH_BYTES);
  assert.equal(bytes.at(-1), INITIAL_WINDOW_BYTES);
  windows[0].close();
  windows[0].close();
  assert.equal(budget.leftBytes, growthBytes);
  assert.equal(growAll(new ReceiveWindow(budget, 0)), MAX_WINDOW_BYTES);
  for (const window of windows) window.close();
  assert.equal(budget.leftBytes, MAX_GROWTH_BYTES - growthBytes);
});
