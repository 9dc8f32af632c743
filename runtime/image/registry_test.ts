import assert from "node:assert/strict";
import { type FaultRegistry, startFaultRegistry } from "../../tests/support/fault_registry.ts";
import { buildImage, buildIndex, concat, type TestBlob } from "../../tests/support/images.ts";
import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";
import type { Credentials } from "./auth.ts";
import { MAX_MANIFEST_BYTES } from "./manifest.ts";
import { parseReference } from "./reference.ts";
import { RegistryClient, type RegistryClientOptions } from "./registry.ts";
import { MAX_ATTEMPTS, MAX_BLOB_ATTEMPTS } from "./retry.ts";

/** Some hundred KiB that do not compress. */
const NOISE = crypto.getRandomValues(new Uint8Array(60_000));
const IMAGE = buildImage({
  layers: [{ noise: { bytes: concat(Array(5).fill(NOISE)) } }],
  compression: "none",
});
const LAYER = IMAGE.layers[0];
const SECRET: Credentials = { kind: "basic", username: "user", password: "pass" };

/** A client whose waits are over at once and written down. */
class Client implements Disposable {
  readonly waits: number[] = [];
  readonly asked: string[] = [];
  readonly client: RegistryClient;

  constructor(options: Partial<RegistryClientOptions> & { login?: Credentials } = {}) {
    this.client = new RegistryClient({
      mirrors: {},
      insecureRegistries: [],
      credentials: (host) => {
        this.asked.push(host);
        return Promise.resolve(options.login);
      },
      wait: (ms, signal) => {
        this.waits.push(ms);
        return signal?.aborted ? Promise.reject(signal.reason) : Promise.resolve();
      },
      ...options,
    });
  }

  manifest(text: string, signal?: AbortSignal) {
    const reference = parseReference(text);
    return this.client.manifest(reference, reference.digest ?? reference.tag!, signal);
  }

  async blob(text: string, blob: TestBlob, options: { offset?: number; signal?: AbortSignal } = {}) {
    const { endpoint } = await this.manifest(text);
    const chunks: Uint8Array[] = [];
    const stream = this.client.blob(parseReference(text), blob, { endpoint, offset: 0, ...options });
    for await (const chunk of stream) chunks.push(chunk);
    return concat(chunks);
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
  }
}

function refusal(code: RuntimeErrorCode, reason: RegExp) {
  return (error: unknown) => {
    assert(error instanceof RuntimeError, String(error));
    assert.match(error.message, reason);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, /^Cannot /);
    return true;
  };
}

/** Sets the fault of the first `times` requests for the layer. */
function breakLayer(
  registry: FaultRegistry,
  fault: ReturnType<FaultRegistry["fault"]>,
  times = Infinity,
): void {
  registry.fault = ({ target, attempt }) => target === LAYER.digest && attempt < times ? fault : undefined;
}

Deno.test("a manifest is fetched by tag and by digest, in plain HTTP from loopback", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a/b:1");
  const byTag = await client.manifest(name);
  assert.equal(byTag.digest, IMAGE.manifest.digest);
  assert.equal(byTag.mediaType, IMAGE.manifest.mediaType);
  assert.deepEqual(byTag.bytes, IMAGE.manifest.bytes);
  assert.equal((await client.manifest(`${registry.host}/a/b@${IMAGE.manifest.digest}`)).digest, byTag.digest);
  const { headers } = registry.matching({ kind: "manifest" })[0];
  assert.match(headers.accept, /image\.index/);
  assert.equal(headers["accept-encoding"], "identity");
  assert.deepEqual(client.waits, [], "the HTTPS that is not there costs no waiting");
});

Deno.test("a blob arrives whole, from any offset", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.deepEqual(await client.blob(name, LAYER, { offset: 100_000 }), LAYER.bytes.subarray(100_000));
  assert.equal(registry.requests.at(-1)?.bytesSent, LAYER.size - 100_000);
  assert.deepEqual(await client.blob(name, LAYER, { offset: LAYER.size }), new Uint8Array());
});

