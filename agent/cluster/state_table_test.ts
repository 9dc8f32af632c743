import assert from "node:assert/strict";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { generateKeyPairSync, sign, verify } from "node:crypto";
import { NodeStateResponseSchema, TombstoneSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import {
  HeartbeatSchema,
  type StateUpdate,
  StateUpdateSchema,
} from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { MAX_STATE_WORKLOADS, MAX_STATED_TOMBSTONES, MAX_STATES } from "./limits.ts";
import { OwnState } from "./own_state.ts";
import type { StateSigner, StateVerifier } from "./ports.ts";
import { type Outcome, StateTable } from "./state_table.ts";
import { local, member, workload } from "./testing.ts";

const at = (ms: number) => ({ steadyMs: ms, wallMs: 1_000_000 + ms });
const wire = (update: StateUpdate) => fromBinary(StateUpdateSchema, toBinary(StateUpdateSchema, update));

function pair(options: { signer?: StateSigner; verifier?: StateVerifier } = {}) {
  const node = { id: "a", name: "alpha", ip: "10.0.0.1" };
  const own = new OwnState({ node, agentVersion: "1", incarnation: 7n, signer: options.signer });
  const table = new StateTable({ selfId: "self", verifier: options.verifier });
  table.member(member("a"), 0);
  return { own, table };
}

function applied(outcome: Outcome): string[] {
  assert.equal(
    outcome.kind,
    "applied",
    JSON.stringify(outcome, (_, v) => typeof v === "bigint" ? `${v}` : v),
  );
  return outcome.kind === "applied" ? [...outcome.ids].sort() : [];
}

Deno.test("the table follows its owner by differences, and both come to the same hash", () => {
  const { own, table } = pair();
  for (const update of own.update(local([workload("a1")]), at(0))) {
    applied(table.apply(wire(update), "event"));
  }
  for (const update of own.update(local([workload("a1"), workload("a2")], { tags: { zone: "b" } }), at(1))) {
    assert.deepEqual(applied(table.apply(wire(update), "event")), ["a2"]);
  }
  for (const update of own.update(local([workload("a2")], { tags: { zone: "b" } }), at(2))) {
    assert.deepEqual(applied(table.apply(wire(update), "event")), ["a1"]);
  }
  const state = table.get("a")!.state!;
  assert.deepEqual([...state.workloads.keys()], ["a2"]);
  assert.equal(state.header.tags.zone, "b");
  assert.equal(state.header.node!.name, "alpha");
  assert.equal(table.compare(own.heartbeat()), undefined);
});

Deno.test("a difference to a version that is not here is missing; older and repeated ones are old", () => {
  const { own, table } = pair();
  const [first] = own.update(local([workload("a1")]), at(0));
  const [second] = own.update(local([workload("a2")]), at(1));
  const [third] = own.update(local([workload("a3")]), at(2));
  assert.deepEqual(table.apply(wire(second), "event"), { kind: "missing", since: undefined });
  applied(table.apply(wire(first), "event"));
  assert.deepEqual(table.apply(wire(third), "event"), {
    kind: "missing",
    since: { incarnation: 7n, version: 1n },
  });
  applied(table.apply(wire(own.since({ incarnation: 7n, version: 1n })), "owner"));
  assert.equal(table.apply(wire(second), "event").kind, "old");
  assert.equal(table.apply(wire(third), "event").kind, "old");
  assert.deepEqual([...table.get("a")!.state!.workloads.keys()], ["a3"]);
});

Deno.test("a heartbeat tells what is missing: a difference, or all after a restart and on another hash", () => {
  const { own, table } = pair();
  assert.deepEqual(table.compare(own.heartbeat()), { since: undefined });
  for (const update of own.update(local([workload("a1")]), at(0))) {
    applied(table.apply(wire(update), "event"));
  }
  assert.equal(table.compare(own.heartbeat()), undefined);
  own.update(local([workload("a2")]), at(1));
  assert.deepEqual(table.compare(own.heartbeat()), { since: { incarnation: 7n, version: 1n } });
  const beat = (init: { incarnation: bigint; version: bigint; hash?: bigint }) =>
    create(HeartbeatSchema, { nodeId: "a", hash: 0n, ...init });
  assert.equal(table.compare(beat({ incarnation: 6n, version: 90n })), undefined);
  assert.deepEqual(table.compare(beat({ incarnation: 8n, version: 1n })), { since: undefined });
  assert.deepEqual(table.compare(beat({ incarnation: 7n, version: 1n })), { since: undefined });
});

Deno.test("rule 2a: a new incarnation replaces all that was known, an older one nothing", () => {
  const { own, table } = pair();
  for (const update of own.update(local([workload("a1")]), at(0))) {
    applied(table.apply(wire(update), "event"));
  }
  const old = wire(own.whole());
  own.outbid(9n, 1);
  own.update(local([workload("a2")]), at(2));
  assert.deepEqual(applied(table.apply(wire(own.whole()), "owner")), ["a1", "a2"]);
  assert.equal(table.apply(old, "relay").kind, "old");
});

Deno.test("rule 1c: content that is not what its hash says is believed of its owner alone", () => {
  const { own, table } = pair();
  own.update(local([workload("a1")]), at(0));
  const forged = wire(own.whole());
  forged.state!.workloads[0].generation = 99n;
  assert.equal(table.apply(forged, "relay").kind, "refused");
  assert.deepEqual(table.apply(forged, "event"), { kind: "missing", since: undefined });
  applied(table.apply(forged, "owner"));
});

Deno.test("a signature covers wholes and differences, and holds for a state put together from them", () => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const signer: StateSigner = {
    publicKey: new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    rotations: [],
    sign: (bytes) => sign(null, bytes, privateKey).toString("base64"),
  };
  const verifier: StateVerifier = {
    verify({ bytes, signature }) {
      if (signature === "") return "unsigned";
      return verify(null, bytes, publicKey, new Uint8Array(Uint8Array.fromBase64(signature)))
        ? "verified"
        : { refused: "its signature is not of its owner" };
    },
  };
  const { own, table } = pair({ signer, verifier });
  for (const update of own.update(local([workload("a1")]), at(0))) {
    applied(table.apply(wire(update), "event"));
  }
  const bury = own.bury(create(TombstoneSchema, { id: "t", generation: 1n, stoppedAtMs: 1n }), 1);
  for (const update of bury) applied(table.apply(wire(update), "event"));
  const [change] = own.update(local([workload("a1"), workload("a2")]), at(2));
  const tampered = wire(change);
  tampered.state!.tombstones.push(create(TombstoneSchema, { id: "a1", generation: 9n }));
  assert.equal(table.apply(tampered, "event").kind, "refused");
  applied(table.apply(wire(change), "event"));
  // Another node learns it from this one.
  const other = new StateTable({ selfId: "other", verifier });
  other.member(member("a"), 0);
  for (const update of table.updates()) {
    assert.deepEqual(applied(other.apply(wire(update), "relay")), ["a1", "a2"]);
  }
});

