import assert from "node:assert/strict";
import {
  attest,
  ATTESTATION_TYPES,
  type Challenge,
  decodeChallenge,
  encodeChallenge,
  factsOf,
  MAX_ATTESTATION_BYTES,
  NONCE_BYTES,
  verifyAttestation,
} from "./attestation.ts";
import type { NodeIdentity } from "./identity.ts";
import { memoryIdentity } from "./testing.ts";

const facts = { incarnation: "7", root: "ab".repeat(32), version: "3" };

function challengeFor(identity: NodeIdentity, init: Partial<Challenge> = {}): Challenge {
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  return { nodeId: identity.nodeId, type: "STATE_HASH", nonce, ...init };
}

const claimOf = ({ nodeId, publicKey, rotations }: NodeIdentity) => ({ nodeId, publicKey, rotations });

/** The reason why it is refused, or "" where it is accepted. */
function judge(answer: Uint8Array, challenge: Challenge, identity: NodeIdentity): string {
  const result = verifyAttestation(answer, { challenge, claim: claimOf(identity) });
  return "reason" in result ? result.reason : "";
}

Deno.test("each kind of attestation is accepted as the answer to its question", () => {
  const identity = memoryIdentity();
  for (const type of ATTESTATION_TYPES) {
    const asked = challengeFor(identity, { type, ...(type === "WORKLOAD" && { workload: "0123456789ab" }) });
    const challenge = decodeChallenge({
      nodeId: asked.nodeId,
      attestationType: type,
      attestationData: encodeChallenge(asked),
    });
    assert.deepEqual(challenge, asked);
    const answer = attest(asked, { identity, facts, nowMs: 5 });
    const result = verifyAttestation(answer, { challenge: asked, claim: claimOf(identity) });
    assert.ok(!("reason" in result), JSON.stringify(result));
    const { workload: _workload, ...rest } = factsOf(result);
    assert.deepEqual(rest, facts);
    assert.equal(result.statement.at_ms, 5);
  }
});

Deno.test("a replayed answer is refused: it has another question's nonce", () => {
  const identity = memoryIdentity();
  const first = challengeFor(identity);
  const answer = attest(first, { identity, facts, nowMs: 1 });
  assert.equal(judge(answer, first, identity), "");
  assert.equal(judge(answer, challengeFor(identity), identity), "it does not answer this question");
  const other = challengeFor(identity, { nonce: first.nonce, type: "NODE_IDENTITY" });
  assert.equal(judge(answer, other, identity), "it attests something else");
  const workload = challengeFor(identity, { nonce: first.nonce, workload: "x" });
  assert.equal(judge(answer, workload, identity), "it is of another workload");
});

Deno.test("a forged or re-keyed answer is refused, and the genuine one before it accepted", async () => {
  const identity = memoryIdentity();
  const challenge = challengeFor(identity);
  assert.equal(judge(attest(challenge, { identity, facts, nowMs: 1 }), challenge, identity), "");
  const forger = memoryIdentity();
  const byItself = attest(challenge, { identity: forger, facts, nowMs: 1 });
  assert.match(judge(byItself, challenge, identity), /its key is not the one/);
  const inItsName = { ...claimOf(identity), sign: forger.sign } as NodeIdentity;
  assert.equal(
    judge(attest(challenge, { identity: inItsName, facts, nowMs: 1 }), challenge, identity),
    "its signature is not good",
  );
  const otherContext = {
    ...claimOf(identity),
    sign: (_context: unknown, bytes: Uint8Array) => identity.sign("hypercore/state/1", bytes),
  } as NodeIdentity;
  assert.equal(
    judge(attest(challenge, { identity: otherContext, facts, nowMs: 1 }), challenge, identity),
    "its signature is not good",
  );
  const lying = { ...claimOf(forger), nodeId: identity.nodeId };
  const answered = verifyAttestation(byItself, { challenge: challengeFor(forger), claim: lying });
  assert.deepEqual(answered, { reason: "the key known is another node's" });

  const before = claimOf(identity);
  await identity.rotate(2);
  const rekeyed = attest(challenge, { identity, facts, nowMs: 3 });
  assert.ok("reason" in verifyAttestation(rekeyed, { challenge, claim: before }));
  assert.equal(judge(rekeyed, challenge, identity), "");
});

Deno.test("an answer with any bit flipped is refused", () => {
  const identity = memoryIdentity();
  const challenge = challengeFor(identity);
  const genuine = attest(challenge, { identity, facts, nowMs: 1 });
  assert.equal(judge(genuine, challenge, identity), "");
  for (let bit = 0; bit < genuine.length * 8; bit++) {
    const changed = genuine.slice();
    changed[bit >> 3] ^= 1 << (bit & 7);
    assert.notEqual(judge(changed, challenge, identity), "", `bit ${bit}`);
  }
  for (let length = 0; length < genuine.length; length += 7) {
    assert.notEqual(judge(genuine.subarray(0, length), challenge, identity), "");
  }
  assert.match(judge(new Uint8Array(MAX_ATTESTATION_BYTES + 1), challenge, identity), /longer than/);
});

Deno.test("a question without a whole nonce, of an unknown kind or with other fields is none", () => {
  const identity = memoryIdentity();
  const challenge = challengeFor(identity);
  const ask = (attestationType: string, data: unknown) =>
    decodeChallenge({
      nodeId: challenge.nodeId,
      attestationType,
      attestationData: new TextEncoder().encode(typeof data === "string" ? data : JSON.stringify(data)),
    });
  const nonce = challenge.nonce.toBase64();
  assert.ok(!("reason" in ask("NODE_IDENTITY", { nonce })));
  for (
    const [type, data, reason] of [
      ["EVERYTHING", { nonce }, /no attestation "EVERYTHING"/],
      ["NODE_IDENTITY", { nonce: "AAAA" }, /nonce is not 32 bytes/],
      ["NODE_IDENTITY", {}, /nonce/],
      ["NODE_IDENTITY", [], /no object/],
      ["NODE_IDENTITY", "{", /not JSON/],
      ["NODE_IDENTITY", ` {"nonce":"${nonce}"}`, /canonical/],
      ["NODE_IDENTITY", { nonce, workload: "x" }, /wrong or missing/],
      ["WORKLOAD", { nonce }, /wrong or missing/],
      ["STATE_HASH", { nonce, z: 1 }, /wrong or missing/],
    ] as const
  ) {
    const result = ask(type, data);
    assert.ok("reason" in result, type);
    assert.match(result.reason, reason);
  }
});
