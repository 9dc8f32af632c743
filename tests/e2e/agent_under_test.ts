import assert from "node:assert/strict";
import { sweepContainerd } from "../support/containerd.ts";
import { TestHost } from "../support/host.ts";
import { busyboxImage, type NamedImage, ociLayoutTar } from "../support/images.ts";
import { startRegistry } from "../support/registry.ts";

/** Time everything has on a machine that is busy with other tests, milliseconds. */
export const DEADLINE_MS = 60_000;
/** Name of the image that every agent under test has loaded. */
export const IMAGE = "docker.io/test/busybox:1";
/** A registry of the test's own network. */
export const REGISTRY = "127.0.0.1:5000";

const POLL_MS = 100;
const MAIN = new URL("../../main.ts", import.meta.url).pathname;

/**
 * A real agent, started by its command line in a network of its own, so that it has the default ports for itself. Its
 * whole output is kept.
 *
 * @example
 * ```ts ignore
 * await using agent = await AgentUnderTest.start();
 * const id = await agent.spawn();
 * await until("the page comes", async () => (await agent.page(id)).includes("Hello"));
 * ```
 */
export class AgentUnderTest implements AsyncDisposable {
  /** Everything it has printed. */
  output = "";
  #process!: Deno.ChildProcess;
  #reading: Promise<unknown> = Promise.resolve();
  #hasEnded = false;

  private constructor(
    readonly host: TestHost,
    readonly dir: string,
    readonly namespace: string,
    readonly flags: readonly string[],
  ) {}

