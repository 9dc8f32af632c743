import assert from "node:assert/strict";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { busyboxImage } from "../support/images.ts";
import { startRegistry } from "../support/registry.ts";
import { until } from "./live_agent.ts";
import { type NodeUnderTest, startNodeUnderTest, TOKEN } from "./node_under_test.ts";

const PROTO = new URL("../../proto", import.meta.url).pathname;
const SERVICE = "cluster.services.api.ClusterService";
/** What the image's web server prints when it runs. */
const LINE = "serving on port 8080\n";

type Answer = Record<string, unknown>;
/** Calls a method of ClusterService with a client of its own. Throws an Error that carries the server's words. */
type Call = (method: string, request: Answer) => Promise<Answer>;

const CLIENTS: Record<string, (node: NodeUnderTest) => Call> = {
  "buf curl by gRPC": (node) => bufCurl(node, ["--protocol", "grpc", "--http2-prior-knowledge"]),
  "buf curl by gRPC-Web": (node) => bufCurl(node, ["--protocol", "grpcweb"]),
  "buf curl by Connect": (node) => bufCurl(node, ["--protocol", "connect"]),
  "buf curl by Connect on HTTP/2": (node) =>
    bufCurl(node, ["--protocol", "connect", "--http2-prior-knowledge"]),
  "plain curl": plainCurl,
  "plain curl on HTTP/2": (node) => plainCurl(node, "--http2-prior-knowledge"),
  "a stock gRPC library": grpcLibrary,
};

Deno.test("stock clients spawn, list, read logs and stop", async (t) => {
  await using node = await startNodeUnderTest();
  await using registry = await startRegistry();
  const imageRef = await registry.push(busyboxImage(), "test/web:1");
  for (const [name, client] of Object.entries(CLIENTS)) {
    await t.step(name, async () => {
      const call = client(node);
      const spawned = await call("Spawn", { imageRef, memory: 64, ports: { 8080: 8080 }, env: ["A=b"] });
      const id = String(spawned.id);
      assert.match(id, /^[0-9a-f]{12}$/);
      assert.equal(spawned.url, `http://${id}.example.com:8080`);
      const { states } = await call("List", {}) as { states: { node: Answer; workloads: Answer[] }[] };
      assert.equal(states[0].node.name, "n1");
      assert.deepEqual(states[0].workloads.map((workload) => [workload.id, workload.status]), [[
        id,
        "running",
      ]]);
      await until("its line is in the log", async () => (await call("Logs", { id })).logs === LINE);
      assert.equal((await call("Stop", { id })).name, "n1");
      await assert.rejects(call("Stop", { id }), new RegExp(`Cannot find workload .{1,2}${id}`));
      // Its log stays for a day.
      assert.equal((await call("Logs", { id })).logs, LINE);
      await assert.rejects(call("Logs", { id: "../../etc/shadow" }), /etc\/shadow/);
      await assert.rejects(call("Spawn", { imageRef: "" }), /image_ref/);
    });
  }
});

Deno.test("a stock gRPC library gets status codes and deadlines", async () => {
  await using node = await startNodeUnderTest();
  using client = grpcClient(node.address);
  const failure = async (
    method: string,
    request: Answer,
    options: grpc.CallOptions & { token?: string } = {},
  ) => {
    try {
      await client.call(method, request, options);
    } catch (error) {
      return (error as grpc.ServiceError).code;
    }
  };
  assert.equal(await failure("Stop", { id: "0123456789ab" }), grpc.status.NOT_FOUND);
  assert.equal(await failure("Spawn", {}), grpc.status.INVALID_ARGUMENT);
  assert.equal(await failure("List", {}, { token: "" }), grpc.status.UNAUTHENTICATED);
  assert.equal(await failure("List", {}, { token: "wrong-token-0123456789" }), grpc.status.UNAUTHENTICATED);
  assert.equal(await failure("Nothing", {}), grpc.status.UNIMPLEMENTED);
  assert.equal(await failure("List", {}, { deadline: Date.now() - 1 }), grpc.status.DEADLINE_EXCEEDED);
});

function bufCurl(node: NodeUnderTest, options: string[]): Call {
  return async (method, request) => {
    const url = `${node.url}/${SERVICE}/${method}`;
    const header = `authorization: Bearer ${TOKEN}`;
    const data = JSON.stringify(request);
    return JSON.parse(
      await run("buf", ["curl", "--schema", PROTO, ...options, "-H", header, "-d", data, url]),
    );
  };
}

function plainCurl(node: NodeUnderTest, ...options: string[]): Call {
  return async (method, request) => {
    const headers = ["-H", "content-type: application/json", "-H", `authorization: Bearer ${TOKEN}`];
    const url = `${node.url}/${SERVICE}/${method}`;
    const args = ["-sS", "--fail-with-body", ...options, ...headers, "-d", JSON.stringify(request), url];
    return JSON.parse(await run("curl", args));
  };
}

function grpcLibrary(node: NodeUnderTest): Call {
  return async (method, request) => {
    using client = grpcClient(node.address);
    return await client.call(method, request);
  };
}

/** @grpc/grpc-js, knowing of the API no more than its .proto files. */
function grpcClient(address: string) {
  const definition = loadSync("cluster/services/api/cluster.proto", { includeDirs: [PROTO] });
  const methods = definition[SERVICE] as grpc.ServiceDefinition;
  const client = new grpc.Client(address, grpc.credentials.createInsecure());
  const unknown = { ...methods.List, path: `/${SERVICE}/Nothing` };
  return {
    call(
      method: string,
      request: Answer,
      options: grpc.CallOptions & { token?: string } = {},
    ): Promise<Answer> {
      const { path, requestSerialize, responseDeserialize } = methods[method] ?? unknown;
      const { token = TOKEN, ...rest } = options;
      const metadata = new grpc.Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      return new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          metadata,
          rest,
          (error, value) => {
            if (error) reject(error);
            else resolve(value as Answer);
          },
        );
      });
    },
    [Symbol.dispose]: () => client.close(),
  };
}

/** What a program prints; throws what it complained about when it fails. */
async function run(program: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!success) throw new Error(`${program}: ${err}${out}`);
  return out;
}
