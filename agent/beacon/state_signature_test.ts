import assert from "node:assert/strict";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type StateUpdate, StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { OwnState } from "../cluster/own_state.ts";
import { type Outcome, StateTable } from "../cluster/state_table.ts";
import { local, member, workload } from "../cluster/testing.ts";
import { PinnedPeers } from "./identity_pins.ts";
import { IdentitySigner, PinningVerifier } from "./state_signature.ts";
import { memoryIdentity } from "./testing.ts";

const at = (ms: number) => ({ steadyMs: ms, wallMs: 1_000_000 + ms });
const wire = (update: StateUpdate) => fromBinary(StateUpdateSchema, toBinary(StateUpdateSchema, update));

function verifier(pins = new PinnedPeers(), requireSigned = false) {
  let pinned = 0;
  const own = new PinningVerifier({ pins, requireSigned, nowMs: () => 1, onPinned: () => pinned++ });
  return { verifier: own, pins, pinned: () => pinned };
}

function ownState(identity = memoryIdentity(), options: { isSigned?: boolean; incarnation?: bigint } = {}) {
  const { isSigned = true, incarnation = 7n } = options;
  const node = { id: identity.nodeId, name: "alpha", ip: "10.0.0.1" };
  const signer = isSigned ? new IdentitySigner(identity) : undefined;
  const own = new OwnState({ node, agentVersion: "1", incarnation, signer });
  own.update(local([workload("a1"), workload("a2")], { tags: { zone: "b" } }), at(0));
  return { own, identity };
}

function tableOf(nodeId: string, own: PinningVerifier): StateTable {
  const table = new StateTable({ selfId: "self", verifier: own });
  table.member(member(nodeId), 0);
  return table;
}

function refused(outcome: Outcome): string {
  assert.equal(outcome.kind, "refused");
  return outcome.kind === "refused" ? outcome.reason : "";
}

Deno.test("a signed state is believed and its key pinned; so are the differences that follow", () => {
  const { own, identity } = ownState();
  const check = verifier();
  const table = tableOf(identity.nodeId, check.verifier);
  assert.equal(table.apply(wire(own.whole()), "owner").kind, "applied");
  assert.equal(table.get(identity.nodeId)!.state!.isVerified, true);
  assert.equal(check.pinned(), 1);
  for (const update of own.update(local([workload("a2"), workload("a3")]), at(1))) {
    assert.equal(table.apply(wire(update), "event").kind, "applied");
  }
  assert.equal(check.pinned(), 1);
});

Deno.test("no bit of a signed state can be changed on its way", () => {
  const { own, identity } = ownState();
  const genuine = toBinary(StateUpdateSchema, own.whole());
  assert.equal(
    tableOf(identity.nodeId, verifier().verifier).apply(fromBinary(StateUpdateSchema, genuine), "owner").kind,
    "applied",
  );
  let taken = 0;
  for (let i = 0; i < genuine.length * 8; i++) {
    const forged = genuine.slice();
    forged[i >> 3] ^= 1 << (i & 7);
    let update: StateUpdate;
    try {
      update = fromBinary(StateUpdateSchema, forged);
    } catch {
      continue; // no message at all
    }
    const table = tableOf(identity.nodeId, verifier(new PinnedPeers(), true).verifier);
    if (table.apply(update, "owner").kind !== "applied") continue;
    // What is not of the state itself may differ: the hash beside it, and what nobody reads.
    const state = table.get(identity.nodeId)!.state!;
    assert.deepEqual([...state.workloads.keys()], ["a1", "a2"], `bit ${i}`);
    assert.equal(state.header.tags.zone, "b", `bit ${i}`);
    assert.equal(state.header.node!.name, "alpha", `bit ${i}`);
    taken++;
  }
  assert(taken < genuine.length, `${taken} changed messages were taken`);
});

Deno.test("another key for a known id is refused, unless the old one leads to it", () => {
  const { own, identity } = ownState();
  const check = verifier();
  const table = tableOf(identity.nodeId, check.verifier);
  assert.equal(table.apply(wire(own.whole()), "owner").kind, "applied");

  // Somebody else's key under this id.
  const other = memoryIdentity();
  const impostor = { ...other, nodeId: identity.nodeId, publicKey: other.publicKey, rotations: [] };
  const forged = ownState(impostor, { incarnation: 8n }).own.whole();
  assert.match(refused(table.apply(wire(forged), "owner")), /key/);

  const before = wire(ownState(identity, { incarnation: 9n }).own.whole());
  identity.rotate(5);
  const rotated = ownState(identity, { incarnation: 10n }).own.whole();
  assert.equal(table.apply(wire(rotated), "owner").kind, "applied");
  assert.equal(check.pinned(), 2);
  // A thief of the old key comes too late.
  before.state!.incarnation = 11n;
  assert.equal(table.apply(before, "owner").kind, "refused");
});

Deno.test("an id that is not of its first key is refused", () => {
  const other = memoryIdentity();
  const impostor = { ...other, nodeId: memoryIdentity().nodeId, publicKey: other.publicKey, rotations: [] };
  const table = tableOf(impostor.nodeId, verifier().verifier);
  assert.match(refused(table.apply(wire(ownState(impostor).own.whole()), "owner")), /id does not belong/);
});

Deno.test("an unsigned state is taken as such, refused where signatures are a must, or from whom signed before", () => {
  const { own, identity } = ownState(memoryIdentity(), { isSigned: false });
  const table = tableOf(identity.nodeId, verifier().verifier);
  assert.equal(table.apply(wire(own.whole()), "owner").kind, "applied");
  assert.equal(table.get(identity.nodeId)!.state!.isVerified, false);

  const strict = tableOf(identity.nodeId, verifier(new PinnedPeers(), true).verifier);
  assert.match(refused(strict.apply(wire(own.whole()), "owner")), /not signed/);

  const check = verifier();
  const later = tableOf(identity.nodeId, check.verifier);
  assert.equal(later.apply(wire(ownState(identity).own.whole()), "owner").kind, "applied");
  const downgraded = ownState(identity, { isSigned: false, incarnation: 8n }).own.whole();
  assert.match(refused(later.apply(wire(downgraded), "owner")), /has signed before/);
});

Deno.test("an older state, signed as it was, does not come back", () => {
  const { own, identity } = ownState();
  const table = tableOf(identity.nodeId, verifier().verifier);
  const old = wire(own.whole());
  assert.equal(table.apply(old, "owner").kind, "applied");
  own.update(local([workload("a1")]), at(1));
  assert.equal(table.apply(wire(own.whole()), "owner").kind, "applied");
  assert.equal(table.apply(old, "owner").kind, "old");
});
