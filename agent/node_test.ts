import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { ClusterService } from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { ImageService } from "../proto/gen/hypercore/v1/image_pb.ts";
import { NodeService } from "../proto/gen/hypercore/v1/node_pb.ts";
import { PolicyService } from "../proto/gen/hypercore/v1/policy_pb.ts";
import { WorkloadService } from "../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError } from "../runtime/errors.ts";
import { silentLog } from "../runtime/log.ts";
import { MemoryEngine } from "../runtime/testing/memory_engine.ts";
import type { AgentConfig } from "./config.ts";
import { verifyBeacon } from "./beacon/metadata.ts";
import { memoryIdentity } from "./beacon/testing.ts";
import type { Images } from "./api/services.ts";
import { startNode } from "./node.ts";
import { TEST_CONFIG } from "./testing.ts";
import { FakeProxy } from "./workloads/testing.ts";

const TOKEN = "test-token-0123456789";
const JSON_HEADERS = { "content-type": "application/json", authorization: `Bearer ${TOKEN}` };
const SPAWN = "/cluster.services.api.ClusterService/Spawn";

const config: AgentConfig = { ...TEST_CONFIG, insecure: false };

const image = {
  name: "docker.io/library/web:1",
  digest: "sha256:0",
  sizeBytes: 5,
  createdAtMs: 1,
  platform: "linux/amd64",
};
const images: Images = {
  pull(_ref, { onProgress }) {
    onProgress({ digest: "d", status: "downloading", bytes: 1, totalBytes: 5, bytesPerSecond: 0.5 });
    return Promise.resolve(image);
  },
  async load(archive) {
    let bytes = 0;
    for await (const chunk of archive) bytes += chunk.length;
    return [{ ...image, sizeBytes: bytes }];
  },
  list: () => Promise.resolve([image]),
  remove: (ref) => Promise.reject(new RuntimeError("not-found", `Cannot remove image "${ref}": not found`)),
};

