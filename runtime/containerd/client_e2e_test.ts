import assert from "node:assert/strict";
import net from "node:net";
import { startContainerd } from "../../tests/support/containerd.ts";
import { RuntimeError } from "../errors.ts";
import { anyJson, RUNTIME_SPEC_TYPE_URL } from "./any.ts";
import { ContainerdClient, inLease, NO_TIMEOUT } from "./client.ts";

const EMPTY_SPEC = anyJson(RUNTIME_SPEC_TYPE_URL, {});

/** Asserts that the promise rejects with a RuntimeError of that code; returns it. */
async function fails(promise: Promise<unknown>, code: string, message?: RegExp): Promise<RuntimeError> {
  const error = await promise.then(() => undefined, (error) => error);
  assert.ok(error instanceof RuntimeError, `expected a RuntimeError, got ${error}`);
  assert.equal(error.code, code, error.message);
  if (message) assert.match(error.message, message);
  return error;
}

Deno.test("the client reaches every service it has and speaks in its namespace", async () => {
  await using containerd = await startContainerd();
  const client = containerd.client();
  assert.match((await client.version.version({})).version, /^v?\d+\.\d+/);
  assert.ok((await client.introspection.plugins({})).plugins.some((p) => p.id === "overlayfs" && !p.initErr));
  await client.namespaces.create({ namespace: { name: containerd.namespace } });
  const container = { id: "c1", image: "none", runtime: { name: "io.containerd.runc.v2" }, spec: EMPTY_SPEC };
  await client.containers.create({ container: { ...container, labels: { a: "1" } } });
  assert.equal((await client.containers.get({ id: "c1" })).container?.labels.a, "1");
  assert.equal((await containerd.client("other").containers.list({})).containers.length, 0);
  await client.leases.create({ id: "l1" });
  await client.snapshots.prepare({ snapshotter: "overlayfs", key: "s1" }, inLease("l1"));
  assert.deepEqual(
    (await client.leases.listResources({ id: "l1" })).resources.map((r) => `${r.type} ${r.id}`),
    ["snapshots/overlayfs s1"],
  );
  assert.deepEqual((await client.tasks.list({})).tasks, []);
  assert.deepEqual((await client.images.list({})).images, []);
});

Deno.test("containerd's errors come as RuntimeErrors that name the thing", async () => {
  await using containerd = await startContainerd();
  const client = containerd.client();
  await fails(client.containers.get({ id: "nope" }), "not-found", /^Cannot get container "nope": /);
  await fails(client.tasks.delete({ containerId: "nope" }), "not-found", /^Cannot delete task "nope": /);
  const container = { id: "c1", runtime: { name: "io.containerd.runc.v2" }, spec: EMPTY_SPEC };
  await client.containers.create({ container });
  await fails(client.containers.create({ container }), "already-exists", /^Cannot create container "c1": /);
  await fails(client.containers.create({ container: { ...container, id: "../x" } }), "invalid", /"\.\.\/x"/);
  await fails(
    (async () => {
      for await (const _ of client.content.read({ digest: `sha256:${"0".repeat(64)}` }));
    })(),
    "not-found",
  );
});

Deno.test("a socket that is not there, refuses or never answers is an error with a reason", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await using absent = new ContainerdClient({ socket: `${dir}/absent`, namespace: "n" });
    await fails(absent.version.version({}), "unavailable", /absent does not answer/);
    const listener = Deno.listen({ transport: "unix", path: `${dir}/stale` });
    listener.close();
    await using refused = new ContainerdClient({ socket: `${dir}/stale`, namespace: "n" });
    await fails(refused.version.version({}), "unavailable", /stale does not answer/);
    const sockets: net.Socket[] = [];
    const mute = net.createServer((socket) => sockets.push(socket));
    await new Promise<void>((resolve) => mute.listen(`${dir}/mute`, resolve));
    await using client = new ContainerdClient({ socket: `${dir}/mute`, namespace: "n", timeoutMs: 50 });
    await fails(
      client.version.version({}),
      "timeout",
      /^Cannot ask containerd for its version: containerd did not answer in time/,
    );
    await fails(client.version.version({}, { timeoutMs: 20 }), "timeout");
    const abort = new AbortController();
    const call = client.version.version({}, { timeoutMs: NO_TIMEOUT, signal: abort.signal });
    abort.abort();
    await fails(call, "canceled");
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => mute.close(resolve));
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("calls and streams in flight fail as unavailable when containerd is killed, later ones reconnect", async () => {
  await using containerd = await startContainerd();
  const client = containerd.client();
  const subscribed = client.events.subscribe({})[Symbol.asyncIterator]().next();
  await client.version.version({});
  const failure = fails(subscribed, "unavailable");
  await containerd.kill9();
  await failure;
  await fails(client.version.version({}), "unavailable");
  await containerd.start();
  await client.version.version({});
  const again = fails(client.events.subscribe({})[Symbol.asyncIterator]().next(), "unavailable");
  await containerd.restart();
  await again;
  await client.version.version({});
});

Deno.test("a content stream takes chunks and answers them", async () => {
  await using containerd = await startContainerd();
  const client = containerd.client();
  const data = new TextEncoder().encode("hello".repeat(100_000));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const digest = `sha256:${[...hash].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
  await client.leases.create({ id: "l" });
  const base = { ref: "r", total: BigInt(data.length), expected: digest };
  const answers = client.content.write(
    (async function* () {
      yield { ...base, action: 1, offset: 0n, data: data.subarray(0, 300_000) };
      yield { ...base, action: 2, offset: 300_000n, data: data.subarray(300_000) };
    })(),
    inLease("l"),
  );
  let last = "";
  for await (const answer of answers) last = answer.digest;
  assert.equal(last, digest);
  const parts: number[] = [];
  for await (const part of client.content.read({ digest })) parts.push(part.data.length);
  assert.equal(parts.reduce((a, b) => a + b, 0), data.length);
});
