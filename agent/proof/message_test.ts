import assert from "node:assert/strict";
import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { WorkloadProofSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { signBody } from "./entry.ts";
import { bodyOfMessage, proofMessage, verifyMessage } from "./message.ts";
import { firstBody, followingBody } from "./testing.ts";

const identity = memoryIdentity();
const other = memoryIdentity();
const workload = "00000000000a";
const first = signBody(firstBody(identity.nodeId), identity);
const second = signBody(followingBody(first, { kind: "exit", exit_code: 137 }), identity);
const options = { claim: identity, workload };

Deno.test("a proof in a state holds all of its body, and verifies by it", () => {
  for (const entry of [first, second]) {
    const message = proofMessage(entry);
    assert.deepEqual(bodyOfMessage(message), { body: entry.body });
    assert.deepEqual(verifyMessage(message, { ...options, known: first.body }), { body: entry.body });
  }
});

Deno.test("a proof in a state is refused with any field changed, any metric left out or added, any bit flipped", () => {
  const genuine = proofMessage(second);
  const refused = (change: Partial<typeof genuine>, what: string) =>
    assert("reason" in verifyMessage(create(WorkloadProofSchema, { ...genuine, ...change }), options), what);
  refused({ proofHash: first.hash }, "hash");
  refused({ proofTimestamp: genuine.proofTimestamp + 1n }, "timestamp");
  refused({ proofTimestamp: -1n }, "timestamp");
  refused({ hypervisorType: "kata" }, "hypervisor");
  refused({ proofSignature: new Uint8Array() }, "signature");
  refused({ proofSignature: proofMessage(first).proofSignature }, "signature");
  refused({ metrics: { ...genuine.metrics, at_ms: "5" } }, "twice");
  for (const [field, value] of Object.entries(genuine.metrics)) {
    refused({ metrics: { ...genuine.metrics, [field]: `${value}0` } }, field);
    refused({ metrics: { ...genuine.metrics, [field]: ` ${value}` } }, field);
    const { [field]: _, ...rest } = genuine.metrics;
    refused({ metrics: rest }, `without ${field}`);
  }
  refused(
    { metrics: Object.fromEntries(Array.from({ length: 99 }, (_, i) => [String(i), "1"])) },
    "too many",
  );
  const bytes = toBinary(WorkloadProofSchema, genuine);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    let proof;
    try {
      proof = fromBinary(WorkloadProofSchema, bytes);
    } catch {
      proof = undefined; // refused by the codec
    }
    if (proof !== undefined) {
      const verdict = verifyMessage(proof, options);
      // What the codec reads as the very same proof, perhaps with a field more that nobody knows, is none forged.
      assert("reason" in verdict || equals(WorkloadProofSchema, proof, genuine), `bit ${bit}`);
    }
    bytes[bit >> 3] ^= 1 << (bit & 7);
  }
});

Deno.test("a proof is refused from another node, for another workload, or when it contradicts a known one", () => {
  const message = proofMessage(second);
  const reason = (extra: Partial<Parameters<typeof verifyMessage>[1]>) => {
    const verdict = verifyMessage(message, { ...options, ...extra });
    return "reason" in verdict ? verdict.reason : "accepted";
  };
  assert.equal(reason({}), "accepted");
  assert.match(reason({ claim: other }), /of another node/);
  assert.match(
    reason({ claim: { ...other, nodeId: identity.nodeId, publicKey: other.publicKey } }),
    /identity does not hold/,
  );
  assert.match(reason({ workload: "00000000000b" }), /of another workload/);
  assert.match(reason({ known: { ...first.body, image_digest: "sha256:2" } }), /image_digest is not as/);
  assert.equal(reason({ known: { ...second.body, seq: 9, cpu_us: 1e12 } }), "accepted");
  const impossible = proofMessage(signBody(firstBody(identity.nodeId, { cpu_us: 9e9 }), identity));
  assert.match("reason" in verifyMessage(impossible, options) ? "refused" : "accepted", /refused/);
});

Deno.test("a proof by a key before a rotation verifies by the rotations", async () => {
  const node = memoryIdentity();
  const message = proofMessage(signBody(firstBody(node.nodeId), node));
  await node.rotate(1);
  await node.rotate(2);
  assert("body" in verifyMessage(message, { claim: node, workload }));
  assert(
    "body" in verifyMessage(proofMessage(signBody(firstBody(node.nodeId), node)), { claim: node, workload }),
  );
});
