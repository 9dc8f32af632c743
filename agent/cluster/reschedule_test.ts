import assert from "node:assert/strict";
import { seededRandom } from "../../gossip/random.ts";
import {
  DEATH_SETTLE_MS,
  MAX_RESCHEDULES,
  QUORUM_LOOK_MS,
  RESCHEDULE_APPEAR_MS,
  RESCHEDULE_RETRY_MAX_MS,
  RESCHEDULE_TIMEOUT_MS,
  TAKEOVER_MS,
} from "./limits.ts";
import { Rendezvous } from "./rendezvous.ts";
import { Rescheduler, type RescheduleView } from "./reschedule.ts";

const NODES = ["a", "b", "c", "d", "e"];

/** A world in which node "dead" died at time zero with these ids. */
function scene(selfId: string, ids: string[], view: Partial<RescheduleView> = {}, isEnabled = true) {
  const lost = new Set(ids);
  const rescheduler = new Rescheduler({
    selfId,
    isEnabled,
    random: seededRandom(1),
    view: {
      lost: (id) => lost.has(id) ? { id, from: "dead", deadMs: 0, generation: 4n } : undefined,
      canStart: () => true,
      isTrusted: () => false,
      line: () => new Rendezvous(NODES),
      isAllowed: () => true,
      ...view,
    },
  });
  for (const id of ids) rescheduler.check(id, 0);
  return { lost, rescheduler };
}

const order = (id: string) => new Rendezvous(NODES).first(id, NODES.length);

Deno.test("rule 3b: the first in line starts it with the next generation, when the death has settled", () => {
  const { rescheduler } = scene(order("w")[0], ["w"]);
  assert.equal(rescheduler.nextMs(), DEATH_SETTLE_MS);
  assert.deepEqual(rescheduler.due(DEATH_SETTLE_MS - 1), []);
  const [action] = rescheduler.due(DEATH_SETTLE_MS);
  assert.ok(action.kind === "start" && action.generation === 5n && action.lost.from === "dead");
  assert.deepEqual(rescheduler.due(DEATH_SETTLE_MS + 1), []);
});

Deno.test("rule 4b: the k-th takes over after k times the takeover time; from the fourth on nobody does", () => {
  for (const k of [1, 2]) {
    const { rescheduler } = scene(order("w")[k], ["w"]);
    assert.deepEqual(rescheduler.due(DEATH_SETTLE_MS + k * TAKEOVER_MS - 1), []);
    assert.equal(rescheduler.due(DEATH_SETTLE_MS + k * TAKEOVER_MS).length, 1);
  }
  assert.equal(scene(order("w")[3], ["w"]).rescheduler.size, 0);
  const trusted = scene(order("w")[3], ["w"], { isTrusted: () => true });
  assert.equal(trusted.rescheduler.due(DEATH_SETTLE_MS + 3 * TAKEOVER_MS).length, 1);
});

Deno.test("rule 4c: nobody acts once there is a live copy, or when it is off", () => {
  const { lost, rescheduler } = scene(order("w")[1], ["w"]);
  lost.clear();
  assert.deepEqual(rescheduler.due(60_000), []);
  assert.equal(rescheduler.size, 0);
  const off =
    scene(order("w")[0], [], { lost: () => ({ id: "w", from: "dead", deadMs: 0, generation: 1n }) }, false)
      .rescheduler;
  off.check("w", 0);
  assert.equal(off.size, 0);
});

Deno.test("a failed start is tried again, with growing pauses, and sooner when there may be room", () => {
  const { rescheduler } = scene(order("w")[0], ["w"]);
  let nowMs = DEATH_SETTLE_MS;
  let pauseMs = 0;
  for (let i = 0; i < 10; i++) {
    assert.equal(rescheduler.due(nowMs).length, 1);
    rescheduler.done("w", { generation: 5n, ok: false, nowMs });
    pauseMs = rescheduler.nextMs() - nowMs;
    nowMs = rescheduler.nextMs();
  }
  assert.ok(pauseMs >= RESCHEDULE_RETRY_MAX_MS / 2 && pauseMs <= 1.5 * RESCHEDULE_RETRY_MAX_MS);
  rescheduler.due(nowMs);
  rescheduler.done("w", { generation: 5n, ok: false, nowMs });
  rescheduler.nudge(nowMs);
  assert.ok(rescheduler.nextMs() - nowMs <= 3_000);
});

