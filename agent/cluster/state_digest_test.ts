import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { createHash } from "node:crypto";
import {
  NodeStateResponseSchema,
  TombstoneSchema,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { headerDigest, rootHash, signedBytes, stateRoot, workloadDigest } from "./state_digest.ts";
import { workload } from "./testing.ts";

const sha256 = (...parts: Uint8Array[]) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
};

Deno.test("a root is made as peer.proto says", () => {
  const [a, b] = [workload("a"), workload("b", { restarts: 3 })];
  const header = create(NodeStateResponseSchema, { node: { id: "n" }, version: 4n });
  const state = create(NodeStateResponseSchema, {
    ...header,
    workloads: [b, a],
    tombstones: [create(TombstoneSchema, { id: "t" })],
    stateSignature: "s",
  });
  const root = stateRoot(headerDigest(state), new Map([["b", workloadDigest(b)], ["a", workloadDigest(a)]]));
  const expected = sha256(
    sha256(toBinary(NodeStateResponseSchema, header)),
    sha256(toBinary(WorkloadStateSchema, a)),
    sha256(toBinary(WorkloadStateSchema, b)),
  );
  assert.deepEqual(root, expected);
  assert.equal(rootHash(root), new DataView(expected.buffer).getBigUint64(0, true));
  const bytes = signedBytes(root, state.tombstones);
  const prefix = new TextEncoder().encode("hypercore state 1\0");
  const tombstones = sha256(sha256(toBinary(TombstoneSchema, state.tombstones[0])));
  assert.deepEqual(bytes, new Uint8Array([...prefix, ...expected, ...tombstones]));
});