async function start(overrides: Partial<AgentConfig> = {}, token: string | undefined = TOKEN) {
  const engine = new MemoryEngine();
  const proxy = new FakeProxy();
  const identity = memoryIdentity();
  const ring = { keys: [], isNew: false };
  const parts = { engine, images, proxy, identity, ring, token, version: "1.2.3", log: silentLog };
  const dataDir = await Deno.makeTempDir({ prefix: "hc-node-" });
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dataDir, { recursive: true }));
  const node = undo.use(
    await startNode({ ...config, dataDir, ...overrides }, parts, new AbortController().signal),
  );
  const owned = undo.move();
  return {
    node,
    engine,
    proxy,
    identity,
    api: `http://127.0.0.1:${node.apiAddress.port}`,
    http: `http://127.0.0.1:${node.httpAddress.port}`,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function post(url: string, body: BodyInit, headers: Record<string, string> = JSON_HEADERS) {
  return fetch(url, { method: "POST", body, headers });
}

for (
  const [protocol, makeTransport] of [["gRPC", grpc], ["gRPC-Web", grpcWeb], ["Connect", connect]] as const
) {
  Deno.test(`all services answer ${protocol} on the one port`, async () => {
    await using agent = await start();
    using client = makeTransport(agent.api);
    const { transport } = client;
    const cluster = createClient(ClusterService, transport);
    const spawned = await cluster.spawn({
      imageRef: "web:1",
      ports: { 80: 8080 },
      env: ["A=secret"],
      name: "web",
    });
    assert.match(spawned.id, /^[0-9a-f]{12}$/);
    assert.equal(spawned.url, `http://${spawned.id}.example.com`);
    const { states } = await cluster.list({});
    assert.equal(states[0].workloads[0].status, "running");
    assert(verifyBeacon(states[0].beacon!, agent.identity.publicKey));
    assert(states[0].beacon!.nodeCapabilities.includes("runtime:runc"));
    assert.deepEqual(states[0].workloads[0].sourceRequest!.env, ["A=***"]);
    agent.engine.writeLog(spawned.id, "one\ntwo\n");
    assert.equal((await cluster.logs({ id: "web", tail: 1 })).logs, "two\n");
    const workloads = createClient(WorkloadService, transport);
    const inspected = await workloads.inspect({ id: "web" });
    assert(!inspected.specJson.includes("secret"));
    const lines = [];
    for await (const { data } of workloads.streamLogs({ id: "web" })) {
      lines.push(new TextDecoder().decode(data));
    }
    assert.deepEqual(lines, ["one\n", "two\n"]);
    const loaded = await createClient(ImageService, transport).listImages({});
    assert.equal(loaded.images[0].sizeBytes, 5n);
    const pulled = [];
    for await (const { event } of createClient(ImageService, transport).pull({ imageRef: "web:1" })) {
      pulled.push(event.case);
    }
    assert.deepEqual(pulled, ["progress", "image"]);
    const info = await createClient(NodeService, transport).info({});
    assert.deepEqual([info.workloads, info.version, info.insecure], [1, "1.2.3", false]);
    await cluster.stop({ id: "web" });
    await assert.rejects(cluster.stop({ id: "web" }), { code: 5 });
    await assert.rejects(cluster.spawn({ imageRef: "" }), { code: 3 });
    if (protocol !== "gRPC-Web") {
      const { id } = await cluster.spawn({ imageRef: "web:1" });
      const got = [];
      for await (const { response } of workloads.exec(execOf(id, ["echo", "hi"]))) got.push(response.case);
      assert.deepEqual(got, ["started", "stdout", "exitCode"]);
    }
  });
}

Deno.test("the policy service explains this node, and a spawn is denied by what the policy forbids", async () => {
  const dir = await Deno.makeTempDir({ prefix: "hc-node-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const clusterPolicyFile = `${dir}/p.json`;
  await Deno.writeTextFile(
    clusterPolicyFile,
    '{"name":"p","mode":"enforce","rules":{"max_latency_ms":5},"permissions":{"max_cores":1}}',
  );
  const agent = stack.use(await start({ clusterPolicyFile }));
  using client = connect(agent.api);
  const policies = createClient(PolicyService, client.transport);
  const shown = await policies.get({});
  assert.deepEqual([shown.name, shown.mode, shown.source], ["p", "enforce", clusterPolicyFile]);
  const { nodes, rules, policyId } = await policies.explain({
    request: { imageRef: "web:1", node: "other" },
  });
  assert.equal(policyId, shown.policyId);
  assert.deepEqual(rules, ["max_latency_ms 5"]);
  assert.deepEqual(nodes.map(({ name, admitted }) => [name, admitted]), [["n1", true]]);
  assert.equal(nodes[0].id, agent.identity.nodeId);
  const refused = await policies.explain({ request: { imageRef: "web:1", cores: 2 } });
  assert.deepEqual(refused.requestViolations.map(({ rule }) => rule), ["permissions.max_cores"]);
  assert.equal(refused.nodes[0].admitted, false);
  await assert.rejects(policies.explain({}), { code: 3 });
  await assert.rejects(policies.explain({ request: { imageRef: "web:1" }, alone: true }), { code: 3 });
  await assert.rejects(policies.explain({ request: { imageRef: "web:1", policyJson: "{" } }), {
    code: 3,
    message: /Cannot use policy "of the request": line 1/,
  });
  const cluster = createClient(ClusterService, client.transport);
  await assert.rejects(cluster.spawn({ imageRef: "web:1", cores: 2 }), { code: 7, message: /max_cores/ });
  const { states } = await cluster.list({});
  assert.equal(states[0].policy?.policyId, shown.policyId);
  assert.equal(states[0].policy?.enforcementLevel, "enforce");
});

Deno.test("Connect JSON by curl's means: good and bad bodies get the right code", async () => {
  await using agent = await start();
  const ok = await post(`${agent.api}${SPAWN}`, '{"image_ref":"web:1"}');
  assert.equal(ok.status, 200);
  assert.match((await ok.json()).id, /^[0-9a-f]{12}$/);
  const table: [string, BodyInit, number, RegExp][] = [
    ["unknown field", '{"image_ref":"web:1","imgae":1}', 400, /imgae/],
    ["port listed twice", '{"image_ref":"web:1","ports":{"80":1,"80":2}}', 400, /\\"80\\" is listed twice/],
    ["not JSON", "{", 400, /not valid JSON/],
    ["null", "null", 400, /null/],
    ["invalid UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), 400, /UTF-8/],
    ["10 MiB", "x".repeat(10 << 20), 413, /at most 4194304/],
    ["no image", "{}", 400, /image_ref/],
    ["deep nesting", "[".repeat(50) + "]".repeat(50), 400, /nested deeper/],
    ["too many CPUs", '{"image_ref":"web:1","cores":400}', 429, /vCPUs/],
  ];
  for (const [what, body, status, message] of table) {
    const response = await post(`${agent.api}${SPAWN}`, body);
    const text = await response.text();
    assert.equal(response.status, status, `${what}: ${text}`);
    assert.match(text, message, what);
  }
  assert.equal((await agent.engine.list()).length, 1, "bad input changes nothing");
});

Deno.test("the API port refuses what is not for it", async () => {
  await using agent = await start();
  const url = `${agent.api}${SPAWN}`;
  const call = async (init: RequestInit & { url?: string }) => {
    const response = await fetch(init.url ?? url, {
      method: "POST",
      body: "{}",
      headers: JSON_HEADERS,
      ...init,
    });
    return [response.status, (await response.json()).code];
  };
  assert.deepEqual(await call({ headers: { "content-type": "application/json" } }), [401, "unauthenticated"]);
  assert.deepEqual(await call({ headers: { ...JSON_HEADERS, authorization: "Bearer wrong" } }), [
    401,
    "unauthenticated",
  ]);
  assert.deepEqual(await call({ headers: { ...JSON_HEADERS, origin: "http://evil.example" } }), [
    403,
    "permission_denied",
  ]);
  assert.deepEqual(await call({ headers: { ...JSON_HEADERS, "sec-fetch-site": "cross-site" } }), [
    403,
    "permission_denied",
  ]);
  assert.deepEqual(await call({ headers: { ...JSON_HEADERS, "content-type": "text/plain" } }), [
    415,
    "invalid_argument",
  ]);
  assert.deepEqual(await call({ method: "GET", body: undefined }), [405, "unimplemented"]);
  assert.deepEqual(await call({ url: `${agent.api}/nothing` }), [404, "unimplemented"]);
  assert.match(await raw(agent.node.apiAddress.port, "evil.example"), /^HTTP\/1.1 403/);
});

Deno.test("the HTTP API answers as the original", async () => {
  await using agent = await start();
  const headers = { authorization: `Bearer ${TOKEN}` };
  const spawned = await (await post(`${agent.http}/spawn`, '{"image_ref":"web:1","ports":{"80":8080}}'))
    .json();
  const { id } = spawned.response;
  assert.equal(spawned.response.url, `http://${id}.example.com`);
  const list = await (await fetch(`${agent.http}/list`, { headers })).json();
  const [workload] = list.response.states[0].workloads;
  assert.deepEqual([workload.source_request.image_ref, workload.generation], ["web:1", 1]);
  agent.engine.writeLog(id, "hello\n");
  assert.deepEqual(await (await fetch(`${agent.http}/logs?id=${id}`, { headers })).json(), {
    response: "hello\n",
  });
  const stopped = await fetch(`${agent.http}/stop?id=${id}`, { method: "POST", headers });
  assert.deepEqual(await stopped.json(), {
    response: { id: agent.identity.nodeId, ip: "127.0.0.1", name: "n1" },
  });
  for (const bad of ["../../etc/shadow", id, ""]) {
    const response = await fetch(`${agent.http}/logs?id=${encodeURIComponent(bad)}`, { headers });
    assert.equal(response.status, 400);
    assert.match((await response.json()).error, /^Cannot /);
  }
});

Deno.test("the HTTP API refuses bad requests by status and reason", async () => {
  await using agent = await start();
  const status = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(`${agent.http}${path}`, { headers: JSON_HEADERS, ...init });
    await response.body?.cancel();
    return response.status;
  };
  assert.equal(await status("/list", { headers: {} }), 401);
  assert.equal(await status("/openapi.json", { headers: {} }), 401);
  assert.equal(await status("/list", { headers: { ...JSON_HEADERS, origin: "null" } }), 403);
  assert.equal(await status("/spawn"), 405);
  assert.equal(await status("/nothing"), 404);
  const spawn = (body: BodyInit, headers: Record<string, string> = JSON_HEADERS) =>
    status("/spawn", { method: "POST", body, headers });
  assert.equal(await spawn("{}", { ...JSON_HEADERS, "content-type": "text/plain" }), 415);
  assert.equal(await spawn("x".repeat(10 << 20)), 413);
  assert.equal(await spawn('{"image_ref":"web:1","x":1}'), 400);
  assert.equal(await spawn('{"image_ref":"web:1","ports":{"70000":80}}'), 400);
  const { port } = agent.node.httpAddress;
  assert.match(await raw(port, "evil.example"), /^HTTP\/1.1 403/);
  assert.match(await raw(port, "localhost\r\nHost: evil.example"), /^HTTP\/1.1 403/);
  assert.match(await raw(port, "evil.example", { target: "http://localhost/healthz" }), /^HTTP\/1.1 403/);
  assert.match(await raw(port, "localhost", { target: "http://evil.example/healthz" }), /^HTTP\/1.1 200/);
});

Deno.test("a client that leaves ends its spawn", async () => {
  await using agent = await start();
  const create = agent.engine.create.bind(agent.engine);
  for (const url of [`${agent.http}/spawn`, `${agent.api}${SPAWN}`]) {
    const entered = Promise.withResolvers<AbortSignal>();
    let creating: Promise<unknown> | undefined;
    agent.engine.create = (spec, options) => {
      const gate = Promise.withResolvers<void>();
      agent.engine.onStep = () => (entered.resolve(options!.signal!), gate.promise);
      options!.signal!.addEventListener("abort", () => gate.resolve());
      const created = create(spec, options);
      creating = created;
      return created;
    };
    const leave = new AbortController();
    const call = fetch(url, {
      method: "POST",
      body: '{"image_ref":"web:1"}',
      headers: JSON_HEADERS,
      signal: leave.signal,
    });
    const signal = await entered.promise;
    assert(!signal.aborted);
    leave.abort();
    await assert.rejects(call);
    await assert.rejects(creating!);
    assert.deepEqual(await agent.engine.list(), [], url);
  }
});

Deno.test("health, metrics and the API's description", async () => {
  await using agent = await start();
  const text = async (path: string, headers = {}) => {
    const response = await fetch(`${agent.http}${path}`, { headers });
    return [response.status, await response.text()] as const;
  };
  assert.equal((await text("/healthz"))[0], 200);
  assert.equal((await text("/readyz"))[0], 200);
  agent.engine.setReachable(false);
  assert.equal((await text("/readyz"))[0], 503);
  agent.engine.setReachable(true);
  await (await post(`${agent.http}/spawn`, '{"image_ref":"web:1"}')).text();
  const [, metrics] = await text("/metrics");
  assert.match(metrics, /^hypercore_workload_count 1$/m);
  assert.match(metrics, /^hypercore_peer_connections\{direction="in"\} 0$/m);
  assert.match(metrics, /^hypercore_peer_pending_connections 0$/m);
  assert.match(metrics, /^hypercore_queries_in_work 0$/m);
  assert.match(metrics, /^hypercore_queries_dropped_total 0$/m);
  assert.match(metrics, /^hypercore_event_readers_cut_off_total 0$/m);
  assert.match(metrics, /^hypercore_workload_event_readers_cut_off_total 0$/m);
  assert.match(metrics, /^hypercore_api_refused_connections_total 0$/m);
  assert.match(metrics, /^hypercore_api_cut_connections_total 0$/m);
  assert.match(metrics, /^hypercore_http_requests_total\{code="200"\} [1-9]/m);
  assert.match(metrics, /^hypercore_spawn_duration_seconds_count\{outcome="ok"\} 1$/m);
  assert.match(metrics, /^hypercore_proxy_requests_total\{code="2xx"\} 0$/m);
  const document = JSON.parse((await text("/openapi.json", JSON_HEADERS))[1]);
  assert.equal(document.openapi, "3.1.0");
  const refs = [...JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map((match) =>
    match[1]
  );
  for (const name of refs) assert(document.components.schemas[name], name);
});

Deno.test("two agents live in one process", async () => {
  await using first = await start();
  await using second = await start({ nodeName: "n2" });
  await (await post(`${first.api}${SPAWN}`, '{"image_ref":"web:1"}')).text();
  assert.equal((await first.engine.list()).length, 1);
  assert.equal((await second.engine.list()).length, 0);
});

Deno.test("an address others can reach is refused without a certificate", async () => {
  await assert.rejects(start({ grpcBindAddr: { host: "0.0.0.0", port: 0 } }), /Cannot listen on "0.0.0.0:0"/);
  await using _agent = await start({ grpcBindAddr: { host: "0.0.0.0", port: 0 }, insecure: true }, undefined);
});

async function* execOf(id: string, args: string[]) {
  yield await Promise.resolve({ request: { case: "start" as const, value: { id, args } } });
}

/** One GET with a Host header of one's own, which fetch does not allow. */
function raw(port: number, host: string, { target = "/healthz" } = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      socket.write(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    });
    let text = "";
    socket.on("data", (chunk) => text += chunk);
    socket.on("close", () => resolve(text));
    socket.on("error", reject);
  });
}

function grpc(baseUrl: string) {
  const sessionManager = new Http2SessionManager(baseUrl);
  const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors: [bearer] });
  return { transport, [Symbol.dispose]: () => sessionManager.abort() };
}

function connect(baseUrl: string) {
  const sessionManager = new Http2SessionManager(baseUrl);
  const transport = createConnectTransport({
    baseUrl,
    httpVersion: "2",
    sessionManager,
    interceptors: [bearer],
  });
  return { transport, [Symbol.dispose]: () => sessionManager.abort() };
}

/** By HTTP/1.1. */
function grpcWeb(baseUrl: string) {
  const agent = new http.Agent({ keepAlive: false });
  const nodeOptions = { agent };
  const transport = createGrpcWebTransport({
    baseUrl,
    httpVersion: "1.1",
    nodeOptions,
    interceptors: [bearer],
  });
  return { transport, [Symbol.dispose]: () => agent.destroy() };
}

// deno-lint-ignore no-explicit-any
function bearer(next: any) {
  // deno-lint-ignore no-explicit-any
  return (request: any) => {
    request.header.set("authorization", `Bearer ${TOKEN}`);
    return next(request);
  };
}
