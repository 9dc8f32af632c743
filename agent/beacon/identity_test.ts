import assert from "node:assert/strict";
import { canonicalJson } from "../canonical.ts";
import { nodeIdOf, PrivateKey, publicKeyPem, verify } from "./identity.ts";
import { FileIdentity } from "./identity_file.ts";
import {
  fromBase64,
  MAX_ROTATIONS,
  parseRotations,
  type RotationRecord,
  verifyClaim,
} from "./identity_rotation.ts";

const bytes = new TextEncoder().encode("hello");
const fresh = () => FileIdentity.parse(PrivateKey.generate().pem());

Deno.test("a node id is a UUID of version 8 made of the public key", () => {
  // RFC 8032, 7.1, test 1.
  const publicKey = Uint8Array.fromHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  assert.equal(nodeIdOf(publicKey), "21fe31df-a154-8261-a26b-f854046fd227");
});

Deno.test("a signature holds for its key, its bytes and its context, and for nothing else", () => {
  const key = PrivateKey.generate();
  const signature = key.sign("hypercore/state/1", bytes);
  assert(verify(key.publicKey, "hypercore/state/1", bytes, signature));
  assert(!verify(key.publicKey, "hypercore/proof/1", bytes, signature));
  assert(!verify(PrivateKey.generate().publicKey, "hypercore/state/1", bytes, signature));
  for (let bit = 0; bit < signature.length * 8; bit++) {
    assert(
      !verify(key.publicKey, "hypercore/state/1", bytes, flipped(signature, bit)),
      `signature bit ${bit}`,
    );
  }
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    assert(!verify(key.publicKey, "hypercore/state/1", flipped(bytes, bit), signature), `message bit ${bit}`);
  }
  for (let bit = 0; bit < 256; bit++) {
    assert(!verify(flipped(key.publicKey, bit), "hypercore/state/1", bytes, signature), `key bit ${bit}`);
  }
});

Deno.test("verification answers false to whatever a peer may send", () => {
  const { publicKey } = PrivateKey.generate();
  for (const length of [0, 31, 32, 33, 63, 64, 65]) {
    assert(!verify(publicKey, "hypercore/state/1", bytes, new Uint8Array(length).fill(0xff)));
    assert(!verify(new Uint8Array(length).fill(0xff), "hypercore/state/1", bytes, new Uint8Array(64)));
  }
});

Deno.test("a private key is read from PEM of openssl, and nothing but Ed25519 is", () => {
  const key = PrivateKey.fromPem(
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n",
  );
  assert.equal(key.publicKey.toHex(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  assert.match(publicKeyPem(key.publicKey), /^-----BEGIN PUBLIC KEY-----\n.*\n-----END PUBLIC KEY-----\n$/);
  assert.throws(() => PrivateKey.fromPem(publicKeyPem(key.publicKey)), /no readable private key/);
  assert.throws(() => PrivateKey.fromPem(""), /no readable private key/);
});

Deno.test("a rotated identity keeps its id, and its newest key follows from its first", () => {
  let identity = fresh();
  const { nodeId, publicKey: first } = identity;
  for (let i = 1; i <= 3; i++) identity = identity.rotated(PrivateKey.generate(), i);
  assert.equal(identity.nodeId, nodeId);
  const verdict = verifyClaim(identity);
  assert("keys" in verdict);
  assert.deepEqual(verdict.keys[0], first);
  assert.deepEqual(verdict.keys[3], identity.publicKey);
  assert.equal(FileIdentity.parse(identity.text()).text(), identity.text());
});

Deno.test("a rotation is refused with any field changed, left out, added, or any bit flipped", () => {
  const identity = fresh().rotated(PrivateKey.generate(), 1_700_000_000_000).rotated(
    PrivateKey.generate(),
    2,
  );
  const claim = (rotations: readonly RotationRecord[]) => ({
    ...identity,
    publicKey: identity.publicKey,
    rotations,
  });
  assert("keys" in verifyClaim(claim(identity.rotations)));
  const other = fresh().rotated(PrivateKey.generate(), 1);
  const [record, second] = identity.rotations;
  for (const field of Object.keys(record) as (keyof RotationRecord)[]) {
    const changed = {
      ...record,
      [field]: typeof record[field] === "number" ? record[field] + 1 : other.rotations[0][field],
    };
    assert("reason" in verifyClaim(claim([changed, second])), field);
    const { [field]: _, ...rest } = record;
    assert("reason" in parseRotations([rest, second]), field);
  }
  assert("reason" in parseRotations([{ ...record, more: 1 }]));
  const text = canonicalJson({ ...record });
  for (let bit = 0; bit < text.length * 8; bit++) {
    const changed = new TextDecoder().decode(flipped(new TextEncoder().encode(text), bit));
    assert(isRefused(changed, second), `bit ${bit}`);
  }
  assert(!isRefused(text, second));

  function isRefused(first: string, second: RotationRecord): boolean {
    let value: unknown;
    try {
      value = JSON.parse(first);
    } catch {
      return true;
    }
    const parsed = parseRotations([value, second]);
    return "reason" in parsed || "reason" in verifyClaim(claim(parsed.rotations));
  }
});

Deno.test("rotations cannot be dropped, reordered, taken from another node or go on for ever", () => {
  let identity = fresh();
  for (let i = 0; i < MAX_ROTATIONS; i++) identity = identity.rotated(PrivateKey.generate(), i);
  const { nodeId, publicKey, rotations } = identity;
  assert("keys" in verifyClaim(identity));
  assert.throws(
    () => identity.rotated(PrivateKey.generate(), 1),
    new RegExp(`rotated ${MAX_ROTATIONS} times`),
  );
  const refused: [string, readonly RotationRecord[], RegExp][] = [
    ["last", rotations.slice(0, -1), /lead to another key/],
    ["first", rotations.slice(1), /rotation 1: it is out of order/],
    ["middle", rotations.toSpliced(3, 1), /rotation 4: it is out of order/],
    ["all", [], /its id does not belong/],
    ["too many", [...rotations, rotations[0]], /more than/],
    ["foreign", fresh().rotated(PrivateKey.generate(), 1).rotations, /of another node/],
  ];
  for (const [what, records, reason] of refused) {
    const verdict = verifyClaim({ nodeId, publicKey, rotations: records });
    assert.match("reason" in verdict ? verdict.reason : "accepted", reason, what);
  }
  assert("reason" in verifyClaim({ ...fresh(), publicKey: publicKey, nodeId }));
});

Deno.test("nobody can take over another's id by rotating from a key of their own", () => {
  const victim = fresh();
  const thief = PrivateKey.generate();
  const forged = new FileIdentity(thief, victim.nodeId, []).rotated(PrivateKey.generate(), 1);
  const verdict = verifyClaim(forged);
  assert.match("reason" in verdict ? verdict.reason : "accepted", /id does not belong to its first key/);
});

Deno.test("base64 has one text for the same bytes", () => {
  assert.deepEqual(fromBase64("AA==", 1), new Uint8Array(1));
  for (const text of ["AB==", "AA", "AA=", "AA==\n", " AA==", "A-==", "AAAA"]) {
    assert.equal(fromBase64(text, 1), undefined, text);
  }
});

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = bytes.slice();
  copy[bit >> 3] ^= 1 << (bit & 7);
  return copy;
}
