import assert from "node:assert/strict";
import { type FaultRegistry, startFaultRegistry } from "../../tests/support/fault_registry.ts";
import { freePort } from "../../tests/support/free_port.ts";
import { buildIndex } from "../../tests/support/images.ts";
import { MAX_MANIFEST_BYTES } from "./manifest.ts";
import { parseReference } from "./reference.ts";
import { MAX_ATTEMPTS, MAX_BLOB_ATTEMPTS } from "./retry.ts";
import { refusal, REGISTRY_IMAGE, TestRegistryClient } from "./testing.ts";

const LAYER = REGISTRY_IMAGE.layers[0];

Deno.test("a manifest is fetched by tag and by digest, in plain HTTP from loopback", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a/b:1");
  const byTag = await client.manifest(name);
  assert.equal(byTag.digest, REGISTRY_IMAGE.manifest.digest);
  assert.equal(byTag.mediaType, REGISTRY_IMAGE.manifest.mediaType);
  assert.deepEqual(byTag.bytes, REGISTRY_IMAGE.manifest.bytes);
  assert.equal(
    (await client.manifest(`${registry.host}/a/b@${REGISTRY_IMAGE.manifest.digest}`)).digest,
    byTag.digest,
  );
  const { headers } = registry.matching({ kind: "manifest" })[0];
  assert.match(headers.accept, /image\.index/);
  assert.equal(headers["accept-encoding"], "identity");
  assert.deepEqual(client.waits, [], "the HTTPS that is not there costs no waiting");
});

Deno.test("a blob arrives whole, from any offset", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.deepEqual(await client.blob(name, LAYER, { offset: 100_000 }), LAYER.bytes.subarray(100_000));
  assert.equal(registry.requests.at(-1)?.bytesSent, LAYER.size - 100_000);
  assert.deepEqual(await client.blob(name, LAYER, { offset: LAYER.size }), new Uint8Array());
});

Deno.test("a broken connection is made anew from where it broke", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
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
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
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
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
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
  using client = new TestRegistryClient({ stallTimeoutMs: 1_000 });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  breakLayer(registry, { kind: "stall", afterBytes: 70_000 }, 1);
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(registry.matching({ target: LAYER.digest }).length, 2);
  breakLayer(registry, { kind: "drip", chunkBytes: 30_000, pauseMs: 120 });
  assert.deepEqual(await client.blob(name, LAYER), LAYER.bytes);
  assert.equal(
    registry.matching({ target: LAYER.digest }).length,
    3,
    "10 pauses of 120 ms are no stall of a second",
  );
});

Deno.test("a client that was held up itself takes no registry for stalled", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient({ stallTimeoutMs: 1_000 });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  const { endpoint } = await client.manifest(name);
  registry.fault = ({ kind }) => {
    // The client waits by now; whatever comes, its timer is the first to come.
    if (kind === "blob") { for (const end = performance.now() + 1_100; performance.now() < end;); }
    return undefined;
  };
  let length = 0;
  const stream = client.client.blob(parseReference(name), LAYER, { endpoint, offset: 0 });
  for await (const chunk of stream) length += chunk.length;
  assert.equal(length, LAYER.size);
  assert.equal(registry.matching({ target: LAYER.digest }).length, 1);
});

Deno.test("a consumer that takes its time is no stall", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient({ stallTimeoutMs: 1_000 });
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  const { endpoint } = await client.manifest(name);
  let length = 0;
  for await (const chunk of client.client.blob(parseReference(name), LAYER, { endpoint, offset: 0 })) {
    if (length === 0) await new Promise((resolve) => setTimeout(resolve, 1_500));
    length += chunk.length;
  }
  assert.equal(length, LAYER.size);
  assert.equal(registry.matching({ target: LAYER.digest }).length, 1);
});

Deno.test("a blob of another size than announced is refused", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  breakLayer(registry, { kind: "resize", bytes: 100 });
  await assert.rejects(client.blob(name, LAYER), refusal("failed", /larger than the \d+ bytes announced/));
  breakLayer(registry, { kind: "resize", bytes: -100 });
  await assert.rejects(client.blob(name, LAYER), refusal("failed", /status 416/));
});

Deno.test("a manifest with another digest than asked for is refused, and never tried again", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  registry.add(REGISTRY_IMAGE, "a:1");
  registry.fault = () => ({ kind: "corrupt", at: 10 });
  await assert.rejects(
    client.manifest(`${registry.host}/a@${REGISTRY_IMAGE.manifest.digest}`),
    refusal("failed", /the manifest's digest is sha256:/),
  );
  assert.equal(registry.matching({ kind: "manifest" }).length, 1);
});

Deno.test("a manifest over the limit is refused before it is all there", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  registry.fault = () => ({ kind: "replace", bytes: new Uint8Array(MAX_MANIFEST_BYTES * 4) });
  await assert.rejects(client.manifest(name), refusal("invalid", /larger than 4194304 bytes/));
  assert(registry.bytesSent() < MAX_MANIFEST_BYTES * 4);
});

Deno.test("a manifest that is an HTML page is refused", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
  const bytes = new TextEncoder().encode("<html>log in</html>");
  registry.fault = () => ({ kind: "replace", bytes, mediaType: "text/html" });
  await assert.rejects(client.manifest(name), refusal("invalid", /not JSON/));
});

Deno.test("a registry that is busy is asked again after the time it names", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const name = registry.add(REGISTRY_IMAGE, "a:1");
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
  using client = new TestRegistryClient();
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
  using client = new TestRegistryClient();
  await assert.rejects(client.manifest(`127.0.0.1:${freePort()}/a:1`), refusal("unavailable", /refused/i));
  assert.equal(client.waits.length, MAX_ATTEMPTS - 1);
});

Deno.test("cancelling ends a request at once, stalled or waiting", async () => {
  await using registry = startFaultRegistry();
  using client = new TestRegistryClient();
  const index = buildIndex([REGISTRY_IMAGE]);
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

/** Sets the fault of the first `times` requests for the layer. */
function breakLayer(
  registry: FaultRegistry,
  fault: ReturnType<FaultRegistry["fault"]>,
  times = Infinity,
): void {
  registry.fault = ({ target, attempt }) => target === LAYER.digest && attempt < times ? fault : undefined;
}
