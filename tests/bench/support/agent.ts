import { LiveAgent, type LiveAgentOptions } from "../../e2e/live_agent.ts";
import { busyboxImage } from "../../support/images.ts";

/** Name of the image that a benchmarked agent has. */
export const BENCH_IMAGE = "docker.io/bench/web:1";

const API = "http://127.0.0.1:8000/cluster.services.api.ClusterService";

/** An agent with {@linkcode BENCH_IMAGE}, in a network of its own. */
export async function startBenchAgent(options: LiveAgentOptions = {}): Promise<LiveAgent> {
  const agent = await LiveAgent.start(options);
  try {
    await agent.load(busyboxImage(), BENCH_IMAGE);
  } catch (error) {
    await agent[Symbol.asyncDispose]();
    throw error;
  }
  return agent;
}

/**
 * Runs a script of the benchmarks in the agent's network, where the API is, with the agent's data directory and
 * containerd namespace as its first arguments. Gives the JSON that it prints.
 */
export async function measureInside<T>(agent: LiveAgent, script: URL, args: string[] = []): Promise<T> {
  const child = agent.host.spawn(
    Deno.execPath(),
    ["run", "-A", "--no-check", script.pathname, agent.dataDir, agent.namespace, ...args],
    { stdin: "null", stdout: "piped", stderr: "inherit" },
  );
  const { code, stdout } = await child.output();
  if (code !== 0) throw new Error(`Cannot run "${script.pathname}": exit code ${code}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Bytes that an agent with an inspector holds when its garbage has been collected. */
export function collectedHeap(agent: LiveAgent): Promise<{ heapUsed: number; external: number }> {
  return measureInside(agent, new URL("heap_inside.ts", import.meta.url));
}

/** JSON calls of ClusterService over connections that `fetch` keeps alive. */
export class BenchApi {
  readonly #headers: Record<string, string>;

  constructor(dataDir: string) {
    const token = Deno.readTextFileSync(`${dataDir}/token`).trim();
    this.#headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
  }

  /** Throws what the API answers when it is no success. */
  async call<T>(method: string, body: unknown): Promise<T> {
    const response = await fetch(`${API}/${method}`, {
      method: "POST",
      headers: this.#headers,
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`Cannot call "${method}": ${response.status} ${text}`);
    return JSON.parse(text);
  }

  /** Spawns from {@linkcode BENCH_IMAGE}; the id. */
  async spawn(fields: Record<string, unknown> = {}): Promise<string> {
    const request = { cores: 1, memory: 16, image_ref: BENCH_IMAGE, ports: { 8080: 8080 }, ...fields };
    return (await this.call<{ id: string }>("Spawn", request)).id;
  }

  async stop(id: string): Promise<void> {
    await this.call("Stop", { id, grace_ms: 0 });
  }
}

/** The machine and its load now, as a line of Markdown. */
export function machineFacts(): string {
  const load = Deno.readTextFileSync("/proc/loadavg").trim().split(" ").slice(0, 3).join(" ");
  return `${
    new Date().toISOString().slice(0, 16)
  }Z, ${navigator.hardwareConcurrency} cores, Linux ${Deno.osRelease()}, ` +
    `Deno ${Deno.version.deno}, load average ${load}`;
}
