import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import {
  CERTIFICATE_FILE,
  loadPeerCertificate,
  RENEW_WITHIN_MS,
  SERVER_NAME,
  VALIDITY_MS,
} from "./certificate.ts";
import { fingerprintOf } from "./handshake/channel.ts";

const NOW_MS = Date.UTC(2030, 0, 1);
const HOUR_MS = 3_600_000;

Deno.test("a node's certificate is made once and kept, for nobody else to read", async () => {
  await using dir = await temporaryDir();
  const first = await loadPeerCertificate(`${dir.path}/data`, { nowMs: NOW_MS });
  const { mode } = await Deno.stat(`${dir.path}/data/${CERTIFICATE_FILE}`);
  assert.equal(mode! & 0o777, 0o600);
  assert.deepEqual(await loadPeerCertificate(`${dir.path}/data`, { nowMs: NOW_MS + HOUR_MS }), first);
  assert.deepEqual([...Deno.readDirSync(`${dir.path}/data`)].map(({ name }) => name), [CERTIFICATE_FILE]);
});

Deno.test("a node's certificate is X.509 v3, self-signed, on P-256, valid for decades, and no CA", async () => {
  await using dir = await temporaryDir();
  const made = await loadPeerCertificate(dir.path, { nowMs: NOW_MS });
  const certificate = new X509Certificate(made.certPem);
  assert.equal(certificate.ca, false);
  assert.equal(certificate.subject, `CN=${SERVER_NAME}`);
  assert.equal(certificate.subjectAltName, `DNS:${SERVER_NAME}`);
  assert(certificate.verify(certificate.publicKey));
  assert(certificate.checkPrivateKey(createPrivateKey(made.keyPem)));
  assert.equal(made.notAfterMs, NOW_MS + VALIDITY_MS);
  assert.equal(Date.parse(certificate.validFrom), Date.UTC(2000, 0, 1));
  assert.equal(made.fingerprint, fingerprintOf(made.der));
  assert.match(made.fingerprint, /^[A-Za-z0-9_-]{43}$/);
  assert.equal(
    Uint8Array.fromBase64(made.fingerprint, { alphabet: "base64url" }).toHex(),
    certificate.fingerprint256.replaceAll(":", "").toLowerCase(),
  );
});

Deno.test("agents that start at the same moment end up with the same certificate", async () => {
  await using dir = await temporaryDir();
  const all = await Promise.all(
    Array.from({ length: 8 }, () => loadPeerCertificate(dir.path, { nowMs: NOW_MS })),
  );
  assert.equal(new Set(all.map(({ fingerprint }) => fingerprint)).size, 1);
  assert.equal(new Set(all.map(({ keyPem }) => keyPem)).size, 1);
  assert.deepEqual([...Deno.readDirSync(dir.path)].map(({ name }) => name), [CERTIFICATE_FILE]);
});

Deno.test("a certificate is replaced at a start long before it expires", async () => {
  await using dir = await temporaryDir();
  const first = await loadPeerCertificate(dir.path, { nowMs: NOW_MS });
  const lastMs = first.notAfterMs - RENEW_WITHIN_MS;
  assert.equal((await loadPeerCertificate(dir.path, { nowMs: lastMs })).fingerprint, first.fingerprint);
  const second = await loadPeerCertificate(dir.path, { nowMs: lastMs + HOUR_MS });
  assert.notEqual(second.fingerprint, first.fingerprint);
  assert.equal(second.notAfterMs, lastMs + HOUR_MS + VALIDITY_MS);
  assert.equal((await loadPeerCertificate(dir.path, { nowMs: lastMs })).fingerprint, second.fingerprint);
  assert.equal((await Deno.stat(`${dir.path}/${CERTIFICATE_FILE}`)).mode! & 0o777, 0o600);
});

Deno.test("a machine whose clock has lost the time makes a certificate that others take, and keeps it", async () => {
  await using dir = await temporaryDir();
  const made = await loadPeerCertificate(dir.path, { nowMs: 0 });
  assert(made.notAfterMs > Date.UTC(2045, 0, 1));
  assert.equal((await loadPeerCertificate(dir.path, { nowMs: NOW_MS })).fingerprint, made.fingerprint);
});

Deno.test("a certificate that others may read, that is broken or too long is refused by name", async () => {
  await using dir = await temporaryDir();
  const path = `${dir.path}/${CERTIFICATE_FILE}`;
  await loadPeerCertificate(dir.path, { nowMs: NOW_MS });
  const load = () => loadPeerCertificate(dir.path, { nowMs: NOW_MS });
  await Deno.chmod(path, 0o640);
  await assert.rejects(
    load(),
    /^Error: Cannot load the node's certificate ".*peer\.pem": others may read it/,
  );
  await Deno.chmod(path, 0o600);
  const text = await Deno.readTextFile(path);
  await Deno.writeTextFile(path, text.replace(/(CERTIFICATE-----\n).{30}/, "$1AAAA"));
  await assert.rejects(load(), /no valid certificate; remove it/);
  await Deno.writeTextFile(path, text.slice(0, 200));
  await assert.rejects(load(), /does not hold a certificate and its key; remove it/);
  await Deno.writeTextFile(path, " ".repeat(65_537));
  await assert.rejects(load(), /it has 65537 bytes, the limit is 65536/);
});

async function temporaryDir() {
  const path = await Deno.makeTempDir({ prefix: "hypercore-peer-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
