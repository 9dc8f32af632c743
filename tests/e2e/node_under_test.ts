import { memoryIdentity } from "../../agent/beacon/testing.ts";
import { startNode } from "../../agent/node.ts";
import { TEST_CONFIG } from "../../agent/testing.ts";
import { FakeProxy } from "../../agent/workloads/testing.ts";
import { silentLog } from "../../runtime/log.ts";
import { imageStore, openRuntime } from "../../runtime/mod.ts";
import { sweepContainerd } from "../support/containerd.ts";
import { TestHost } from "../support/host.ts";

/** API token of every node under test. */
export const TOKEN = "a-token-for-tests-0123456789";

/**
 * A node in this process: real containerd, containers and images, its API on a free loopback port. The guests' network
 * is apart from this machine's, so no workload is reached through a proxy here.
 */
export interface NodeUnderTest extends AsyncDisposable {
  /** Base URL of the API. */
  readonly url: string;
  readonly address: string;
  readonly dir: string;
}

/** Starts a {@linkcode NodeUnderTest}; dispose leaves nothing. */
export async function startNodeUnderTest(): Promise<NodeUnderTest> {
  await using undo = new AsyncDisposableStack();
  const host = undo.use(await TestHost.create());
  const dir = await Deno.makeTempDir({ prefix: "hc-node-" });
  const namespace = `n${crypto.randomUUID().slice(0, 8)}`;
  const config = {
    ...TEST_CONFIG,
    dataDir: `${dir}/data`,
    stateDir: `${dir}/state`,
    containerdSocket: `${dir}/data/containerd.sock`,
    containerdNamespace: namespace,
    insecure: false,
    cniPath: ["/usr/lib/cni"],
    logMaxBytes: 1 << 20,
    logMaxFiles: 2,
  };
  undo.defer(() => sweepContainerd({ dir, socket: config.containerdSocket, namespaces: [namespace] }));
  const { engine, images } = undo.use(
    await openRuntime({
      ...config,
      logLimits: { maxBytes: config.logMaxBytes, maxFiles: config.logMaxFiles },
      log: silentLog,
      network: { run: host.runCommand, writeSysctl: host.writeSysctl },
      openImages: imageStore({
        mirrors: {},
        insecureRegistries: [],
        credentials: () => Promise.resolve(undefined),
      }),
    }),
  );
  undo.defer(async () => {
    for (const { id } of await engine.list()) await engine.remove(id, { graceMs: 0 });
  });
  const parts = {
    engine,
    images,
    identity: memoryIdentity(),
    proxy: new FakeProxy(),
    ring: { keys: [], isNew: false },
    token: TOKEN,
    version: "test",
    log: silentLog,
  };
  const node = undo.use(await startNode(config, parts, new AbortController().signal));
  const address = `127.0.0.1:${node.apiAddress.port}`;
  const owned = undo.move();
  return { url: `http://${address}`, address, dir, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
