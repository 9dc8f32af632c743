import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Certificates, MAX_CERTIFICATES } from "./certificates.ts";

/** A certificate as far as it matters here, and its fingerprint. */
function certificate(n: number): [string, Uint8Array] {
  const der = new TextEncoder().encode(`certificate ${n}`.padEnd(100, "."));
  return [createHash("sha256").update(der).digest("hex"), der];
}

Deno.test("rule 8: no more certificates are remembered than the limit: the oldest is forgotten, and learned again", () => {
  const certificates = new Certificates();
  for (let n = 0; n <= MAX_CERTIFICATES; n++) certificates.learn(...certificate(n));
  const [oldest, der] = certificate(0);
  assert.equal(certificates.get(oldest), undefined);
  for (let n = 1; n <= MAX_CERTIFICATES; n++) assert.ok(certificates.get(certificate(n)[0]), `${n}`);
  assert.equal(certificates.learn(oldest, der), certificates.get(oldest));
  assert.equal(certificates.get(certificate(1)[0]), undefined);
});

Deno.test("a certificate of another fingerprint is refused, and not remembered", () => {
  const certificates = new Certificates();
  const [[pinned], [other, shown]] = [certificate(1), certificate(2)];
  for (const der of [shown, undefined]) {
    assert.throws(() => certificates.learn(pinned, der), /another certificate than the pinned one/);
  }
  assert.deepEqual([certificates.get(pinned), certificates.get(other)], [undefined, undefined]);
});
