import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { CommonStates } from "./common_states.ts";
import { local, START_MS, workload } from "./testing.ts";
import { OwnState } from "./own_state.ts";

function delta() {
  const node = { id: "a", name: "alpha", ip: "10.0.0.1" };
  const own = new OwnState({ node, agentVersion: "1", incarnation: 7n });
  own.update(local([workload("a1")]), { steadyMs: 0, wallMs: START_MS });
  return own.update(local([]), { steadyMs: 1, wallMs: START_MS })[0];
}

Deno.test("what an update leads to is found out once from one state, and anew from another", () => {
  const common = new CommonStates();
  const update = delta();
  const base = { incarnation: 7n, version: 1n, hash: 5n };
  let found = 0;
  const from = (at: typeof base | undefined) => common.next(update, at, () => `reason ${++found}`);
  assert.equal(from(base), "reason 1");
  assert.equal(from({ ...base }), "reason 1");
  const others = [{ ...base, hash: 6n }, { ...base, version: 2n }, { ...base, incarnation: 8n }, undefined];
  assert.deepEqual(others.map(from), ["reason 2", "reason 3", "reason 4", "reason 5"]);
});

Deno.test("a message is decoded once for all who have the same bytes; what is none is refused each time", () => {
  const common = new CommonStates();
  const payload = toBinary(StateUpdateSchema, delta());
  assert.equal(common.update(payload), common.update(payload));
  assert.notEqual(common.update(payload), common.update(payload.slice()));
  assert.deepEqual(common.update(payload), common.update(payload.slice()));
  const junk = new Uint8Array([255, 255]);
  for (let i = 0; i < 2; i++) {
    assert.throws(() => common.update(junk));
    assert.throws(() => common.heartbeat(junk));
  }
});

Deno.test("a state is made ready to be passed on once", () => {
  const common = new CommonStates();
  const [one, other] = [{}, {}];
  const make = () => create(StateUpdateSchema);
  assert.equal(common.passedOn(one, make), common.passedOn(one, make));
  assert.notEqual(common.passedOn(one, make), common.passedOn(other, make));
});
