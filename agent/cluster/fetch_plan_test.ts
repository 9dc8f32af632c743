import assert from "node:assert/strict";
import { seededRandom } from "../../gossip/random.ts";
import { FetchPlan } from "./fetch_plan.ts";
import {
  FETCH_DELAY_MS,
  FETCH_RETRY_MAX_MS,
  FETCH_SPREAD_MAX_MS,
  FETCH_TIMEOUT_MS,
  MAX_FETCHES,
} from "./limits.ts";

const plan = () => new FetchPlan(seededRandom(1));

Deno.test("a fetch waits for what may be on its way, and is dropped when that comes", () => {
  const fetches = plan();
  fetches.need("a", { nowMs: 0, nodes: 1 });
  assert.deepEqual(fetches.due(FETCH_DELAY_MS - 1), []);
  fetches.satisfied("a");
  assert.deepEqual([fetches.size, fetches.due(60_000)], [0, []]);
  fetches.need("a", { nowMs: 0, nodes: 1_000, soon: true });
  assert.ok(fetches.nextMs() <= FETCH_SPREAD_MAX_MS);
});

Deno.test("there is one fetch a node at a time; what is missed meanwhile is fetched afterwards", () => {
  const fetches = plan();
  fetches.need("a", { nowMs: 0, nodes: 1 });
  assert.deepEqual(fetches.due(1_000), ["a"]);
  fetches.need("a", { nowMs: 1_001, nodes: 1 });
  fetches.satisfied("a");
  assert.deepEqual(fetches.due(2_000), []);
  fetches.done("a", { ok: true, nowMs: 2_000 });
  assert.deepEqual(fetches.due(2_000 + FETCH_DELAY_MS), ["a"]);
  fetches.done("a", { ok: true, nowMs: 3_000 });
  assert.equal(fetches.size, 0);
});

Deno.test("failures make the pauses grow, up to a minute and its half", () => {
  const fetches = plan();
  fetches.need("a", { nowMs: 0, nodes: 1 });
  let nowMs = fetches.nextMs();
  for (let i = 1; i <= 12; i++) {
    assert.deepEqual(fetches.due(nowMs), ["a"]);
    fetches.done("a", { ok: false, nowMs });
    assert.equal(fetches.failures("a"), i);
    const pauseMs = fetches.nextMs() - nowMs;
    assert.ok(pauseMs <= 1.5 * FETCH_RETRY_MAX_MS && (i < 12 || pauseMs >= 0.5 * FETCH_RETRY_MAX_MS));
    nowMs = fetches.nextMs();
  }
});

Deno.test("only so many are under way, and one without an answer counts as failed in the end", () => {
  const fetches = plan();
  for (let i = 0; i < 2 * MAX_FETCHES; i++) fetches.need(`n${i}`, { nowMs: 0, nodes: 1 });
  const [first, ...others] = fetches.due(10_000);
  assert.equal(others.length, MAX_FETCHES - 1);
  assert.equal(fetches.due(10_001).length, 0);
  fetches.drop(first);
  assert.equal(fetches.due(10_002).length, 1);
  assert.equal(fetches.inFlight, MAX_FETCHES);
  fetches.due(10_002 + FETCH_TIMEOUT_MS);
  for (const nodeId of others) assert.equal(fetches.failures(nodeId), 1);
});

Deno.test("of those that are due, whoever was due first is fetched first", () => {
  const fetches = plan();
  for (let i = 0; i < 2 * MAX_FETCHES; i++) fetches.need(`n${i}`, { nowMs: 10_000 - 100 * i, nodes: 1 });
  const expected = Array.from({ length: 2 * MAX_FETCHES }, (_, i) => `n${2 * MAX_FETCHES - 1 - i}`);
  const fetched = fetches.due(20_000);
  for (const nodeId of [...fetched]) fetches.done(nodeId, { ok: true, nowMs: 20_001 });
  assert.deepEqual([...fetched, ...fetches.due(20_002)], expected);
});

Deno.test("when there is room again the next is fetched at once, whichever ended; a sooner need is seen as such", () => {
  const fetches = plan();
  fetches.need("late", { nowMs: 100_000, nodes: 1 });
  const lateMs = fetches.nextMs();
  for (let i = 0; i < MAX_FETCHES; i++) fetches.need(`n${i}`, { nowMs: 1_000 * i, nodes: 1 });
  assert.ok(fetches.nextMs() < lateMs);
  for (let i = 0; i < MAX_FETCHES; i++) assert.deepEqual(fetches.due(1_000 * (i + 1)), [`n${i}`]);
  fetches.need("next", { nowMs: 17_000, nodes: 1 });
  assert.deepEqual(fetches.due(18_000), []);
  assert.equal(fetches.nextMs(), 1_000 + FETCH_TIMEOUT_MS);
  fetches.done(`n${MAX_FETCHES - 1}`, { ok: true, nowMs: 18_001 });
  assert.deepEqual(fetches.due(18_001), ["next"]);
  fetches.done("n0", { ok: true, nowMs: 18_002 });
  assert.deepEqual([fetches.due(18_002), fetches.nextMs()], [[], 2_000 + FETCH_TIMEOUT_MS]);
});

Deno.test("once nothing is missing any more there is nothing to wake for", () => {
  const fetches = plan();
  fetches.need("a", { nowMs: 0, nodes: 1 });
  assert.ok(fetches.nextMs() < Infinity);
  fetches.satisfied("a");
  assert.equal(fetches.nextMs(), Infinity);
  fetches.need("a", { nowMs: 0, nodes: 1 });
  assert.deepEqual(fetches.due(1_000), ["a"]);
  assert.equal(fetches.nextMs(), 1_000 + FETCH_TIMEOUT_MS);
  fetches.done("a", { ok: true, nowMs: 1_001 });
  assert.equal(fetches.nextMs(), Infinity);
});
