import assert from "node:assert/strict";
import {
  checkClaim,
  claimLength,
  encodeClaim,
  encodeGreeting,
  hopSecret,
  MAX_CLAIM_BYTES,
  MAX_NODE_ID_BYTES,
  parseFingerprint,
  parseGreeting,
} from "./protocol.ts";

const nonce = new Uint8Array(32).fill(7);
const serverFingerprint = "ab".repeat(32);
const secret = hopSecret(new Uint8Array(32).fill(1));
const facts = { nonce, serverFingerprint };

Deno.test("a claim proves who made it under any of the secrets in force", () => {
  const claim = encodeClaim({ ...facts, node: "node-a" }, secret);
  assert.deepEqual(checkClaim(claim, facts, [hopSecret(), secret]), { node: "node-a", secret });
  assert.equal(checkClaim(claim, facts, []), undefined);
  assert.equal(checkClaim(claim, facts, [hopSecret()]), undefined);
});

Deno.test("a claim is worth nothing with another nonce, another server, or when any bit of it differs", () => {
  const claim = encodeClaim({ ...facts, node: "node-a" }, secret);
  assert.equal(checkClaim(claim, { ...facts, nonce: new Uint8Array(32) }, [secret]), undefined);
  assert.equal(checkClaim(claim, { ...facts, serverFingerprint: "ac".repeat(32) }, [secret]), undefined);
  for (let i = 0; i < claim.length; i++) {
    for (let bit = 1; bit < 256; bit <<= 1) {
      const bad = claim.slice();
      bad[i] ^= bit;
      assert.equal(checkClaim(bad, facts, [secret]), undefined, `byte ${i}`);
    }
  }
  for (let length = 0; length < claim.length; length++) {
    assert.equal(checkClaim(claim.subarray(0, length), facts, [secret]), undefined);
  }
});

Deno.test("the length of a claim is known from its first bytes, and bounded", () => {
  const claim = encodeClaim({ ...facts, node: "x".repeat(MAX_NODE_ID_BYTES) }, secret);
  assert.equal(claim.length, MAX_CLAIM_BYTES);
  for (let length = 0; length <= 8; length++) assert.equal(claimLength(claim.subarray(0, length)), undefined);
  assert.equal(claimLength(claim.subarray(0, 9)), claim.length);
  assert.equal(claimLength(new TextEncoder().encode("GET / HTTP/1.1")), 0);
  assert.equal(claimLength(Uint8Array.of(...claim.subarray(0, 8), MAX_NODE_ID_BYTES + 1)), 0);
  assert.equal(claimLength(Uint8Array.of(...claim.subarray(0, 8), 0)), 0);
  for (const node of ["", "x".repeat(MAX_NODE_ID_BYTES + 1), "a b", "é"]) {
    assert.throws(() => encodeClaim({ ...facts, node }, secret), /Cannot claim membership/);
  }
});

Deno.test("a greeting carries its nonce, and nothing else is one", () => {
  const greeting = encodeGreeting(nonce);
  assert.deepEqual(parseGreeting(greeting), nonce);
  assert.equal(parseGreeting(greeting.subarray(1)), undefined);
  assert.equal(parseGreeting(greeting.with(0, 0)), undefined);
});

Deno.test("a fingerprint is read as hexadecimal, with colons, and as base64url", () => {
  const bytes = Uint8Array.from({ length: 32 }, (_, i) => i * 8 + 3);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const base64url = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
  for (
    const text of [hex, hex.toUpperCase(), hex.match(/../g)!.join(":"), base64url, base64url.slice(0, -1)]
  ) {
    assert.equal(parseFingerprint(text), hex);
  }
  for (const text of ["", "zz".repeat(32), hex.slice(2), base64url + "A"]) {
    assert.equal(parseFingerprint(text), undefined);
  }
});