  /** An agent that is ready and has {@linkcode IMAGE}; `flags` come on top. */
  static async start(flags: readonly string[] = []): Promise<AgentUnderTest> {
    await using undo = new AsyncDisposableStack();
    const host = undo.use(await TestHost.create());
    const dir = await Deno.makeTempDir({ prefix: "hc-agent-" });
    const namespace = `e2e-${crypto.randomUUID().slice(0, 8)}`;
    const agent = new AgentUnderTest(host, dir, namespace, flags);
    undo.defer(() => agent.#sweep());
    await agent.run();
    await agent.load([{ image: busyboxImage(), name: IMAGE }]);
    undo.move();
    return agent;
  }

  get pid(): number {
    return this.#process.pid;
  }

  get token(): string {
    return Deno.readTextFileSync(`${this.dir}/data/token`).trim();
  }

  /** Starts it (again); resolves when it is ready. */
  async run(): Promise<void> {
    const args = ["agent", "--data-dir", `${this.dir}/data`, "--state-dir", `${this.dir}/state`];
    args.push("--containerd-ns", this.namespace, "--node-name", "n1", "--proxy-workers", "1");
    args.push("--log-format", "json", ...this.flags);
    const options = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
    this.#process = this.host.spawn(Deno.execPath(), ["run", "-A", "--no-check", MAIN, ...args], options);
    this.#hasEnded = false;
    const { stdout, stderr } = this.#process;
    this.#reading = Promise.all([this.#read(stdout), this.#read(stderr)]);
    await until(
      "the agent is ready",
      async () => (await this.get("/readyz")).startsWith("ready"),
      () => this.output,
    );
  }

  async end(signal: Deno.Signal): Promise<Deno.CommandStatus> {
    this.#process.kill(signal);
    const status = await this.#process.status;
    this.#hasEnded = true;
    await this.#reading;
    return status;
  }

  async killContainerd(): Promise<void> {
    for await (const { name } of Deno.readDir("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      const line = await Deno.readTextFile(`/proc/${name}/cmdline`).catch(() => ""); // it may have ended meanwhile
      if (/^\S*containerd\0/.test(line) && line.includes(this.dir)) return Deno.kill(Number(name), "SIGKILL");
    }
    throw new Error("the agent has no containerd");
  }

  /** Runs a command of Hypercore against this agent; throws when it fails. */
  async hypercore(...args: string[]): Promise<string> {
    const options = ["--data-dir", `${this.dir}/data`];
    const { stdout } = await this.host.run(
      Deno.execPath(),
      "run",
      "-A",
      "--no-check",
      MAIN,
      ...args,
      ...options,
    );
    return stdout;
  }

  /** Loads images through the API. */
  async load(images: readonly NamedImage[]): Promise<string> {
    const archive = `${this.dir}/images.tar`;
    await Deno.writeFile(archive, ociLayoutTar(images));
    try {
      return await this.hypercore("image", "load", archive);
    } finally {
      await Deno.remove(archive);
    }
  }

  /** Serves images at {@linkcode REGISTRY} in the agent's network, under `repository:tag`. Dispose ends the registry. */
  async serveImages(images: Readonly<Record<string, NamedImage["image"]>>): Promise<AsyncDisposable> {
    await using undo = new AsyncDisposableStack();
    // Filled outside, then served inside from the same folder.
    const filled = undo.use(await startRegistry());
    for (const [name, image] of Object.entries(images)) await filled.push(image, name);
    const config = `${filled.dir}/inside.yml`;
    const text = await Deno.readTextFile(`${filled.dir}/config.yml`);
    await Deno.writeTextFile(config, text.replace("127.0.0.1:0", REGISTRY));
    const child = this.host.spawn("docker-registry", ["serve", config], { stdout: "null", stderr: "null" });
    undo.defer(async () => {
      child.kill("SIGKILL");
      await child.status;
    });
    await until("the registry answers", async () => (await this.curl(`http://${REGISTRY}/v2/`)) === "{}");
    return undo.move();
  }

  /** Calls a method of ClusterService by plain curl. */
  async call(method: string, body: unknown): Promise<Record<string, unknown>> {
    const url = `http://127.0.0.1:8000/cluster.services.api.ClusterService/${method}`;
    const headers = ["-H", "content-type: application/json", "-H", `authorization: Bearer ${this.token}`];
    const text = typeof body === "string" ? body : JSON.stringify(body);
    const answer = await this.curl(...headers, "-d", text, url);
    try {
      return JSON.parse(answer);
    } catch (cause) {
      throw new Error(`${method} answered "${answer}"; the agent printed ${this.output}`, { cause });
    }
  }

  /** Spawns from {@linkcode IMAGE}, served on host port 8080, unless `fields` say otherwise. */
  async spawn(fields: Record<string, unknown> = {}): Promise<string> {
    const answer = await this.call("Spawn", {
      image_ref: IMAGE,
      memory: 64,
      ports: { 8080: 8080 },
      ...fields,
    });
    assert.match(String(answer.id), /^[0-9a-f]{12}$/, JSON.stringify(answer));
    return String(answer.id);
  }

  async workloads(): Promise<Record<string, unknown>[]> {
    const [state] = (await this.call("List", {})).states as { workloads?: Record<string, unknown>[] }[];
    return state.workloads ?? [];
  }

  /** GET from the HTTP port, without a token. */
  get(path: string): Promise<string> {
    return this.curl(`http://127.0.0.1:8001${path}`);
  }

  /** The page of a workload, through the proxy. */
  page(id: string): Promise<string> {
    return this.curl("-H", `Host: ${id}.example.com`, "http://127.0.0.1:8080/");
  }

  /** What curl prints; empty when nobody answers. */
  async curl(...args: string[]): Promise<string> {
    const timeoutMs = DEADLINE_MS;
    const result = await this.host.runCommand({
      program: "curl",
      args: ["-s", "-m", "30", ...args],
      timeoutMs,
    });
    return result.stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (this.#hasEnded) return;
      for (const { id } of await this.workloads()) await this.call("Stop", { id, grace_ms: 0 });
      await this.end("SIGTERM");
    } finally {
      await this.host[Symbol.asyncDispose]();
      await this.#sweep();
    }
  }

  #sweep(): Promise<void> {
    const { dir, namespace } = this;
    return sweepContainerd({ dir, socket: `${dir}/data/containerd.sock`, namespaces: [namespace] });
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) this.output += text;
  }
}

/** Waits until something holds, for at most {@linkcode DEADLINE_MS}. */
export async function until(
  what: string,
  holds: () => Promise<boolean> | boolean,
  facts: () => string = () => "",
): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  while (!await holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms: ${what}\n${facts()}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