Deno.test("a broken connection is made anew from where it broke", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  breakLayer(registry, { kind: "break", afterBytes: 70_000 }, 3);
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  const requests = registry.matching({ target: LAYER.digest });
  assert.equal(requests.length, 4);
  // What the kernel took but the client has not seen is sent again; nothing else is.
  for (const [i, { rangeStart = 0 }] of requests.entries()) {
    assert(rangeStart <= i * 70_000 && (i === 0 || rangeStart > 0));
  }
  assert(registry.bytesSent({ target: LAYER.digest }) < LAYER.size + 3 * 70_000);
});

Deno.test("progress starts the count of attempts afresh; without any it ends", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  breakLayer(registry, { kind: "break", afterBytes: 20_000 });
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert(registry.matching({ target: LAYER.digest }).length > MAX_BLOB_ATTEMPTS);
  breakLayer(registry, { kind: "break", afterBytes: 0 });
  const before = registry.matching({ target: LAYER.digest }).length;
  await assert.rejects(
    client.blob(name, LAYER),
    refusal("unavailable", new RegExp(`blob ${LAYER.digest}: `)),
  );
  assert.equal(registry.matching({ target: LAYER.digest }).length - before, MAX_BLOB_ATTEMPTS);
});

Deno.test("a server that ignores ranges sends it all again, and the bytes still fit", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  registry.fault = ({ target, attempt }) =>
    target !== LAYER.digest
      ? undefined
      : attempt === 0
      ? { kind: "break", afterBytes: 150_000 }
      : { kind: "ignore-range" };
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
});

Deno.test("a stalled connection is given up and made anew; a slow one is not", async () => {
  await using registry = startFaultRegistry();
  using client = new Client({ stallTimeoutMs: 400 });
  const name = registry.add(IMAGE, "a:1");
  breakLayer(registry, { kind: "stall", afterBytes: 70_000 }, 1);
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(registry.matching({ target: LAYER.digest }).length, 2);
  breakLayer(registry, { kind: "drip", chunkBytes: 30_000, pauseMs: 50 });
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(
    registry.matching({ target: LAYER.digest }).length,
    3,
    "10 pauses of 50 ms are no stall of 400 ms",
  );
});

Deno.test("a consumer that takes its time is no stall", async () => {
  await using registry = startFaultRegistry();
  using client = new Client({ stallTimeoutMs: 200 });
  const name = registry.add(IMAGE, "a:1");
  const { endpoint } = await client.manifest(name);
  let length = 0;
  for await (const chunk of client.client.blob(parseReference(name), LAYER, { endpoint, offset: 0 })) {
    if (length === 0) await new Promise((resolve) => setTimeout(resolve, 500));
    length += chunk.length;
  }
  assert.equal(length, LAYER.size);
  assert.equal(registry.matching({ target: LAYER.digest }).length, 1);
});

Deno.test("a blob of another size than announced is refused", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  breakLayer(registry, { kind: "resize", bytes: 100 });
  await assert.rejects(client.blob(name, LAYER), refusal("failed", /larger than the \d+ bytes announced/));
  breakLayer(registry, { kind: "resize", bytes: -100 });
  await assert.rejects(client.blob(name, LAYER), refusal("failed", /status 416/));
});

Deno.test("a manifest with another digest than asked for is refused, and never tried again", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  registry.add(IMAGE, "a:1");
  registry.fault = () => ({ kind: "corrupt", at: 10 });
  await assert.rejects(
    client.manifest(`${registry.host}/a@${IMAGE.manifest.digest}`),
    refusal("failed", /the manifest's digest is sha256:/),
  );
  assert.equal(registry.matching({ kind: "manifest" }).length, 1);
});

Deno.test("a manifest over the limit is refused before it is all there", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  registry.fault = () => ({ kind: "replace", bytes: new Uint8Array(MAX_MANIFEST_BYTES * 4) });
  await assert.rejects(client.manifest(name), refusal("invalid", /larger than 4194304 bytes/));
  assert(registry.bytesSent() < MAX_MANIFEST_BYTES * 4);
});

Deno.test("a manifest that is an HTML page is refused", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  const bytes = new TextEncoder().encode("<html>log in</html>");
  registry.fault = () => ({ kind: "replace", bytes, mediaType: "text/html" });
  await assert.rejects(client.manifest(name), refusal("invalid", /not JSON/));
});

