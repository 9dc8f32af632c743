import assert from "node:assert/strict";
import { startFaultRegistry } from "../../tests/support/fault_registry.ts";
import { buildImage } from "../../tests/support/images.ts";
import { must } from "./testing.ts";

const IMAGE = buildImage({ layers: [{ a: { content: "a" } }] });

/** Outcome of fetching a manifest in a process that trusts `certificate`: its digest, or the error. */
async function fetchManifest(name: string, certificate?: string): Promise<string> {
  const code = `
    import { RegistryClient } from ${JSON.stringify(import.meta.resolve("./registry.ts"))};
    import { parseReference } from ${JSON.stringify(import.meta.resolve("./reference.ts"))};
    using client = new RegistryClient({
      mirrors: {}, insecureRegistries: [], credentials: async () => undefined, wait: async () => {},
    });
    const reference = parseReference(${JSON.stringify(name)});
    try {
      console.log((await client.manifest(reference, reference.tag)).digest);
    } catch (error) {
      console.log(\`\${error.code}: \${error.message}\`);
    }`;
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", ...(certificate ? ["--cert", certificate] : []), code],
    cwd: new URL("../..", import.meta.url).pathname,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("TLS: the certificate is checked, and HTTPS never becomes HTTP", async (t) => {
  const dir = await Deno.makeTempDir({ prefix: "hc-tls-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const [key, cert] = [`${dir}/key.pem`, `${dir}/cert.pem`];
  // A certificate of its own authority; Deno refuses one that is both authority and server.
  const subject = [
    "-subj",
    "/CN=test",
    "-days",
    "2",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
  ];
  await must("openssl", "req", "-x509", ...subject, "-keyout", `${dir}/ca.key`, "-out", `${dir}/ca.pem`);
  await must(
    "openssl",
    "req",
    ...subject.filter((_, i) => i < 2 || i > 3),
    "-keyout",
    key,
    "-out",
    `${dir}/csr.pem`,
  );
  await Deno.writeTextFile(
    `${dir}/ext`,
    "subjectAltName=IP:127.0.0.1,IP:0.0.0.0\nbasicConstraints=CA:FALSE\n",
  );
  await must(
    ...[
      "openssl",
      "x509",
      "-req",
      "-in",
      `${dir}/csr.pem`,
      "-CA",
      `${dir}/ca.pem`,
      "-CAkey",
      `${dir}/ca.key`,
    ] as const,
    ...["-CAcreateserial", "-days", "2", "-extfile", `${dir}/ext`, "-out", cert],
  );
  await using registry = startFaultRegistry({
    tls: { key: await Deno.readTextFile(key), cert: await Deno.readTextFile(cert) },
  });
  await using plain = startFaultRegistry();
  plain.add(IMAGE, "test/a:1");
  const name = registry.add(IMAGE, "test/a:1");
  await t.step("a trusted certificate", async () => {
    assert.equal(await fetchManifest(name, `${dir}/ca.pem`), IMAGE.manifest.digest);
  });
  await t.step("an untrusted one", async () => {
    const host = name.replace("127.0.0.1", "0.0.0.0");
    assert.match(await fetchManifest(host), /^unavailable: Cannot pull image .*certificate/i);
  });
  await t.step("a redirect to plain HTTP, even on loopback", async () => {
    registry.fault = () => ({ kind: "redirect", location: `${plain.baseUrl}/v2/test/a/manifests/1` });
    assert.match(await fetchManifest(name, `${dir}/ca.pem`), /^failed: .*redirects from HTTPS to http:/);
    assert.equal(plain.requests.length, 0);
  });
});
