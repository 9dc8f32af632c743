import assert from "node:assert/strict";
import { Reputation, type SharedObservation, type Testimony } from "../../agent/beacon/reputation.ts";
import { type Random, seededRandom } from "../../gossip/random.ts";

/** Nodes of a simulated cluster. All are honest but the first `liars`. */
const NODES = 13;
/** Deeds that each node sees of each other: enough for an opinion, little against what liars claim to have seen. */
const DEEDS_SEEN = 30;
/** An honest node's opinion is moved by liars at most this far, as long as they are a minority. */
const BOUND = 0.1;
const START = 0.5;

interface World {
  ids: string[];
  /** How often each keeps its word. */
  quality: Map<string, number>;
  minds: Map<string, Reputation>;
  liars: Set<string>;
}

/** Every fourth node often breaks its word; liars do it as others do, and lie about what they saw. */
function world(random: Random, liars: number): World {
  const ids = Array.from({ length: NODES }, (_, i) => `n${i}`);
  const quality = new Map(ids.map((id, i) => [id, i % 4 === 3 ? 0.3 : 0.97]));
  const minds = new Map(ids.map((id) => [id, new Reputation({ selfId: id })]));
  for (const [observer, mind] of minds) {
    for (const [id, kept] of quality) {
      if (id === observer) continue;
      for (let i = 0; i < DEEDS_SEEN; i++) {
        mind.note(id, random.float() < kept ? "spawn-kept" : "spawn-broken", 0);
      }
    }
  }
  return { ids, quality, minds, liars: new Set(ids.slice(0, liars)) };
}

/** What everybody says: honest nodes what they saw; liars together that they are perfect and the victims worthless. */
function testimonies({ ids, minds, liars }: World, options: { isLying: boolean }): Testimony[] {
  return ids.map((by): Testimony => {
    if (!options.isLying || !liars.has(by)) return { by, observations: minds.get(by)!.share(0) };
    const observations = ids.filter((id) => id !== by).map((nodeId): SharedObservation => ({
      nodeId,
      score: liars.has(nodeId) ? 1_000 : 0,
      weight: 1e9,
    }));
    return { by, observations };
  });
}

/** What one node thinks of all others. */
function opinions(observer: string, mind: Reputation, { ids }: World): Map<string, number> {
  return new Map(ids.filter((id) => id !== observer).map((id) => [id, mind.judge(id, START, 0).score]));
}

/** The largest change that the lies make in what an honest node, or one that saw nothing yet, thinks of anybody. */
function largestMove(random: Random, liars: number): { known: number; newcomer: number; mean: number } {
  const sim = world(random, liars);
  const [truth, lies] = [testimonies(sim, { isLying: false }), testimonies(sim, { isLying: true })];
  const newcomer = new Reputation({ selfId: "newcomer" });
  const moved = (observer: string, mind: Reputation) => {
    mind.hear(truth, 0);
    const before = opinions(observer, mind, sim);
    mind.hear(lies, 0);
    const after = opinions(observer, mind, sim);
    return Math.max(...[...before].map(([id, score]) => Math.abs(score - after.get(id)!)));
  };
  const honest = [...sim.minds].filter(([id]) => !sim.liars.has(id));
  return {
    known: Math.max(...honest.map(([id, mind]) => moved(id, mind))),
    newcomer: moved("newcomer", newcomer),
    mean: Math.max(...sim.ids.map((id) => Math.abs(meanOf(truth, id) - meanOf(lies, id)))),
  };
}

/** What the plain mean of all that is said would make of it. */
function meanOf(said: readonly Testimony[], id: string): number {
  const scores = said.flatMap(({ observations }) => observations.filter(({ nodeId }) => nodeId === id));
  return scores.reduce((sum, { score }) => sum + score / 1_000, 0) / scores.length;
}

Deno.test("a minority of liars that conspire moves nobody's opinion far, where a mean would follow them", () => {
  for (let seed = 1; seed <= 20; seed++) {
    for (const liars of [1, 2, 3, 4]) {
      const { known, newcomer, mean } = largestMove(seededRandom(seed), liars);
      assert.ok(known <= BOUND, `seed ${seed}, ${liars} liars: ${known}`);
      // Who saw nothing itself has only the median to go by, and that stays within what honest nodes saw.
      assert.ok(newcomer <= 2 * BOUND, `seed ${seed}, ${liars} liars: a newcomer by ${newcomer}`);
      if (liars === 4) assert.ok(mean > 2.5 * BOUND, `seed ${seed}: the mean only by ${mean}`);
    }
  }
});

Deno.test("among liars, who keeps its word is still told from who breaks it", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const sim = world(seededRandom(seed), 4);
    const lies = testimonies(sim, { isLying: true });
    for (const [observer, mind] of sim.minds) {
      if (sim.liars.has(observer)) continue;
      mind.hear(lies, 0);
      const thought = opinions(observer, mind, sim);
      const of = (isGood: boolean) =>
        [...thought].filter(([id]) => (sim.quality.get(id)! > 0.5) === isGood).map(([, score]) => score);
      assert.ok(Math.min(...of(true)) > Math.max(...of(false)), `seed ${seed}, ${observer}`);
    }
  }
});

Deno.test("however many they are, liars cannot outweigh what a node saw itself", () => {
  for (const liars of [7, 9, 12]) {
    const { known } = largestMove(seededRandom(1), liars);
    assert.ok(known <= 0.4, `${liars} liars of ${NODES}: ${known}`);
  }
});
