import assert from "node:assert/strict";
import { startFaultRegistry } from "../../tests/support/fault_registry.ts";
import type { RuntimeErrorCode } from "../errors.ts";
import type { Credentials } from "./auth.ts";
import { MAX_CACHED_TOKENS } from "./registry.ts";
import { refusal, REGISTRY_IMAGE, TestRegistryClient } from "./testing.ts";

const LAYER = REGISTRY_IMAGE.layers[0];
const SECRET: Credentials = { kind: "basic", username: "user", password: "pass" };

Deno.test("basic credentials are sent when asked for, and once known without asking", async () => {
  const auth = { kind: "basic" as const, user: "user", password: "pass" };
  await using registry = startFaultRegistry({ auth });
  using client = new TestRegistryClient({ login: SECRET });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.deepEqual(registry.requests.map(({ status }) => status), [401, 200, 200]);
  assert.deepEqual(client.asked, [registry.host]);
});

Deno.test("wrong and missing credentials are told apart", async () => {
  const auth = { kind: "basic" as const, user: "user", password: "other" };
  await using registry = startFaultRegistry({ auth });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  using anonymous = new TestRegistryClient();
  await assert.rejects(
    anonymous.manifest(name),
    refusal("unauthenticated", /wants a user name and password/),
  );
  using wrong = new TestRegistryClient({ login: SECRET });
  await assert.rejects(wrong.manifest(name), (error: unknown) => {
    refusal("unauthenticated", /refuses the credentials/)(error);
    assert.doesNotMatch((error as Error).message, /pass\b/);
    return true;
  });
  assert.equal(registry.requests.length, 3);
});

Deno.test("a token is asked for with the scope of the repository, and used until it expires", async (t) => {
  const auth = {
    kind: "bearer" as const,
    user: "user",
    password: "pass",
    identityToken: "id",
    expiresInSeconds: 300,
  };
  await using registry = startFaultRegistry({ auth });
  const name = registry.add(REGISTRY_IMAGE, "a/b:1");
  await t.step("with a password", async () => {
    using client = new TestRegistryClient({ login: SECRET });
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert.deepEqual(registry.requests.map(({ kind, status }) => `${kind} ${status}`), [
      "manifest 401",
      "token 200",
      "manifest 200",
      "blob 200",
    ]);
    const query = new URL(registry.requests[1].path, registry.baseUrl).searchParams;
    assert.equal(query.get("scope"), "repository:a/b:pull");
    registry.revokeTokens();
    await client.manifest(name);
    assert.equal(registry.matching({ kind: "token" }).length, 2, "one that was revoked is replaced");
  });
  await t.step("with an identity token", async () => {
    using client = new TestRegistryClient({ login: { kind: "identity-token", token: "id" } });
    await client.manifest(name);
    const request = registry.matching({ kind: "token" }).at(-1)!;
    assert.equal(request.method, "POST");
    assert.doesNotMatch(request.path, /id\b/, "it stays out of the URL");
    assert.equal(request.headers.authorization, undefined);
  });
  await t.step("refused", async () => {
    using anonymous = new TestRegistryClient();
    await assert.rejects(anonymous.manifest(name), refusal("unauthenticated", /credentials were refused/));
    using wrong = new TestRegistryClient({ login: { kind: "identity-token", token: "no" } });
    await assert.rejects(wrong.manifest(name), refusal("unauthenticated", /credentials were refused/));
  });
});

Deno.test("a token that lives a second is used for the request it was made for", async () => {
  await using registry = startFaultRegistry({ auth: { kind: "bearer", expiresInSeconds: 1 } });
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(registry.matching({ kind: "token" }).length, 2);
});

Deno.test("rule 8: no more tokens are remembered than the limit: the oldest is forgotten, and asked for anew", async () => {
  await using registry = startFaultRegistry({ auth: { kind: "bearer", expiresInSeconds: 3_600 } });
  using client = new TestRegistryClient();
  const names = Array.from(
    { length: MAX_CACHED_TOKENS + 1 },
    (_, n) => registry.add(REGISTRY_IMAGE, `r${n}:1`),
  );
  const tokens = () => registry.matching({ kind: "token" }).length;
  for (const name of names) await client.manifest(name);
  assert.equal(tokens(), names.length);
  for (const name of names.slice(1)) await client.manifest(name);
  assert.equal(tokens(), names.length, "the newest are remembered");
  await client.manifest(names[0]);
  assert.equal(tokens(), names.length + 1);
  // One that is replaced takes its own place, not another's.
  registry.revokeTokens();
  await client.manifest(names[0]);
  await client.manifest(names[2]);
  const requests = registry.requests.filter(({ kind, path }) => kind === "manifest" && path.includes("/r2/"));
  assert.deepEqual(requests.slice(-2).map(({ status, headers }) => [status, "authorization" in headers]), [
    [401, true],
    [200, true],
  ]);
});