Deno.test("states of who is no member, or of another kind, are refused", () => {
  const { own, table } = pair();
  own.update(local([]), at(0));
  const stranger = wire(own.whole());
  stranger.state!.node!.id = "stranger";
  assert.equal(table.apply(stranger, "event").kind, "refused");
  table.member(member("a", { tags: {} }), 0);
  assert.equal(table.apply(wire(own.whole()), "event").kind, "refused");
  assert.equal(table.apply(create(StateUpdateSchema), "event").kind, "refused");
});

Deno.test("rule 8: a state beyond the limits is refused: workloads, bytes, tombstones, nodes", () => {
  const { own, table } = pair();
  own.update(local([]), at(0));
  const many = wire(own.whole());
  many.state!.workloads = Array.from({ length: MAX_STATE_WORKLOADS + 1 }, (_, i) => workload(`w${i}`));
  assert.match(reason(table.apply(many, "owner")), /workloads/);
  const large = wire(own.whole());
  large.state!.workloads = Array.from(
    { length: 20 },
    (_, i) => workload(`w${i}`, { reason: "x".repeat(1 << 20) }),
  );
  assert.match(reason(table.apply(large, "owner")), /bytes/);
  const buried = wire(own.whole());
  buried.state!.tombstones = Array.from({ length: MAX_STATED_TOMBSTONES + 1 }, () => create(TombstoneSchema));
  assert.match(reason(table.apply(buried, "owner")), /tombstones/);
  for (let i = 1; i < MAX_STATES; i++) table.member(member(`n${i}`), 0);
  assert.equal(table.member(member("one more"), 0), undefined);
});

Deno.test("the state of a Go node is taken whole each time", () => {
  const { table } = pair();
  table.member(member("go", { tags: {} }), 0);
  const state = (ids: string[]) =>
    create(NodeStateResponseSchema, { workloads: ids.map((id) => workload(id)) });
  assert.deepEqual(applied(table.applyForeign("go", state(["g1", "g2"]))), ["g1", "g2"]);
  assert.deepEqual(applied(table.applyForeign("go", state(["g2"]))), ["g1", "g2"]);
  assert.deepEqual([...table.get("go")!.state!.workloads.keys()], ["g2"]);
  assert.deepEqual([...table.updates()], []);
});

function reason(outcome: Outcome): string {
  return outcome.kind === "refused" ? outcome.reason : outcome.kind;
}