Deno.test("failures are remembered while a copy comes and goes, so that nothing spins", () => {
  const { lost, rescheduler } = scene(order("w")[0], ["w"]);
  for (let i = 0; i < 8; i++) {
    const nowMs = rescheduler.nextMs();
    rescheduler.due(nowMs);
    lost.delete("w");
    rescheduler.check("w", nowMs);
    rescheduler.done("w", { generation: 5n, ok: false, nowMs });
    lost.add("w");
    rescheduler.check("w", nowMs);
  }
  assert.ok(rescheduler.nextMs() > 60_000);
});

Deno.test("one that succeeded and does not appear is tried again", () => {
  const { rescheduler } = scene(order("w")[0], ["w"]);
  rescheduler.due(DEATH_SETTLE_MS);
  rescheduler.done("w", { generation: 5n, ok: true, nowMs: 2_000 });
  assert.equal(rescheduler.nextMs(), 2_000 + RESCHEDULE_APPEAR_MS);
  assert.equal(rescheduler.due(2_000 + RESCHEDULE_APPEAR_MS).length, 1);
});

Deno.test("only so many are under way at once; one without an answer gives its place up in the end", () => {
  const ids = Array.from({ length: 60 }, (_, i) => `w${i}`);
  const mine = ids.filter((id) => order(id)[0] === "a");
  assert.ok(mine.length > MAX_RESCHEDULES);
  const { rescheduler } = scene("a", mine);
  assert.equal(rescheduler.due(DEATH_SETTLE_MS).length, MAX_RESCHEDULES);
  assert.equal(rescheduler.due(DEATH_SETTLE_MS + 1).length, 0);
  assert.equal(rescheduler.underWay, MAX_RESCHEDULES);
  rescheduler.due(DEATH_SETTLE_MS + RESCHEDULE_TIMEOUT_MS);
  assert.ok(rescheduler.due(DEATH_SETTLE_MS + RESCHEDULE_TIMEOUT_MS + 1).length + rescheduler.underWay > 0);
});

Deno.test("takeover times are counted from when a majority was heard, so that only the first in line acts then", () => {
  let isAllowed = false;
  const { rescheduler } = scene(order("w")[1], ["w"], { isAllowed: () => isAllowed });
  let nowMs = DEATH_SETTLE_MS;
  for (; nowMs < 3 * TAKEOVER_MS; nowMs += QUORUM_LOOK_MS) assert.deepEqual(rescheduler.due(nowMs), []);
  isAllowed = true;
  assert.deepEqual(rescheduler.due(nowMs), []);
  assert.deepEqual(rescheduler.due(nowMs + TAKEOVER_MS - 1), []);
  assert.equal(rescheduler.due(nowMs + TAKEOVER_MS).length, 1);
});

Deno.test("without a quorum it waits, without the request it says so once", () => {
  let isAllowed = false;
  const { rescheduler } = scene(order("w")[0], ["w"], { isAllowed: () => isAllowed });
  assert.deepEqual(rescheduler.due(DEATH_SETTLE_MS), []);
  isAllowed = true;
  assert.equal(rescheduler.due(rescheduler.nextMs()).length, 1);
  const blind = scene(order("w")[0], ["w"], { canStart: () => false }).rescheduler;
  assert.deepEqual(blind.due(DEATH_SETTLE_MS).map(({ kind }) => kind), ["cannot"]);
  assert.deepEqual(blind.due(blind.nextMs()), []);
});
