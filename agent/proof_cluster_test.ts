import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  type ProofVerification,
  ProofVerificationSchema,
  VmSpawnRequestSchema,
} from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./control/cluster_messages.ts";
import { registryHash } from "./proof/query.ts";
import { PROOFS_DIR } from "./proof/log_store.ts";
import { startNodes, type TestNode, until } from "./testing.ts";

/** What each other node says of the proofs of a workload, by its name. */
async function ask(node: TestNode, workloadId: string, proofHash = "") {
  const query = create(ProofVerificationSchema, { workloadId, proofHash });
  const answers: Record<string, ProofVerification> = {};
  const all = new AbortController();
  const { membership } = node.running.cluster;
  await membership.ask("hypercore_query", {
    payload: encodeClusterMessage(ClusterEvent.PROOF_VERIFY, ProofVerificationSchema, query),
    timeoutMs: 60_000,
    signal: all.signal,
    onResponse(from, payload) {
      const message = decodeClusterMessage(payload);
      assert.ok(!(message instanceof Error), String(message));
      answers[from] = unwrap(message, ProofVerificationSchema)!;
      if (Object.keys(answers).length === membership.members().size - 1) all.abort();
    },
  });
  return answers;
}

const results = (answers: Record<string, ProofVerification>) =>
  Object.entries(answers).map(([name, { verificationResult }]) => `${name} ${verificationResult}`).sort();

Deno.test("any node verifies the chain of a workload that another one runs, over rotations, and finds a bad link", async (t) => {
  await using cluster = await startNodes(["n1", "n2", "n3"], () => ({ config: { proofIntervalMs: 100 } }));
  const [n1, n2, n3] = cluster.nodes;
  const request = create(VmSpawnRequestSchema, { imageRef: "web:1", node: "n1" });
  const { id } = await n1.running.cluster.calls.spawn(request);
  const file = `${n1.dataDir}/${PROOFS_DIR}/${id}.jsonl`;
  const lines = async () => (await Deno.readTextFile(file)).trimEnd().split("\n");
  // The others may hear of a workload before its first proof is on the disk.
  await until("there is a proof", () => Deno.stat(file).then(() => true, () => false));
  await until("there are some proofs, and all know where", async () => {
    const seen = [n2, n3].every(({ running }) => running.cluster.core.find(id).kind === "found");
    return seen && (await lines()).length >= 4;
  });

  await t.step("genuine: valid, for all, by the identity of the node that runs it", async () => {
    const answers = await ask(n2, id);
    assert.deepEqual(results(answers), ["n1 VALID", "n3 VALID"]);
    for (const { beaconRegistryHash } of Object.values(answers)) {
      assert.equal(beaconRegistryHash, registryHash(n1.identity));
    }
    const { hash } = JSON.parse((await lines())[1]);
    assert.deepEqual(results(await ask(n2, id, hash)), ["n1 VALID", "n3 VALID"]);
  });

  await t.step("a hash that nobody made, and a workload that nobody has, are unknown", async () => {
    assert.deepEqual(results(await ask(n2, id, "0".repeat(64))), ["n1 UNKNOWN", "n3 UNKNOWN"]);
    assert.deepEqual(results(await ask(n2, "00000000000f")), ["n1 UNKNOWN", "n3 UNKNOWN"]);
  });

  await t.step("after a rotation it is valid still", async () => {
    await n1.identity.rotate(Date.now());
    const before = (await lines()).length;
    await until("there are proofs by the new key", async () => (await lines()).length > before + 1);
    assert.deepEqual(results(await ask(n2, id)), ["n1 VALID", "n3 VALID"]);
  });

  await t.step("a bit flipped in the log makes it invalid, and the answer names the link", async () => {
    const text = await Deno.readTextFile(file);
    const second = text.indexOf("\n") + 1;
    const at = text.indexOf('"wall_ms":', second) + '"wall_ms":'.length;
    {
      // In place: the agent goes on writing behind it.
      using open = await Deno.open(file, { write: true });
      await open.seek(at, Deno.SeekMode.Start);
      await open.write(new Uint8Array([text.charCodeAt(at) ^ 1]));
    }
    const answers = await ask(n2, id);
    assert.deepEqual(results(answers), ["n1 INVALID", "n3 INVALID"]);
    assert.equal(answers.n3.badSeq, 2n, answers.n3.reason);
  });

  const metrics = await (await fetch(`http://127.0.0.1:${n3.running.httpAddress.port}/metrics`)).text();
  assert.match(metrics, /ibrl_proof_verifications_total\{result="VALID"\} 3/);
  assert.match(metrics, /ibrl_proof_verification_failures 1/);
  const own = await (await fetch(`http://127.0.0.1:${n1.running.httpAddress.port}/metrics`)).text();
  for (const name of ["generation", "aggregation"]) {
    assert.match(own, new RegExp(`ibrl_proof_${name}_latency_ms_count [1-9]`));
  }
});
