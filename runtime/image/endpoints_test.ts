import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { endpointsOf, mayBePlain, requireAllowedScheme } from "./endpoints.ts";
import { parseReference } from "./reference.ts";

function urls(
  text: string,
  options: { mirrors?: Record<string, string[]>; insecureRegistries?: string[] } = {},
) {
  return endpointsOf(parseReference(text), { mirrors: {}, insecureRegistries: [], ...options })
    .map(({ baseUrl }) => baseUrl);
}

Deno.test("mirrors are asked before the registry itself", () => {
  const mirrors = { "docker.io": ["mirror.example", "http://127.0.0.1:5000/hub/"] };
  assert.deepEqual(urls("nginx", { mirrors }), [
    "https://mirror.example",
    "http://127.0.0.1:5000/hub",
    "https://registry-1.docker.io",
  ]);
  assert.deepEqual(urls("ghcr.example/nginx", { mirrors }), ["https://ghcr.example"]);
});

Deno.test("credentials are those of the mirror's host, or of the registry as the reference names it", () => {
  const endpoints = endpointsOf(parseReference("nginx"), {
    mirrors: { "docker.io": ["https://mirror.example:444/x"] },
    insecureRegistries: [],
  });
  assert.deepEqual(endpoints.map((e) => [e.credentialsHost, e.isMirror]), [
    ["mirror.example:444", true],
    ["docker.io", false],
  ]);
});

Deno.test("plain HTTP is tried, last, for loopback and listed hosts only", () => {
  assert.deepEqual(urls("127.0.0.1:5000/a"), ["https://127.0.0.1:5000", "http://127.0.0.1:5000"]);
  assert.deepEqual(urls("localhost/a"), ["https://localhost", "http://localhost"]);
  assert.deepEqual(urls("[::1]:5000/a"), ["https://[::1]:5000", "http://[::1]:5000"]);
  assert.deepEqual(urls("10.0.0.1:5000/a"), ["https://10.0.0.1:5000"]);
  const insecureRegistries = ["10.0.0.1:5000", "plain.example"];
  assert.deepEqual(urls("10.0.0.1:5000/a", { insecureRegistries }), [
    "https://10.0.0.1:5000",
    "http://10.0.0.1:5000",
  ]);
  assert.deepEqual(urls("10.0.0.1:5001/a", { insecureRegistries }), ["https://10.0.0.1:5001"]);
  assert.deepEqual(urls("plain.example:81/a", { insecureRegistries }), [
    "https://plain.example:81",
    "http://plain.example:81",
  ]);
});

Deno.test("names that only look like loopback are not", () => {
  for (const host of ["127.0.0.1.example", "localhost.example", "127.example", "1127.0.0.1", "example:127"]) {
    assert.equal(mayBePlain(host, []), false, host);
  }
  assert.equal(mayBePlain("127.1.2.3:80", []), true);
});

Deno.test("a plain-HTTP mirror that is not allowed is refused", () => {
  assert.throws(
    () => urls("nginx", { mirrors: { "docker.io": ["http://mirror.example"] } }),
    (e: unknown) =>
      e instanceof RuntimeError && e.code === "precondition" && /plain HTTP is for loopback/.test(e.message),
  );
  assert.throws(
    () => requireAllowedScheme(new URL("file:///etc/passwd"), [""]),
    (e: unknown) => e instanceof RuntimeError && e.code === "precondition",
  );
});

Deno.test("a mirror that is no URL is refused", () => {
  assert.throws(
    () => urls("nginx", { mirrors: { "docker.io": ["https://"] } }),
    (e: unknown) => e instanceof RuntimeError && e.code === "invalid",
  );
});
