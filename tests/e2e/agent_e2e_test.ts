import assert from "node:assert/strict";
import { TestHost } from "../support/host.ts";

const DEADLINE_MS = 30_000;
const POLL_MS = 100;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;
const PROGRAM = new URL("./agent_process.ts", import.meta.url).pathname;
const SERVE = "echo started; echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
const ARGS = ["/bin/busybox", "sh", "-c", SERVE];

/** A real agent in a network of its own. */
class AgentUnderTest implements AsyncDisposable {
  #process!: Deno.ChildProcess;

  private constructor(readonly host: TestHost, readonly dir: string, readonly namespace: string) {}

  static async start(): Promise<AgentUnderTest> {
    const host = await TestHost.create();
    const dir = await Deno.makeTempDir();
    const agent = new AgentUnderTest(host, dir, `e2e-${crypto.randomUUID().slice(0, 8)}`);
    await agent.run();
    return agent;
  }

  async run(): Promise<void> {
    const args = ["run", "-A", "--no-check", "--config", CONFIG, PROGRAM, this.dir, this.namespace];
    this.#process = this.host.spawn(Deno.execPath(), args, { stderr: "null" });
    await until("the agent is ready", async () => (await this.get("/readyz")).startsWith("ready"));
  }

  async end(signal: Deno.Signal): Promise<void> {
    this.#process.kill(signal);
    await this.#process.status;
  }

  async killContainerd(): Promise<void> {
    for await (const { name } of Deno.readDir("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      const line = await Deno.readTextFile(`/proc/${name}/cmdline`).catch(() => ""); // it may have ended meanwhile
      if (/^\S*containerd\0/.test(line) && line.includes(this.dir)) return Deno.kill(Number(name), "SIGKILL");
    }
    throw new Error("the agent has no containerd");
  }

  async call(method: string, body: unknown): Promise<Record<string, unknown>> {
    const token = (await Deno.readTextFile(`${this.dir}/data/token`)).trim();
    const url = `http://127.0.0.1:8000/cluster.services.api.ClusterService/${method}`;
    const headers = ["-H", "content-type: application/json", "-H", `authorization: Bearer ${token}`];
    const text = typeof body === "string" ? body : JSON.stringify(body);
    return JSON.parse(await this.#curl(...headers, "-d", text, url));
  }

  async spawn(fields: Record<string, unknown> = {}): Promise<string> {
    const request = { image_ref: "test/busybox:1", memory: 64, ports: { 8080: 8080 }, args: ARGS, ...fields };
    const answer = await this.call("Spawn", request);
    assert.match(String(answer.id), /^[0-9a-f]{12}$/, JSON.stringify(answer));
    return String(answer.id);
  }

  async workloads(): Promise<Record<string, unknown>[]> {
    const [state] = (await this.call("List", {})).states as { workloads?: Record<string, unknown>[] }[];
    return state.workloads ?? [];
  }

  get(path: string): Promise<string> {
    return this.#curl(`http://127.0.0.1:8001${path}`);
  }

  page(id: string): Promise<string> {
    return this.#curl("-H", `Host: ${id}.example.com`, "http://127.0.0.1:8080/");
  }

  async #curl(...args: string[]): Promise<string> {
    const timeoutMs = DEADLINE_MS;
    const result = await this.host.runCommand({
      program: "curl",
      args: ["-s", "-m", "20", ...args],
      timeoutMs,
    });
    return result.stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const { id } of await this.workloads()) await this.call("Stop", { id, grace_ms: 0 });
      await this.end("SIGTERM");
    } finally {
      await this.host[Symbol.asyncDispose]();
      await Deno.remove(this.dir, { recursive: true });
    }
  }
}

Deno.test("a container is spawned, served by its URL, survives kill -9 of agent and containerd, and is stopped", async () => {
  await using agent = await AgentUnderTest.start();
  const id = await agent.spawn({ name: "web", env: ["SECRET=hidden"] });
  await until("the page comes", async () => await agent.page(id) === "hello\n");
  assert.equal(await agent.page("web"), "hello\n");
  assert.equal((await agent.call("Logs", { id })).logs, "started\n");
  assert(!JSON.stringify(await agent.workloads()).includes("hidden"));

  await agent.end("SIGKILL");
  await agent.run();
  assert.equal(await agent.page(id), "hello\n");
  assert.equal((await agent.workloads())[0].generation, "1", "it was adopted, not restarted");

  await agent.killContainerd();
  await until("containerd is back", async () => (await agent.get("/readyz")).startsWith("ready"));
  assert.equal(await agent.page(id), "hello\n");
  assert.equal((await agent.call("Logs", { id })).logs, "started\n");

  await agent.call("Stop", { id: "web", grace_ms: 500 });
  assert.deepEqual(await agent.workloads(), []);
  assert.deepEqual(await agent.host.guestNetns(), []);
});

Deno.test("a container that ends starts again under its id and URL", async () => {
  await using agent = await AgentUnderTest.start();
  const brief =
    "echo hello > /tmp/index.html; /bin/busybox httpd -p 8080 -h /tmp; /bin/busybox sleep 1; exit 3";
  const id = await agent.spawn({ args: ["/bin/busybox", "sh", "-c", brief] });
  await until("it has restarted", async () => Number((await agent.workloads())[0]?.restarts ?? 0) >= 1);
  await until("the page comes again", async () => await agent.page(id) === "hello\n");
});

Deno.test("bad input gets one clear error and changes nothing", async () => {
  await using agent = await AgentUnderTest.start();
  const image_ref = "test/busybox:1";
  const table: [string, unknown, string, RegExp][] = [
    ["Spawn", {}, "invalid_argument", /image_ref/],
    ["Spawn", { image_ref, ports: { 0: 80 } }, "invalid_argument", /host port/],
    ["Spawn", `{"image_ref":"${image_ref}","ports":{"80":1,"80":2}}`, "invalid_argument", /listed twice/],
    ["Spawn", { image_ref, ports: { 8001: 80 } }, "invalid_argument", /agent itself/],
    ["Spawn", { image_ref, memory: 4_294_967_295 }, "invalid_argument", /memory/],
    ["Spawn", { image_ref, cores: 4000 }, "resource_exhausted", /vCPUs/],
    ["Spawn", { image_ref, env: ["novalue"] }, "invalid_argument", /KEY=value/],
    ["Spawn", { image_ref, nonsense: 1 }, "invalid_argument", /nonsense/],
    ["Spawn", { image_ref: "test/absent:1" }, "not_found", /test\/absent:1/],
    ["Logs", { id: "../../etc/shadow" }, "invalid_argument", /etc\/shadow/],
    ["Stop", { id: "0123456789ab" }, "not_found", /0123456789ab/],
  ];
  for (const [method, body, code, message] of table) {
    const answer = await agent.call(method, body);
    assert.equal(answer.code, code, JSON.stringify([body, answer]));
    assert.match(String(answer.message), message);
  }
  assert.deepEqual(await agent.workloads(), []);
  assert.deepEqual(await agent.host.guestNetns(), []);
});

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  while (!await holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
