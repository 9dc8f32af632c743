import assert from "node:assert/strict";
import { verifyClaim } from "./identity_rotation.ts";
import { stateClaim } from "./state_claim.ts";
import { IdentitySigner } from "./state_signature.ts";
import { memoryIdentity } from "./testing.ts";

Deno.test("the identity in a state is its node's, over rotations too", async () => {
  const identity = memoryIdentity();
  await identity.rotate(1_000);
  const { publicKey, rotations } = new IdentitySigner(identity);
  const claim = stateClaim(identity.nodeId, { publicKey, rotations })!;
  assert.deepEqual(claim.publicKey, publicKey);
  assert.ok("keys" in verifyClaim(claim) && claim.rotations.length === 1);
});

Deno.test("a state without a key, or with rotations that cannot be read, names no identity", () => {
  const { publicKey } = new IdentitySigner(memoryIdentity());
  assert.equal(stateClaim("n", { publicKey: new Uint8Array(), rotations: [] }), undefined);
  for (const text of ["", "{", "{}", "1"]) {
    assert.equal(stateClaim("n", { publicKey, rotations: [text] }), undefined, text);
  }
});
