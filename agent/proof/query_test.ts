import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  ProofVerificationSchema,
  type WorkloadProof,
  WorkloadProofSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "../control/cluster_messages.ts";
import { signBody } from "./entry.ts";
import { proofMessage } from "./message.ts";
import { MAX_CONCURRENT_QUERIES, ProofQueries, registryHash } from "./query.ts";
import { firstBody, testLog } from "./testing.ts";
import { verifyLines } from "./verifier.ts";

const identity = memoryIdentity();
const peer = memoryIdentity();
const here = "00000000000a";
const there = "00000000000b";
const theirs = proofMessage(signBody(firstBody(peer.nodeId, { workload: there }), peer));

function queries(lines = testLog(identity, 3), remote: WorkloadProof = theirs) {
  const results: string[] = [];
  const answers = new ProofQueries({
    identity,
    keeper: {
      has: (id) => Promise.resolve(id === here),
      verify: (id, options) =>
        Promise.resolve(verifyLines(lines, { claim: identity, workload: id, ...options })),
    },
    remote: (id) => id === there ? { proof: remote, claim: peer } : undefined,
    observe: (observation) => results.push(observation.kind === "verified" ? observation.result : ""),
  });
  return {
    results,
    answers,
    async ask(workloadId: string, proofHash = "") {
      const asked = create(ProofVerificationSchema, { workloadId, proofHash });
      const message = encodeClusterMessage(ClusterEvent.PROOF_VERIFY, ProofVerificationSchema, asked);
      const reply = await answers.answer(decodeClusterMessage(message) as never);
      const answer = decodeClusterMessage(reply!);
      assert(!(answer instanceof Error) && answer.event === ClusterEvent.PROOF_VERIFY);
      return unwrap(answer, ProofVerificationSchema)!;
    },
  };
}

Deno.test("a node answers for its own workloads by the log, for those of others by the proof in their state", async () => {
  const { ask, results } = queries();
  const own = await ask(here);
  assert.deepEqual([own.verificationResult, own.beaconRegistryHash], ["VALID", registryHash(identity)]);
  const other = await ask(there, theirs.proofHash);
  assert.deepEqual([other.verificationResult, other.beaconRegistryHash], ["VALID", registryHash(peer)]);
  assert.equal((await ask(there, "0".repeat(64))).verificationResult, "UNKNOWN");
  assert.equal((await ask(here, "0".repeat(64))).verificationResult, "UNKNOWN");
  assert.equal((await ask("00000000000c")).verificationResult, "UNKNOWN");
  assert.deepEqual(results, ["VALID", "VALID", "UNKNOWN", "UNKNOWN", "UNKNOWN"]);
});

Deno.test("a tampered log and a forged proof are invalid", async () => {
  const lines = testLog(identity, 3).with(1, testLog(peer, 3)[1]);
  const forged = create(WorkloadProofSchema, { ...theirs, metrics: { ...theirs.metrics, cpu_us: "1" } });
  const { ask } = queries(lines, forged);
  assert.equal((await ask(here)).verificationResult, "INVALID");
  assert.equal((await ask(there)).verificationResult, "INVALID");
});

Deno.test("what is no question gets no answer; too many at once get UNKNOWN", async () => {
  const release = Promise.withResolvers<boolean>();
  const answers = new ProofQueries({
    identity,
    keeper: { has: () => release.promise, verify: () => Promise.reject(new Error("cannot read")) },
  });
  assert.equal(await answers.answer(decodeClusterMessage(new Uint8Array()) as never), undefined);
  const query = create(ProofVerificationSchema, { workloadId: here });
  const busy = Array.from({ length: MAX_CONCURRENT_QUERIES }, () => answers.verify(query));
  assert.equal((await answers.verify(query)).verificationResult, "UNKNOWN");
  release.resolve(true);
  for (const { verificationResult } of await Promise.all(busy)) assert.equal(verificationResult, "UNKNOWN");
});
