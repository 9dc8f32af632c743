import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { HeartbeatSchema, StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { seededRandom } from "../../gossip/random.ts";
import { Announcer, heartbeatMs } from "./announcer.ts";
import { FOLLOW_UP_MS, HEARTBEAT_MS, MAX_DELTAS, MAX_EVENT_BYTES } from "./limits.ts";
import { OwnState } from "./own_state.ts";
import { local, spawnRequest, workload } from "./testing.ts";
import { GOSSIP } from "./tags.ts";

function announced() {
  const own = new OwnState({ node: { id: "a", name: "a", ip: "" }, agentVersion: "1", incarnation: 7n });
  const announcer = new Announcer({ own, random: seededRandom(1) });
  const change = (restarts: number, nowMs: number) => {
    const updates = own.update(local([workload("w", { restarts })]), { steadyMs: nowMs, wallMs: nowMs });
    return announcer.changed(updates, { nowMs, nodes: 3 });
  };
  return { own, announcer, change };
}

Deno.test("heartbeats keep their number in the cluster when it grows", () => {
  assert.deepEqual([1, 5, 50, 100, 1_000].map(heartbeatMs), [5_000, 5_000, 5_000, 10_000, 100_000]);
});

Deno.test("rule 2b: a change is told at once; a heartbeat follows when nothing else was said for a while", () => {
  const { announcer, change } = announced();
  assert.deepEqual(announcer.tick({ nowMs: 0, nodes: 3 }), []);
  assert.equal(announcer.nextMs(), Infinity);
  assert.deepEqual(change(0, 0).map(({ name }) => name), [GOSSIP.stateDelta]);
  const nextMs = announcer.nextMs();
  assert.ok(nextMs >= 0.9 * HEARTBEAT_MS && nextMs <= HEARTBEAT_MS);
  assert.deepEqual(announcer.tick({ nowMs: nextMs - 1, nodes: 3 }), []);
  const [beat] = announcer.tick({ nowMs: nextMs, nodes: 3 });
  assert.equal(beat.name, GOSSIP.heartbeat);
  assert.equal(fromBinary(HeartbeatSchema, beat.payload).version, 1n);
});

Deno.test("in a large cluster heartbeats follow news, each after twice the time, until they are as rare as there are nodes", () => {
  const own = new OwnState({ node: { id: "a", name: "a", ip: "" }, agentVersion: "1", incarnation: 7n });
  const announcer = new Announcer({ own, random: seededRandom(1) });
  const nodes = 1_000;
  let nowMs = 0;
  const large = "x".repeat(MAX_EVENT_BYTES);
  // By a difference, and by a heartbeat in its place.
  for (const [args, name] of [[[], GOSSIP.stateDelta], [[large], GOSSIP.heartbeat]] as const) {
    const state = local([workload("w", { sourceRequest: spawnRequest({ args: [...args] }) })]);
    const updates = own.update(state, { steadyMs: nowMs, wallMs: nowMs });
    assert.deepEqual(announcer.changed(updates, { nowMs, nodes }).map((event) => event.name), [name]);
    for (const waitMs of [FOLLOW_UP_MS, 2 * FOLLOW_UP_MS, 4 * FOLLOW_UP_MS]) {
      const nextMs = announcer.nextMs();
      assert.ok(nextMs >= nowMs + waitMs && nextMs <= nowMs + 2 * waitMs);
      assert.equal(announcer.tick({ nowMs: nextMs, nodes })[0].name, GOSSIP.heartbeat);
      nowMs = nextMs;
    }
    for (let i = 0; i < 3; i++) {
      const nextMs = announcer.nextMs();
      assert.ok(nextMs >= nowMs + 0.8 * heartbeatMs(nodes) && nextMs <= nowMs + heartbeatMs(nodes));
      assert.equal(announcer.tick({ nowMs: nextMs, nodes })[0].name, GOSSIP.heartbeat);
      nowMs = nextMs;
    }
  }
});

Deno.test("many changes in a row are told as what they come to", () => {
  const { own, announcer, change } = announced();
  let events = 0;
  for (let i = 0; i < 50; i++) events += change(i, i).length;
  assert.equal(events, MAX_DELTAS);
  const toldMs = announcer.nextMs();
  assert.ok(toldMs > 49 && toldMs < 200);
  const [rest] = announcer.tick({ nowMs: toldMs, nodes: 3 });
  const update = fromBinary(StateUpdateSchema, rest.payload);
  assert.deepEqual([update.baseVersion, update.state!.version], [BigInt(MAX_DELTAS), own.at.version]);
  assert.equal(own.at.version, 50n);
});

Deno.test("what fits no event is announced by a heartbeat", () => {
  const { own, announcer, change } = announced();
  change(0, 0);
  const large = local([
    workload("w", { sourceRequest: spawnRequest({ args: ["x".repeat(MAX_EVENT_BYTES)] }) }),
  ]);
  const updates = own.update(large, { steadyMs: 1, wallMs: 1 });
  const events = announcer.changed(updates, { nowMs: 1, nodes: 3 });
  assert.deepEqual(events.map(({ name }) => name), [GOSSIP.heartbeat]);
  for (const { name, payload } of events) assert.ok(name.length + payload.length <= MAX_EVENT_BYTES);
});
