import assert from "node:assert/strict";
import {
  HALF_LIFE_MS,
  haveMoved,
  MAX_EVIDENCE,
  MAX_HEARSAY,
  MAX_JUDGED,
  MAX_SHARED_OBSERVATIONS,
  Reputation,
  START_WEIGHT,
  type Testimony,
} from "./reputation.ts";

const reputation = () => new Reputation({ selfId: "me" });

function many(to: Reputation, nodeId: string, deed: Parameters<Reputation["note"]>[1], times: number): void {
  for (let i = 0; i < times; i++) to.note(nodeId, deed, 0);
}

const says = (by: string, nodeId: string, score: number, weight = 100): Testimony => ({
  by,
  observations: [{ nodeId, score, weight }],
});

Deno.test("a node is thought of as it started until it does something", () => {
  const mine = reputation();
  assert.deepEqual(mine.judge("a", 0.7, 0), { score: 0.7, ownWeight: 0, observers: 0 });
  assert.equal(mine.judge("a", NaN, 0).score, 0);
  many(mine, "a", "spawn-kept", START_WEIGHT);
  assert.equal(mine.judge("a", 0.5, 0).score, 0.75);
  many(mine, "b", "spawn-broken", START_WEIGHT / 2);
  assert.equal(mine.judge("b", 0.5, 0).score, 0.25);
});

Deno.test("a long good record does not save who signs what is wrong", () => {
  for (const deed of ["proof-invalid", "contradiction"] as const) {
    const mine = reputation();
    many(mine, "a", "spawn-kept", 10_000);
    assert.equal(mine.judge("a", 1, 0).ownWeight, MAX_EVIDENCE);
    assert.equal(mine.judge("a", 1, 0).score, 1);
    mine.note("a", deed, 0);
    assert.ok(mine.judge("a", 1, 0).score < 0.55);
    mine.note("a", deed, 0);
    assert.ok(mine.judge("a", 1, 0).score < 0.3);
  }
});

Deno.test("what was seen fades, and what a node did itself says nothing to it", () => {
  const mine = reputation();
  many(mine, "a", "spawn-broken", 50);
  const { ownWeight } = mine.judge("a", 0.5, 0);
  assert.equal(mine.judge("a", 0.5, HALF_LIFE_MS).ownWeight, ownWeight / 2);
  assert.ok(mine.judge("a", 0.5, 20 * HALF_LIFE_MS).score > 0.49);
  mine.note("me", "contradiction", 0);
  assert.equal(mine.size, 1);
});

Deno.test("of what others say the weighted median counts, and never for more than its limit", () => {
  const mine = reputation();
  const honest = ["a", "b", "c", "d"].map((by) => says(by, "x", 900));
  mine.hear([...honest, says("e", "x", 0), says("f", "x", 0), says("g", "x", 0)], 0);
  const judged = mine.judge("x", 0.5, 0);
  assert.equal(judged.observers, 7);
  assert.ok(judged.score > 0.6);
  mine.hear([says("a", "x", 900), says("e", "x", 0), says("f", "x", 0)], 0);
  assert.ok(mine.judge("x", 0.5, 0).score < 0.5);
  // A majority of liars is bounded still by what was seen here.
  many(mine, "x", "spawn-kept", MAX_EVIDENCE);
  mine.hear(Array.from({ length: 500 }, (_, i) => says(`l${i}`, "x", 0)), 0);
  const worst = (START_WEIGHT * 0.5 + MAX_EVIDENCE) / (START_WEIGHT + MAX_EVIDENCE + MAX_HEARSAY);
  assert.equal(mine.judge("x", 0.5, 0).score, worst);
});

Deno.test("who speaks of itself, twice, or out of range is not heard", () => {
  const mine = reputation();
  const twice = { by: "a", observations: [0, 1, 2].map(() => ({ nodeId: "x", score: 0, weight: 99 })) };
  mine.hear([says("x", "x", 1_000), twice, says("b", "x", 1_001), says("c", "x", -1), says("me", "x", 0)], 0);
  assert.equal(mine.judge("x", 0.5, 0).observers, 1);
  const long = Array.from({ length: 99 }, (_, i) => ({ nodeId: `n${i}`, score: 0, weight: 9 }));
  mine.hear([{ by: "a", observations: long }], 0);
  assert.equal(mine.judge(`n${MAX_SHARED_OBSERVATIONS - 1}`, 0.5, 0).observers, 1);
  assert.equal(mine.judge(`n${MAX_SHARED_OBSERVATIONS}`, 0.5, 0).observers, 0);
});

Deno.test("the word of who was caught weighs little", () => {
  const mine = reputation();
  many(mine, "liar", "contradiction", 2);
  many(mine, "good", "spawn-kept", 100);
  mine.hear([says("liar", "x", 0), says("liar2", "x", 0), says("good", "x", 1_000)], 0);
  assert.ok(mine.judge("x", 0.5, 0).score > 0.5);
});

Deno.test("the worst is shared first, no more than the limit, and nothing that hardly was seen", () => {
  const mine = reputation();
  for (let i = 0; i < 40; i++) many(mine, `good${i}`, "spawn-kept", 5 + i);
  many(mine, "bad", "spawn-broken", 3);
  mine.note("new", "probe-answered", 0);
  const shared = mine.share(0);
  assert.equal(shared.length, MAX_SHARED_OBSERVATIONS);
  assert.deepEqual(shared.slice(0, 2), [{ nodeId: "bad", score: 0, weight: 6 }, {
    nodeId: "good39",
    score: 1_000,
    weight: 44,
  }]);
});

Deno.test("small changes are not told anew", () => {
  const told = [{ nodeId: "a", score: 900, weight: 100 }, { nodeId: "b", score: 500, weight: 10 }];
  const next = [{ nodeId: "b", score: 510, weight: 19 }, { nodeId: "a", score: 880, weight: 199 }];
  assert.equal(haveMoved(told, next), false);
  assert.equal(haveMoved(told, [{ ...told[0], score: 870 }, told[1]]), true);
  assert.equal(haveMoved(told, [told[0], { ...told[1], weight: 20 }]), true);
  assert.equal(haveMoved(told, [told[0]]), true);
});

Deno.test("no more nodes are judged than the limit", () => {
  const mine = reputation();
  for (let i = 0; i <= MAX_JUDGED; i++) mine.note(`n${i}`, "probe-answered", i);
  assert.equal(mine.size, MAX_JUDGED);
  assert.equal(mine.judge("n0", 0.5, MAX_JUDGED).ownWeight, 0);
});
