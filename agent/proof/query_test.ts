import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { ClusterEvent, ProofVerificationSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "../control/cluster_messages.ts";
import { peekLine } from "./entry.ts";
import { exportText } from "./export.ts";
import { MAX_CONCURRENT_QUERIES, ProofQueries, registryHash } from "./query.ts";
import { verifyExport } from "./remote_log.ts";
import { testLog } from "./testing.ts";
import { verifyLines } from "./verifier.ts";

const identity = memoryIdentity();
const peer = memoryIdentity();
const here = "00000000000a";
const there = "00000000000b";
const theirs = testLog(peer, 3, () => ({ workload: there }));
const theirHash = peekLine(theirs[1])!.hash;

function queries(lines = testLog(identity, 3), remote = theirs) {
  const results: string[] = [];
  const answers = new ProofQueries({
    identity,
    keeper: {
      has: (id) => Promise.resolve(id === here),
      verify: (id, options) =>
        Promise.resolve(verifyLines(lines, { claim: identity, workload: id, ...options })),
    },
    async remote(id, { wantedHash }) {
      if (id !== there) return undefined;
      const file = new TextEncoder().encode(exportText({ claim: peer, workload: there, lines: remote }));
      return await verifyExport(file, { nodeId: peer.nodeId, workload: id, claim: peer, wantedHash });
    },
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

Deno.test("a node answers for its own workloads by the log, for those of others by theirs", async () => {
  const { ask, results } = queries();
  const own = await ask(here);
  assert.deepEqual([own.verificationResult, own.beaconRegistryHash], ["VALID", registryHash(identity)]);
  const other = await ask(there, theirHash);
  assert.deepEqual([other.verificationResult, other.beaconRegistryHash], ["VALID", registryHash(peer)]);
  assert.equal((await ask(there, "0".repeat(64))).verificationResult, "UNKNOWN");
  assert.equal((await ask(here, "0".repeat(64))).verificationResult, "UNKNOWN");
  assert.equal((await ask("00000000000c")).verificationResult, "UNKNOWN");
  assert.deepEqual(results, ["VALID", "VALID", "UNKNOWN", "UNKNOWN", "UNKNOWN"]);
});

Deno.test("a tampered log is invalid, and the answer says which link is bad", async () => {
  const lines = testLog(identity, 3).with(1, testLog(peer, 3)[1]);
  const { ask } = queries(lines, theirs.toSpliced(1, 1));
  const own = await ask(here);
  assert.deepEqual([own.verificationResult, own.badSeq], ["INVALID", 2n]);
  const other = await ask(there);
  assert.deepEqual([other.verificationResult, other.badSeq], ["INVALID", 3n]);
  assert.match(other.reason, /number 3 where 2 was due/);
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
