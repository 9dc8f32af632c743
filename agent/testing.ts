import { createSerf, type Serf } from "../gossip/mod.ts";
import { RuntimeError } from "../runtime/errors.ts";
import { silentLog } from "../runtime/log.ts";
import { MemoryEngine } from "../runtime/testing/memory_engine.ts";
import type { Images } from "./api/services.ts";
import type { RotatableIdentity } from "./beacon/identity_live.ts";
import { memoryIdentity } from "./beacon/testing.ts";
import type { AgentConfig, ClusterConfig } from "./config.ts";
import { USER_EVENT_LIMIT } from "./membership/membership.ts";
import { type NodeParts, type RunningNode, startNode } from "./node.ts";
import { FakeProxy } from "./workloads/testing.ts";

/** How long anything may take on a busy machine, milliseconds. */
const DEADLINE_MS = 60_000;
const POLL_MS = 20;

/** What of a node a test decides about. */
export interface TestNodeOptions {
  config?: Partial<Omit<AgentConfig, "cluster">>;
  cluster?: Partial<ClusterConfig>;
  parts?: Partial<NodeParts>;
}

/** A node of a test: everything is real but the container engine and the proxy. */
export interface TestNode extends AsyncDisposable {
  readonly name: string;
  readonly engine: MemoryEngine;
  readonly identity: RotatableIdentity;
  readonly running: RunningNode;
  readonly dataDir: string;
  /** Calls its API by JSON: `Service/Method`. Throws what it answers where that is no success. */
  call(method: string, body: unknown): Promise<Record<string, unknown>>;
}

/** Nodes on loopback that have joined the first one; each sees all. */
export async function startNodes(
  names: readonly string[],
  optionsOf: (name: string) => TestNodeOptions = () => ({}),
): Promise<AsyncDisposable & { nodes: TestNode[] }> {
  await using stack = new AsyncDisposableStack();
  const nodes: TestNode[] = [];
  for (const name of names) {
    const joins = nodes.slice(0, 1).map(({ running }) => {
      const { host, port } = running.cluster.membership.self.address;
      return `${host}:${port}`;
    });
    nodes.push(stack.use(await startTestNode(name, joins, optionsOf(name))));
  }
  await until("all nodes know all states", () =>
    nodes.every(({ running }) => {
      const known = running.cluster.core.nodes().filter(({ life, header }) => life === "live" && header);
      return known.length === nodes.length;
    }));
  const owned = stack.move();
  return { nodes, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** A member of the test's own that is no agent, so that it can say anything. */
export async function joinAs(node: TestNode, name: string, tags: Record<string, string>): Promise<Serf> {
  const serf = await createSerf({
    name,
    bind: { host: "127.0.0.1", port: 0 },
    profile: "local",
    tags,
    serf: { userEventSizeLimit: USER_EVENT_LIMIT },
  });
  const { host, port } = node.running.cluster.membership.self.address;
  // Until somebody answers: a call has a second in this profile, which a busy machine may exceed.
  await serf.retryJoin([`${host}:${port}`], { firstPauseMs: POLL_MS });
  await until(`${name} is a member`, () => {
    return node.running.cluster.core.nodes().some((each) => each.name === name && each.life === "live");
  });
  return serf;
}

/** Waits until it holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  while (!await holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function startTestNode(
  name: string,
  joins: readonly string[],
  options: TestNodeOptions,
): Promise<TestNode> {
  await using stack = new AsyncDisposableStack();
  const dataDir = await Deno.makeTempDir({ prefix: "hc-node-" });
  stack.defer(() => Deno.remove(dataDir, { recursive: true }));
  const engine = new MemoryEngine();
  const identity = memoryIdentity();
  const config: AgentConfig = {
    ...TEST_CONFIG,
    nodeName: name,
    dataDir,
    ...options.config,
    cluster: { ...TEST_CONFIG.cluster, joins: [...joins], ...options.cluster },
  };
  const running = stack.use(
    await startNode(config, {
      engine,
      images: NO_IMAGES,
      proxy: new FakeProxy(),
      identity,
      ring: { keys: [], isNew: false },
      version: "test",
      log: silentLog,
      ...options.parts,
    }, new AbortController().signal),
  );
  const owned = stack.move();
  return {
    name,
    engine,
    identity,
    running,
    dataDir,
    async call(method, body) {
      const response = await fetch(`http://127.0.0.1:${running.apiAddress.port}/${method}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      const answer = await response.json();
      if (!response.ok) throw new Error(`${answer.code}: ${answer.message}`);
      return answer;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The configuration of an agent of a test: loopback, free ports, no token. */
export const TEST_CONFIG: AgentConfig = {
  nodeName: "n1",
  cluster: {
    bind: { host: "127.0.0.1", port: 0 },
    joins: [],
    profile: "local",
    tags: {},
    respawn: "off",
    requireSigned: false,
  },
  dataDir: "/nonexistent",
  stateDir: "/nonexistent",
  containerdSocket: "/nonexistent/c.sock",
  containerdNamespace: "test",
  grpcBindAddr: { host: "127.0.0.1", port: 0 },
  httpBindAddr: { host: "127.0.0.1", port: 0 },
  baseUrl: "example.com",
  proxyBindHosts: ["127.0.0.1"],
  proxyWorkers: 1,
  insecure: true,
  cniPath: [],
  subnet: "192.168.127.0/24",
  registryMirrors: {},
  insecureRegistries: [],
  proofIntervalMs: 60_000,
  logMaxBytes: 1,
  logMaxFiles: 1,
  logLevel: "info",
  logFormat: "text",
};

const NO_IMAGES: Images = {
  pull: (ref) => Promise.reject(new RuntimeError("not-found", `Cannot pull image "${ref}": not found`)),
  load: () => Promise.resolve([]),
  list: () => Promise.resolve([]),
  remove: (ref) => Promise.reject(new RuntimeError("not-found", `Cannot remove image "${ref}": not found`)),
};
