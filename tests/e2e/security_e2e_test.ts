import assert from "node:assert/strict";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import { NodeService } from "../../proto/gen/hypercore/v1/node_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { AgentUnderTest, IMAGE } from "./agent_under_test.ts";

const API = "http://127.0.0.1:8000";
const HTTP = "http://127.0.0.1:8001";
const SPAWN = `${API}/cluster.services.api.ClusterService/Spawn`;
const JSON_TYPE = "content-type: application/json";
const REQUEST = JSON.stringify({ image_ref: IMAGE, memory: 64 });
const SECRET = "hunter2-5f2b8c";
const UNAUTHENTICATED = "16";

/** Status and body of an answer. */
async function ask(agent: AgentUnderTest, ...args: string[]): Promise<{ status: number; body: string }> {
  const text = await agent.curl("-w", "\n%{http_code}", ...args);
  const cut = text.lastIndexOf("\n");
  return { status: Number(text.slice(cut + 1)), body: text.slice(0, cut) };
}

Deno.test("who has no token, or another, gets nowhere", async (t) => {
  await using agent = await AgentUnderTest.start();
  const id = await agent.spawn();

  await t.step("the token is its owner's alone, and in no process's arguments", async () => {
    const { mode, uid } = await Deno.stat(`${agent.dir}/data/token`);
    assert.deepEqual([mode! & 0o777, uid], [0o600, 0]);
    assert(!allArguments().includes(agent.token));
    assert(!agent.output.includes(agent.token));
  });

  const bearers = {
    none: [],
    another: ["-H", "authorization: Bearer 00000000000000000000000000000000"],
    "a part of it": ["-H", `authorization: Bearer ${agent.token.slice(0, -1)}`],
    "it as a password": ["-u", `x:${agent.token}`],
    "it in the query": [],
  };

  await t.step("methods of the API, by Connect and by gRPC", async () => {
    for (const service of [ClusterService, WorkloadService, ImageService, NodeService]) {
      for (const { name } of service.methods) {
        for (const [what, bearer] of Object.entries(bearers)) {
          const url = `${API}/${service.typeName}/${name}${
            what.endsWith("query") ? `?token=${agent.token}` : ""
          }`;
          const { status, body } = await ask(
            agent,
            ...bearer,
            "-H",
            JSON_TYPE,
            "-d",
            JSON.stringify({ id }),
            url,
          );
          assert.deepEqual([status, JSON.parse(body).code], [401, "unauthenticated"], `${url} with ${what}`);
        }
        const url = `${API}/${service.typeName}/${name}`;
        const flags = [
          "--http2-prior-knowledge",
          "-H",
          "content-type: application/grpc",
          "-H",
          "te: trailers",
        ];
        const answer = await agent.curl(...flags, "-D", "-", "-X", "POST", url);
        assert.equal(/^grpc-status: (\d+)/m.exec(answer)?.[1], UNAUTHENTICATED, `${url}: ${answer}`);
      }
    }
  });

  await t.step("routes of the HTTP API", async () => {
    for (const path of ["/spawn", `/stop?id=${id}`, "/list", `/logs?id=${id}`, "/openapi.json", "/nothing"]) {
      for (const [what, bearer] of Object.entries(bearers)) {
        const query = what.endsWith("query") ? `${path.includes("?") ? "&" : "?"}token=${agent.token}` : "";
        for (const method of ["GET", "POST", "DELETE", "OPTIONS"]) {
          const { status } = await ask(agent, ...bearer, "-X", method, `${HTTP}${path}${query}`);
          assert.equal(status, 401, `${method} ${path} with ${what}`);
        }
      }
    }
    for (const path of ["/healthz", "/readyz", "/metrics"]) {
      assert.equal((await ask(agent, `${HTTP}${path}`)).status, 200, path);
    }
  });

  assert.deepEqual((await agent.workloads()).map((workload) => workload.id), [id], "nothing has changed");
});

Deno.test("a page in a browser gets nowhere, though it had the token", async () => {
  await using agent = await AgentUnderTest.start();
  const bearer = ["-H", `authorization: Bearer ${agent.token}`];
  const attempts: Record<string, [string[], number]> = {
    "foreign origin": [["-H", JSON_TYPE, "-H", "origin: http://evil.example"], 403],
    "origin of a sandbox": [["-H", JSON_TYPE, "-H", "origin: null"], 403],
    "origin of a workload": [["-H", JSON_TYPE, "-H", "origin: http://0123456789ab.example.com:8080"], 403],
    "another site": [["-H", JSON_TYPE, "-H", "sec-fetch-site: cross-site"], 403],
    "DNS rebinding": [["-H", JSON_TYPE, "-H", "host: rebound.evil.example:8000"], 403],
    "host like ours": [["-H", JSON_TYPE, "-H", "host: 127.0.0.1.evil.example"], 403],
    "JSON as text": [["-H", "content-type: text/plain"], 415],
    "form": [["-H", "content-type: application/x-www-form-urlencoded"], 415],
    "multipart form": [["-H", "content-type: multipart/form-data; boundary=x"], 415],
    "no content type": [["-H", "content-type:"], 415],
  };
  for (const [what, [headers, expected]] of Object.entries(attempts)) {
    for (const url of [SPAWN, `${HTTP}/spawn`]) {
      const { status, body } = await ask(agent, ...bearer, ...headers, "-d", REQUEST, url);
      assert.equal(status, expected, `${what} at ${url}: ${body}`);
    }
  }
  // A preflight gets no permission, whatever the answer is.
  const preflight = [
    "-X",
    "OPTIONS",
    "-H",
    "origin: http://evil.example",
    "-H",
    "access-control-request-method: POST",
  ];
  for (const url of [SPAWN, `${HTTP}/spawn`]) {
    assert(!/access-control-allow/i.test(await agent.curl("-D", "-", ...preflight, url)), url);
  }
  // What a link or a picture sends.
  const link = ["-H", "sec-fetch-site: cross-site", "-H", "sec-fetch-mode: no-cors"];
  assert.equal((await ask(agent, ...bearer, ...link, `${HTTP}/stop?id=0123456789ab`)).status, 403);
  assert.equal((await ask(agent, "-H", "host: evil.example", `${HTTP}/metrics`)).status, 403);
  assert.deepEqual(await agent.workloads(), []);
});