Deno.test("a bad token answer is refused without showing it", async (t) => {
  await using registry = startFaultRegistry({ auth: { kind: "bearer" } });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  const bodies: Record<string, string> = {
    "not JSON": "secret-token",
    "no token": '{"secret-token":1}',
    "line break": JSON.stringify({ token: "secret-token\r\nx-evil: 1" }),
    "null": "null",
  };
  for (const [title, body] of Object.entries(bodies)) {
    await t.step(title, async () => {
      using client = new TestRegistryClient();
      registry.fault = ({ kind }) => kind === "token" ? { kind: "status", status: 200, body } : undefined;
      await assert.rejects(client.manifest(name), (error: unknown) => {
        refusal("unavailable", /Cannot get a token/)(error);
        assert.doesNotMatch((error as Error).message, /secret-token/);
        return true;
      });
    });
  }
});

Deno.test("a redirect to another host is followed without the credentials", async () => {
  await using store = startFaultRegistry();
  store.add(REGISTRY_IMAGE, "a:1");
  const auth = { kind: "basic" as const, user: "user", password: "pass" };
  await using registry = startFaultRegistry({ auth });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  registry.fault = ({ kind, target }) =>
    kind === "blob"
      ? { kind: "redirect", location: `${store.baseUrl}/v2/a/blobs/${target}?signature=secret` }
      : undefined;
  using client = new TestRegistryClient({ login: SECRET });
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(store.requests.length, 1);
  assert.equal(store.requests[0].headers.authorization, undefined);
  // Within a host they stay.
  registry.fault = ({ kind, target, attempt }) =>
    kind === "blob" && attempt < 2 ? { kind: "redirect", location: `/v2/a/blobs/${target}` } : undefined;
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
});

Deno.test("a bad redirect is refused", async (t) => {
  await using registry = startFaultRegistry();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  const table: [location: string, code: RuntimeErrorCode, reason: RegExp][] = [
    [`/v2/a/manifests/1`, "failed", /more than 5 redirects/],
    ["http://192.0.2.1/v2/", "precondition", /plain HTTP is for loopback/],
    ["file:///etc/passwd", "precondition", /plain HTTP is for loopback/],
    ["http://[", "failed", /not a URL/],
  ];
  for (const [location, code, reason] of table) {
    await t.step(location, async () => {
      using client = new TestRegistryClient();
      registry.fault = () => ({ kind: "redirect", location });
      await assert.rejects(client.manifest(name), refusal(code, reason));
    });
  }
});

Deno.test("a registry that is not loopback is never spoken to in plain HTTP, unless listed", async () => {
  await using registry = startFaultRegistry();
  registry.add(REGISTRY_IMAGE, "a:1");
  const port = registry.host.split(":")[1];
  // An IPv4 address in another spelling reaches the same socket, but is not among the loopback names.
  const host = `0.0.0.0:${port}`;
  using strict = new TestRegistryClient();
  await assert.rejects(strict.manifest(`${host}/a:1`), refusal("unavailable", /Cannot pull image/));
  assert.equal(registry.requests.length, 0);
  using lax = new TestRegistryClient({ insecureRegistries: [host] });
  assert.equal((await lax.manifest(`${host}/a:1`)).digest, REGISTRY_IMAGE.manifest.digest);
});

Deno.test("mirrors are asked first, each with its own credentials; what they lack comes from the registry", async (t) => {
  await using mirror = startFaultRegistry();
  await using registry = startFaultRegistry();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  const options = { mirrors: { [registry.host]: [mirror.baseUrl] } };
  await t.step("mirror without the image", async () => {
    using client = new TestRegistryClient(options);
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert.deepEqual(mirror.requests.map(({ status }) => status), [404]);
  });
  await t.step("mirror with the manifest only", async () => {
    using client = new TestRegistryClient(options);
    mirror.add(REGISTRY_IMAGE, "a:1");
    mirror.fault = ({ kind }) => kind === "blob" ? { kind: "status", status: 404 } : undefined;
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  });
  await t.step("mirror that breaks half-way for good", async () => {
    using client = new TestRegistryClient(options);
    mirror.fault = ({ kind, rangeStart }) =>
      kind === "blob" ? { kind: "break", afterBytes: rangeStart === undefined ? 100_000 : 0 } : undefined;
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert(registry.requests.at(-1)!.rangeStart! > 0, "the registry is asked for the rest only");
  });
  await t.step("mirror with all of it", async () => {
    using client = new TestRegistryClient(options);
    mirror.fault = () => undefined;
    const before = registry.requests.length;
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert.equal(registry.requests.length, before);
  });
  await t.step("both fail: the registry's error is told", async () => {
    using client = new TestRegistryClient(options);
    mirror.fault = () => ({ kind: "status", status: 500 });
    await assert.rejects(client.manifest(`${registry.host}/none:1`), refusal("not-found", /no such image/));
  });
});