Deno.test("a registry that is busy is asked again after the time it names", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  registry.fault = ({ attempt }) =>
    attempt === 0
      ? { kind: "status", status: 429, headers: { "retry-after": "7" } }
      : attempt === 1
      ? { kind: "status", status: 503 }
      : undefined;
  await client.manifest(name);
  assert.equal(client.waits.length, 2);
  assert.equal(client.waits[0], 7_000);
  assert(client.waits[1] <= 500);
  registry.fault = () => ({ kind: "status", status: 503, headers: { "retry-after": "86400" } });
  await assert.rejects(client.manifest(name), refusal("unavailable", /status 503/));
  assert.equal(client.waits.length, 2 + MAX_ATTEMPTS - 1);
  assert.equal(Math.max(...client.waits), 60_000);
});

Deno.test("what will not change is not tried again", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  await assert.rejects(client.manifest(`${registry.host}/none:1`), refusal("not-found", /no such image/));
  registry.fault = () => ({ kind: "status", status: 418 });
  await assert.rejects(client.manifest(`${registry.host}/none:1`), refusal("failed", /status 418/));
  registry.fault = () => ({ kind: "status", status: 403 });
  await assert.rejects(
    client.manifest(`${registry.host}/none:1`),
    refusal("unauthenticated", /wants credentials/),
  );
  assert.equal(registry.requests.length, 3);
  assert.deepEqual(client.waits, []);
});

Deno.test("nobody there: the error says so after the attempts", async () => {
  const registry = startFaultRegistry();
  await registry[Symbol.asyncDispose]();
  using client = new Client();
  await assert.rejects(client.manifest(`${registry.host}/a:1`), refusal("unavailable", /refused/i));
  assert.equal(client.waits.length, MAX_ATTEMPTS - 1);
});

Deno.test("basic credentials are sent when asked for, and once known without asking", async () => {
  const auth = { kind: "basic" as const, user: "user", password: "pass" };
  await using registry = startFaultRegistry({ auth });
  using client = new Client({ login: SECRET });
  const name = registry.add(IMAGE, "a:1");
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.deepEqual(registry.requests.map(({ status }) => status), [401, 200, 200]);
  assert.deepEqual(client.asked, [registry.host]);
});

Deno.test("wrong and missing credentials are told apart", async () => {
  const auth = { kind: "basic" as const, user: "user", password: "other" };
  await using registry = startFaultRegistry({ auth });
  const name = registry.add(IMAGE, "a:1");
  using anonymous = new Client();
  await assert.rejects(
    anonymous.manifest(name),
    refusal("unauthenticated", /wants a user name and password/),
  );
  using wrong = new Client({ login: SECRET });
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
  const name = registry.add(IMAGE, "a/b:1");
  await t.step("with a password", async () => {
    using client = new Client({ login: SECRET });
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
    using client = new Client({ login: { kind: "identity-token", token: "id" } });
    await client.manifest(name);
    const request = registry.matching({ kind: "token" }).at(-1)!;
    assert.equal(request.method, "POST");
    assert.doesNotMatch(request.path, /id\b/, "it stays out of the URL");
    assert.equal(request.headers.authorization, undefined);
  });
  await t.step("refused", async () => {
    using anonymous = new Client();
    await assert.rejects(anonymous.manifest(name), refusal("unauthenticated", /credentials were refused/));
    using wrong = new Client({ login: { kind: "identity-token", token: "no" } });
    await assert.rejects(wrong.manifest(name), refusal("unauthenticated", /credentials were refused/));
  });
});

Deno.test("a token that lives a second is used for the request it was made for", async () => {
  await using registry = startFaultRegistry({ auth: { kind: "bearer", expiresInSeconds: 1 } });
  using client = new Client();
  const name = registry.add(IMAGE, "a:1");
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(registry.matching({ kind: "token" }).length, 2);
});