Deno.test("an id is never a path, and the agent is not to be had from outside in the clear", async (t) => {
  await using agent = await AgentUnderTest.start();
  const bearer = ["-H", `authorization: Bearer ${agent.token}`];
  const ids = [
    "../../etc/shadow",
    "..%2f..%2fetc%2fshadow",
    "/etc/shadow",
    "-rf",
    "a\nb",
    "a\0b",
    "$(id)",
    "é",
    "x".repeat(5000),
  ];

  await t.step("an id that is a path, a flag or a shell word", async () => {
    for (const id of ids) {
      for (
        const method of [
          "cluster.services.api.ClusterService/Stop",
          "cluster.services.api.ClusterService/Logs",
          "hypercore.v1.WorkloadService/Inspect",
        ]
      ) {
        const { status, body } = await ask(
          agent,
          ...bearer,
          "-H",
          JSON_TYPE,
          "-d",
          JSON.stringify({ id }),
          `${API}/${method}`,
        );
        assert.deepEqual(
          [status, JSON.parse(body).code],
          [400, "invalid_argument"],
          `${method} of ${id}: ${body}`,
        );
        assert(!body.includes("root:"), body);
      }
      for (const path of ["stop", "logs"]) {
        const { status, body } = await ask(agent, ...bearer, `${HTTP}/${path}?id=${encodeURIComponent(id)}`);
        assert.equal(status, 400, `${path} of ${id}: ${body}`);
        assert.match(JSON.parse(body).error, /^Cannot accept id/);
      }
    }
    for (const command of [["logs"], ["stop"], ["inspect"], ["exec"]]) {
      const words = command[0] === "exec" ? ["../../etc/shadow", "true"] : ["../../etc/shadow"];
      await assert.rejects(agent.hypercore(...command, ...words), /exit code (2|125)/);
    }
  });

  await t.step("an address others reach is refused without a certificate", async () => {
    for (const flag of ["--grpc-bind-addr", "--http-bind-addr"]) {
      for (const address of ["0.0.0.0:8100", "[::]:8100", "192.0.2.1:8100"]) {
        await assert.rejects(agent.hypercore("agent", flag, address), /not loopback; give --api-tls-cert/);
      }
    }
  });
});

Deno.test("values of a workload's environment are shown nowhere", async () => {
  await using agent = await AgentUnderTest.start(["--log-level", "debug"]);
  const env = [`PASSWORD=${SECRET}`];
  const id = await agent.spawn({ env, name: "web" });
  // One that fails with it, one that is refused, and one that starts again.
  const failing = await agent.call("Spawn", { image_ref: IMAGE, memory: 64, env, args: ["/nonexistent"] });
  const refused = await agent.call("Spawn", { image_ref: IMAGE, env: [`PASS WORD=${SECRET}`, SECRET] });
  assert.equal(refused.code, "invalid_argument");
  const bearer = ["-H", `authorization: Bearer ${agent.token}`];
  const body = ["-H", JSON_TYPE, "-d", JSON.stringify({ id })];
  const shown: Record<string, string> = {
    "a failed spawn": JSON.stringify(failing),
    "a refused spawn": JSON.stringify(refused),
    "List": JSON.stringify(await agent.call("List", {})),
    "Inspect": await agent.curl(...bearer, ...body, `${API}/hypercore.v1.WorkloadService/Inspect`),
    "/list": await agent.curl(...bearer, `${HTTP}/list`),
    "/metrics": await agent.get("/metrics"),
    "hypercore list": await agent.hypercore("list", "--json"),
    "hypercore inspect": await agent.hypercore("inspect", id),
    "arguments of processes": allArguments(),
  };
  await agent.call("Stop", { id, grace_ms: 0 });
  await agent.end("SIGTERM");
  shown["the agent's log"] = agent.output;
  await agent.run();
  for (const [what, text] of Object.entries(shown)) {
    assert(!text.includes(SECRET), `${what} shows it: ${text}`);
  }
  assert(shown.Inspect.includes("PASSWORD=***"), shown.Inspect);
});

/** The command lines of everything that runs on this machine, but for this process and what asks. */
function allArguments(): string {
  let text = "";
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const line = Deno.readTextFileSync(`/proc/${name}/cmdline`);
      if (!line.startsWith("curl\0")) text += `${line}\n`;
    } catch {
      continue; // it has ended meanwhile
    }
  }
  return text;
}
