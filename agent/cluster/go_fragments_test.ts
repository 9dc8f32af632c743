import assert from "node:assert/strict";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  BeaconMetadataSchema,
  NodeStateResponseSchema,
  type WorkloadState,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { seededRandom } from "../../gossip/random.ts";
import {
  decodeFragment,
  encodeFragments,
  type Fragment,
  FRAGMENT_BYTES,
  FRAGMENT_WORKLOADS,
  FragmentAssembler,
  MAX_BROADCASTING_NODES,
  MAX_BROADCASTS_PER_NODE,
  MAX_FRAGMENTS,
  MAX_PROVEN_WORKLOADS,
  REASSEMBLY_MS,
} from "./go_fragments.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { signBody } from "../proof/entry.ts";
import { proofMessage, verifyMessage } from "../proof/message.ts";
import { firstBody } from "../proof/testing.ts";
import { EVENT_OVERHEAD_BYTES, MAX_EVENT_BYTES, MAX_STATE_WORKLOADS } from "./limits.ts";
import { GOSSIP } from "./tags.ts";
import { spawnRequest, workload } from "./testing.ts";

const UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

function fragments(workloads: WorkloadState[], uuid = UUID): Fragment[] {
  return encodeFragments({ name: "alpha", uuid, workloads }).map((payload) => {
    const fragment = decodeFragment(payload);
    if (fragment instanceof Error) throw fragment;
    return fragment;
  });
}

const many = (count: number) => Array.from({ length: count }, (_, i) => workload(`w${i}`));

Deno.test("a few workloads are one complete fragment, none too; more are begin, parts and finish of ten", () => {
  assert.deepEqual(fragments([]).map(({ kind }) => kind), ["complete"]);
  assert.deepEqual(fragments(many(10)).map(({ kind }) => kind), ["complete"]);
  assert.deepEqual(fragments(many(11)).map(({ kind }) => kind), ["begin", "finish"]);
  const all = fragments(many(35));
  assert.deepEqual(all.map(({ kind }) => kind), ["begin", "part", "part", "finish"]);
  assert.deepEqual(all.map(({ state }) => state.workloads.length), [FRAGMENT_WORKLOADS, 10, 10, 5]);
  assert.equal(all[1].state.node!.ip, `${UUID}_part`);
});

Deno.test("fragments fit an event, whatever is in them; what fits none is left out", () => {
  const long = many(12).map((each, i) => {
    return workload(each.id, { sourceRequest: spawnRequest({ imageRef: "x".repeat(100 + 60 * i) }) });
  });
  const huge = workload("huge", { sourceRequest: spawnRequest({ imageRef: "x".repeat(5_000) }) });
  const beacon = create(BeaconMetadataSchema, {
    beaconNodeId: "b".repeat(64),
    nodeSignature: new Uint8Array(64),
  });
  const payloads = encodeFragments({ name: "alpha", uuid: UUID, workloads: [...long, huge], beacon });
  assert.ok(payloads.length > 2);
  for (const payload of payloads) assert.ok(payload.length <= FRAGMENT_BYTES, `${payload.length}`);
  const ids = payloads.flatMap((payload) =>
    fromBinary(NodeStateResponseSchema, payload).workloads.map(({ id }) => id)
  );
  assert.deepEqual(ids, long.map(({ id }) => id));
});

Deno.test("proofs travel in fragments that fit a user event, and verify on the other side; with many workloads they stay", () => {
  const identity = memoryIdentity();
  const beacon = create(BeaconMetadataSchema, {
    beaconNodeId: identity.nodeId,
    nodeSignature: new Uint8Array(64),
    nodeCapabilities: Array.from({ length: 20 }, (_, i) => `runtime:number-${i}`),
  });
  const proven = (count: number, imageRef = "example/web:1") =>
    Array.from({ length: count }, (_, i) => {
      const id = `${i}`.padStart(12, "0");
      // Figures as long as they get.
      const body = firstBody(identity.nodeId, {
        workload: id,
        io_read_bytes: 2 ** 52,
        io_write_bytes: 2 ** 52,
      });
      const proof = proofMessage(signBody(body, identity));
      return workload(id, { proof, sourceRequest: spawnRequest({ imageRef, env: ["KEY=***"] }) });
    });
  const payloads = (workloads: WorkloadState[]) => {
    const all = encodeFragments({ name: "a".repeat(64), uuid: UUID, workloads, beacon });
    for (const { length } of all) {
      assert.ok(length + GOSSIP.stateBroadcast.length + EVENT_OVERHEAD_BYTES <= MAX_EVENT_BYTES, `${length}`);
    }
    return all.flatMap((payload) => fromBinary(NodeStateResponseSchema, payload).workloads);
  };
  const told = payloads(proven(12));
  assert.equal(told.length, 12);
  for (const { id, proof } of told) {
    assert.ok("body" in verifyMessage(proof!, { claim: identity, workload: id }));
  }
  const long = payloads(proven(2, "x".repeat(800)));
  assert.deepEqual(long.map(({ proof }) => proof), [undefined, undefined]);
  const many = payloads(proven(MAX_PROVEN_WORKLOADS + 1));
  assert.deepEqual([many.length, many.filter(({ proof }) => proof !== undefined).length], [
    MAX_PROVEN_WORKLOADS + 1,
    0,
  ]);
});

