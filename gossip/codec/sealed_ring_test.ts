import assert from "node:assert/strict";
import { seededRandom } from "../random.ts";
import { DecodeError } from "./error.ts";
import { openRing, publicOf, sealRing } from "./sealed_ring.ts";
import { toHex } from "./text.ts";

const random = seededRandom(7);
const ring = {
  version: 12,
  keys: [new Uint8Array(32).fill(1), new Uint8Array(16).fill(2)],
  retired: [new Uint8Array(32).fill(3)],
};

Deno.test("X25519 gives the public key of RFC 7748", () => {
  const bob = Uint8Array.fromHex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
  assert.equal(
    toHex(publicOf(bob)),
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
  );
});

Deno.test("a key ring sealed for a node is opened by that node alone, says who sealed it, and breaks when changed", () => {
  const [secret, other, sender] = [random.bytes(32), random.bytes(32), random.bytes(32)];
  const sealed = sealRing(ring, { to: publicOf(secret), secret: sender, random });
  assert.deepEqual(openRing(sealed, secret), { ring, from: publicOf(sender) });
  assert.throws(() => openRing(sealed, other), DecodeError);
  const forged = sealed.slice();
  forged.set(publicOf(other), 32);
  assert.throws(() => openRing(forged, secret), DecodeError, "nobody can put another name to it");
  for (const at of [0, 31, 40, 70, sealed.length - 1]) {
    const changed = sealed.slice();
    changed[at] ^= 1;
    assert.throws(() => openRing(changed, secret), DecodeError);
  }
  for (const length of [0, 10, 79, 80]) {
    assert.throws(() => openRing(sealed.subarray(0, length), secret), DecodeError);
  }
});

Deno.test("a key ring is never sealed twice alike, nor for a public key that everyone can open", () => {
  const secret = random.bytes(32);
  const to = publicOf(random.bytes(32));
  assert.notDeepEqual(sealRing(ring, { to, secret, random }), sealRing(ring, { to, secret, random }));
  assert.throws(() => sealRing(ring, { to: new Uint8Array(32), secret, random }));
});

Deno.test("a sealed key ring that was damaged anyhow gives nothing but the typed decode error", () => {
  const secret = random.bytes(32);
  const sealed = sealRing(ring, { to: publicOf(secret), secret: random.bytes(32), random });
  for (let i = 0; i < 300; i++) {
    const damaged = i % 3 === 0
      ? random.bytes(random.int(300))
      : sealed.slice(0, random.int(sealed.length + 1));
    if (damaged.length > 0) damaged[random.int(damaged.length)] ^= 1 + random.int(255);
    assert.throws(() => openRing(damaged, secret), DecodeError);
  }
});
