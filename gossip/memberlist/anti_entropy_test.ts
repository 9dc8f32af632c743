import assert from "node:assert/strict";
import { seededRandom } from "../random.ts";
import { TimerHeap } from "../timers.ts";
import { AntiEntropy } from "./anti_entropy.ts";
import { PROFILES } from "./config.ts";
import type { Context } from "./context.ts";

/** An AntiEntropy of a cluster of `size` nodes, its clock, and the times of its exchanges. */
function setUp(size: number) {
  const timers = new TimerHeap();
  const ctx = { nowMs: 0, random: seededRandom(1), config: PROFILES.lan, timers, table: { size } };
  const times: number[] = [];
  let exchanged = () => {};
  const antiEntropy = new AntiEntropy(ctx as unknown as Context, () => {
    times.push(ctx.nowMs);
    exchanged();
  });
  antiEntropy.start();
  const advance = (untilMs: number) => {
    for (let next = timers.nextMs; next !== undefined && next <= untilMs; next = timers.nextMs) {
      ctx.nowMs = next;
      timers.run(next);
    }
    ctx.nowMs = untilMs;
  };
  const change = (times: number) => {
    for (let i = 0; i < times; i++) antiEntropy.changed();
  };
  return { times, advance, change, whenExchanged: (run: () => void) => exchanged = run };
}

Deno.test("push/pulls come at their scaled interval while little changes", () => {
  const { times, advance, change } = setUp(100);
  for (let minute = 1; minute <= 10; minute++) {
    advance(minute * 60_000);
    change(3);
  }
  assert.ok(times.length >= 6 && times.length <= 7, `${times.length} within ten minutes, every 90 s`);
});

Deno.test("much change brings push/pulls within seconds, until one of them brings nothing", () => {
  const { times, advance, change } = setUp(100);
  advance(100_000);
  const before = times.length;
  change(40);
  advance(110_000);
  const [first, second] = times.slice(before);
  assert.equal(times.length, before + 2, "one for the change, and one after which nothing changed");
  assert.ok(first >= 100_500 && first <= 101_600 && second - first <= 1_600, `${first}, ${second}`);
});

Deno.test("while each early push/pull brings something, the next one follows soon", () => {
  const { times, advance, change, whenExchanged } = setUp(100);
  advance(100_000);
  const before = times.length;
  let rounds = 0;
  whenExchanged(() => change(++rounds <= 4 ? 1 : 0));
  change(40);
  advance(120_000);
  assert.equal(times.length, before + 6);
});