Deno.test("a bad token answer is refused without showing it", async (t) => {
  await using registry = startFaultRegistry({ auth: { kind: "bearer" } });
  const name = registry.add(IMAGE, "a:1");
  const bodies: Record<string, string> = {
    "not JSON": "secret-token",
    "no token": '{"secret-token":1}',
    "line break": JSON.stringify({ token: "secret-token\r\nx-evil: 1" }),
    "null": "null",
  };
  for (const [title, body] of Object.entries(bodies)) {
    await t.step(title, async () => {
      using client = new Client();
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
  store.add(IMAGE, "a:1");
  const auth = { kind: "basic" as const, user: "user", password: "pass" };
  await using registry = startFaultRegistry({ auth });
  const name = registry.add(IMAGE, "a:1");
  registry.fault = ({ kind, target }) =>
    kind === "blob"
      ? { kind: "redirect", location: `${store.baseUrl}/v2/a/blobs/${target}?signature=secret` }
      : undefined;
  using client = new Client({ login: SECRET });
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
  const name = registry.add(IMAGE, "a:1");
  const table: [location: string, code: RuntimeErrorCode, reason: RegExp][] = [
    [`/v2/a/manifests/1`, "failed", /more than 5 redirects/],
    ["http://192.0.2.1/v2/", "precondition", /plain HTTP is for loopback/],
    ["file:///etc/passwd", "precondition", /plain HTTP is for loopback/],
    ["http://[", "failed", /not a URL/],
  ];
  for (const [location, code, reason] of table) {
    await t.step(location, async () => {
      using client = new Client();
      registry.fault = () => ({ kind: "redirect", location });
      await assert.rejects(client.manifest(name), refusal(code, reason));
    });
  }
});

Deno.test("a registry that is not loopback is never spoken to in plain HTTP, unless listed", async () => {
  await using registry = startFaultRegistry();
  registry.add(IMAGE, "a:1");
  const port = registry.host.split(":")[1];
  // An IPv4 address in another spelling reaches the same socket, but is not among the loopback names.
  const host = `0.0.0.0:${port}`;
  using strict = new Client();
  await assert.rejects(strict.manifest(`${host}/a:1`), refusal("unavailable", /Cannot pull image/));
  assert.equal(registry.requests.length, 0);
  using lax = new Client({ insecureRegistries: [host] });
  assert.equal((await lax.manifest(`${host}/a:1`)).digest, IMAGE.manifest.digest);
});

Deno.test("mirrors are asked first, each with its own credentials; what they lack comes from the registry", async (t) => {
  await using mirror = startFaultRegistry();
  await using registry = startFaultRegistry();
  const name = registry.add(IMAGE, "a:1");
  const options = { mirrors: { [registry.host]: [mirror.baseUrl] } };
  await t.step("mirror without the image", async () => {
    using client = new Client(options);
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert.deepEqual(mirror.requests.map(({ status }) => status), [404]);
  });
  await t.step("mirror with the manifest only", async () => {
    using client = new Client(options);
    mirror.add(IMAGE, "a:1");
    mirror.fault = ({ kind }) => kind === "blob" ? { kind: "status", status: 404 } : undefined;
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  });
  await t.step("mirror that breaks half-way for good", async () => {
    using client = new Client(options);
    mirror.fault = ({ kind, rangeStart }) =>
      kind === "blob" ? { kind: "break", afterBytes: rangeStart === undefined ? 100_000 : 0 } : undefined;
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert(registry.requests.at(-1)!.rangeStart! > 0, "the registry is asked for the rest only");
  });
  await t.step("mirror with all of it", async () => {
    using client = new Client(options);
    mirror.fault = () => undefined;
    const before = registry.requests.length;
    assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
    assert.equal(registry.requests.length, before);
  });
  await t.step("both fail: the registry's error is told", async () => {
    using client = new Client(options);
    mirror.fault = () => ({ kind: "status", status: 500 });
    await assert.rejects(client.manifest(`${registry.host}/none:1`), refusal("not-found", /no such image/));
  });
});

Deno.test("cancelling ends a request at once, stalled or waiting", async () => {
  await using registry = startFaultRegistry();
  using client = new Client();
  const index = buildIndex([IMAGE]);
  const name = registry.add(index, "a:1");
  const controller = new AbortController();
  registry.fault = () => {
    queueMicrotask(() => controller.abort(new Error("enough")));
    return { kind: "stall", afterBytes: 10 };
  };
  await assert.rejects(client.manifest(name, controller.signal), /enough/);
  registry.fault = ({ kind }) => kind === "blob" ? { kind: "stall", afterBytes: 10 } : undefined;
  const later = new AbortController();
  const { endpoint } = await client.manifest(name);
  await assert.rejects(async () => {
    const stream = client.client.blob(parseReference(name), LAYER, {
      endpoint,
      offset: 0,
      signal: later.signal,
    });
    for await (const _ of stream) later.abort(new Error("enough"));
  }, /enough/);
});
