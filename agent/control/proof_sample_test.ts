import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { WorkloadProofSchema, WorkloadStateSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import type { ListedCopy } from "../cluster/reads.ts";
import { signBody } from "../proof/entry.ts";
import { proofMessage } from "../proof/message.ts";
import { firstBody } from "../proof/testing.ts";
import { sampleProof } from "./proof_sample.ts";

const identity = memoryIdentity();
const genuine = proofMessage(signBody(firstBody(identity.nodeId), identity));

function sample(proof: typeof genuine | undefined, init: Partial<ListedCopy> = {}, claim = true) {
  const workload = create(WorkloadStateSchema, { id: "00000000000a", proof });
  const copy = { nodeId: identity.nodeId, nodeName: "n2", isSelf: false, isLive: true, workload, ...init };
  return sampleProof({
    list: () => [copy],
    claimOf: () => claim ? identity : undefined,
    random: () => 0,
  });
}

Deno.test("a genuine proof speaks for its node, one with anything changed against it", () => {
  assert.deepEqual(sample(genuine), { nodeId: identity.nodeId, deed: "proof-valid" });
  const metrics = { ...genuine.metrics, cpu_us: `${genuine.metrics.cpu_us}0` };
  const changed = create(WorkloadProofSchema, { ...genuine, metrics });
  assert.deepEqual(sample(changed), { nodeId: identity.nodeId, deed: "proof-invalid" });
});

Deno.test("a node's own proofs, those of nodes that are gone and those of nobody known say nothing", () => {
  assert.equal(sample(genuine, { isSelf: true }), undefined);
  assert.equal(sample(genuine, { isLive: false }), undefined);
  assert.equal(sample(genuine, {}, false), undefined);
  assert.equal(sample(undefined), undefined);
});