Deno.test("fragments hold the original's fields and nothing more", () => {
  const [fragment] = fragments([workload("w", { url: "http://w", restarts: 3, requestIsCut: true })]);
  assert.deepEqual(fragment.state.workloads, [
    workload("w", { status: "", generation: 0n, createdAtMs: 0n, sourceRequest: spawnRequest() }),
  ]);
});

Deno.test("a broadcast is put together again, in whatever order its fragments come", () => {
  const all = fragments(many(35));
  for (const order of [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 1, 3, 0]]) {
    const assembler = new FragmentAssembler();
    let last: ReturnType<FragmentAssembler["take"]>;
    for (const i of order) last = assembler.take(all[i], 0) ?? last;
    assert.ok(last !== undefined && !(last instanceof Error));
    assert.equal(last.workloads.length, 35);
    assert.deepEqual([last.node!.id, last.node!.ip], ["alpha", ""]);
  }
});

Deno.test("fragments of an unfinished broadcast are dropped in time, and newer ones take their place", () => {
  const assembler = new FragmentAssembler();
  const [begin, , , finish] = fragments(many(35));
  assert.equal(assembler.take(begin, 0), undefined);
  assert.equal(assembler.take(finish, REASSEMBLY_MS), undefined);
  assembler.sweep(2 * REASSEMBLY_MS);
  assert.equal(assembler.size, 0);
  for (let i = 0; i <= MAX_BROADCASTS_PER_NODE; i++) assembler.take(fragments(many(35), `u${i}`)[0], 0);
  assert.equal(assembler.take(fragments(many(35), "u0")[3], 1), undefined);
  const [complete] = fragments(many(2));
  assert.ok(!(assembler.take(complete, 2) instanceof Error));
  assert.equal(assembler.size, 0);
});

Deno.test("rule 8: what broadcasts may take is bounded: nodes, fragments, workloads", () => {
  const assembler = new FragmentAssembler();
  const [begin] = fragments(many(11));
  for (let i = 0; i < MAX_BROADCASTING_NODES; i++) assembler.take({ ...begin, name: `n${i}` }, 0);
  assert.match(String(assembler.take({ ...begin, name: "one more" }, 0)), /nodes broadcast already/);
  for (let i = 1; i < MAX_FRAGMENTS; i++) {
    assert.equal(assembler.take({ ...begin, name: "n0" }, 0), undefined);
  }
  assert.match(String(assembler.take({ ...begin, name: "n0" }, 0)), /fragments/);
  const large = {
    ...begin,
    name: "n1",
    state: create(NodeStateResponseSchema, { workloads: many(MAX_STATE_WORKLOADS) }),
  };
  const more = { ...large, state: create(NodeStateResponseSchema, { workloads: [workload("more")] }) };
  assembler.take(large, 0);
  assert.match(String(assembler.take(more, 0)), /workloads/);
});

Deno.test("bad input is an error value, whatever it is", () => {
  const random = seededRandom(5);
  const [payload] = encodeFragments({ name: "alpha", uuid: UUID, workloads: many(3) });
  for (let i = 0; i < 2_000; i++) {
    const bytes = i % 2 === 0 ? random.bytes(random.int(200)) : payload.slice();
    if (i % 2 === 1) bytes[random.int(bytes.length)] ^= 1 << random.int(8);
    decodeFragment(bytes);
  }
  const bad = (node: { id: string; ip: string }) =>
    decodeFragment(toBinary(NodeStateResponseSchema, create(NodeStateResponseSchema, { node })));
  for (const ip of ["", "x", "x_", "x_other", "_complete", "a_b_complete", `${"u".repeat(99)}_complete`]) {
    assert.ok(bad({ id: "alpha", ip }) instanceof Error, ip);
  }
  assert.ok(bad({ id: "", ip: `${UUID}_complete` }) instanceof Error);
});
