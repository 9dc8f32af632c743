import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { AgentUnderTest, IMAGE, REGISTRY, until } from "./agent_under_test.ts";

Deno.test("a spawn pulls from a registry, is served by its URL, survives kill -9 of agent and containerd, and is stopped", async () => {
  await using agent = await AgentUnderTest.start();
  await using _registry = await agent.serveImages({ "test/web:1": busyboxImage({ text: "pulled\n" }) });
  const image_ref = `${REGISTRY}/test/web:1`;
  const id = await agent.spawn({ image_ref, name: "web", env: ["SECRET=hidden"] });
  await until("the page comes", async () => await agent.page(id) === "pulled\n");
  assert.equal(await agent.page("web"), "pulled\n");
  // The server is up before its starter has said so.
  const logs = async () => (await agent.call("Logs", { id })).logs;
  await until("its line is in the log", async () => await logs() === "serving on port 8080\n");
  assert.match(await agent.hypercore("image", "list"), /127\.0\.0\.1:5000\/test\/web:1/);

  await agent.end("SIGKILL");
  await agent.run();
  assert.equal(await agent.page(id), "pulled\n");
  assert.equal((await agent.workloads())[0].generation, "1", "it was adopted, not restarted");

  await agent.killContainerd();
  await until("containerd is back", async () => (await agent.get("/readyz")).startsWith("ready"));
  assert.equal(await agent.page(id), "pulled\n");
  assert.equal(await logs(), "serving on port 8080\n");

  await agent.call("Stop", { id: "web", grace_ms: 500 });
  assert.deepEqual(await agent.workloads(), []);
  assert.deepEqual(await agent.host.guestNetns(), []);
});

Deno.test("a container that ends shows its exit code and starts again under its id and URL", async () => {
  await using agent = await AgentUnderTest.start();
  const brief = "echo hello > /tmp/index.html; httpd -p 8080 -h /tmp; sleep 1; exit 3";
  const id = await agent.spawn({ args: ["sh", "-c", brief] });
  let seen: Record<string, unknown> = {};
  await until("it backs off", async () => {
    [seen = {}] = await agent.workloads();
    return seen.status === "backing-off";
  });
  assert.equal(seen.exit_code ?? seen.exitCode, 3, JSON.stringify(seen));
  await until("it has restarted", async () => Number((await agent.workloads())[0]?.restarts ?? 0) >= 1);
  await until("the page comes again", async () => await agent.page(id) === "hello\n");
});

Deno.test("the agent prints its log and nothing else, and ends in order on SIGTERM", async () => {
  await using agent = await AgentUnderTest.start();
  await agent.spawn();
  await agent.call("List", {});
  // A client that leaves in the middle.
  await agent.curl("-m", "0.05", `http://127.0.0.1:8001/list`);
  assert.equal((await agent.end("SIGTERM")).code, 0);
  const { output } = agent;
  await agent.run();
  for (const line of output.trim().split("\n")) {
    const { level } = JSON.parse(line);
    assert(["debug", "info"].includes(level), line);
  }
});

Deno.test("bad input gets one clear error and changes nothing", async () => {
  await using agent = await AgentUnderTest.start();
  const image_ref = IMAGE;
  const table: [string, unknown, string, RegExp][] = [
    ["Spawn", {}, "invalid_argument", /image_ref/],
    ["Spawn", { image_ref, ports: { 0: 80 } }, "invalid_argument", /host port/],
    ["Spawn", `{"image_ref":"${image_ref}","ports":{"80":1,"80":2}}`, "invalid_argument", /listed twice/],
    ["Spawn", { image_ref, ports: { 8001: 80 } }, "invalid_argument", /agent itself/],
    ["Spawn", { image_ref, memory: 4_294_967_295 }, "invalid_argument", /memory/],
    ["Spawn", { image_ref, cores: 4000 }, "resource_exhausted", /vCPUs/],
    ["Spawn", { image_ref, env: ["novalue"] }, "invalid_argument", /KEY=value/],
    ["Spawn", { image_ref, nonsense: 1 }, "invalid_argument", /nonsense/],
    ["Spawn", { image_ref: `${REGISTRY}/test/absent:1` }, "unavailable", /127\.0\.0\.1:5000/],
    ["Logs", { id: "../../etc/shadow" }, "invalid_argument", /etc\/shadow/],
    ["Stop", { id: "0123456789ab" }, "not_found", /0123456789ab/],
  ];
  for (const [method, body, code, message] of table) {
    const answer = await agent.call(method, body);
    assert.equal(answer.code, code, JSON.stringify([body, answer]));
    assert.match(String(answer.message), message);
  }
  await using _registry = await agent.serveImages({});
  const absent = await agent.call("Spawn", { image_ref: `${REGISTRY}/test/absent:1` });
  assert.deepEqual([absent.code, /test\/absent:1/.test(String(absent.message))], ["not_found", true]);
  assert.deepEqual(await agent.workloads(), []);
  assert.deepEqual(await agent.host.guestNetns(), []);
});
