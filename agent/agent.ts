import { dockerConfigCredentials, type ImageStore } from "../runtime/image/mod.ts";
import { imageStore, type ImageStoreParts, openRuntime } from "../runtime/mod.ts";
import type { Log } from "../runtime/log.ts";
import type { Images } from "./api/services.ts";
import { IDENTITY_FILE } from "./beacon/identity_file.ts";
import { LiveIdentity } from "./beacon/identity_live.ts";
import type { AgentConfig } from "./config.ts";
import { collectPeriodically } from "./garbage.ts";
import { type RunningNode, startNode } from "./node.ts";
import { openProxy } from "./proxy/mod.ts";
import { gossipKeys } from "./membership/gossip_keys.ts";
import { checkBind } from "./security/bind.ts";
import { isLoopbackName } from "./security/guard.ts";
import { loadToken, TOKEN_FILE } from "./security/token.ts";

/** What the agent uses of an image store. */
type NodeImages = Images & Pick<ImageStore, "ensure"> & AsyncDisposable;

/** What an agent is given besides its configuration. */
export interface AgentOptions {
  /** Ends the agent. */
  signal: AbortSignal;
  log: Log;
  version: string;
  /** Calls back when the operator asks to read files again (SIGHUP); returns what ends that. */
  onReload?: (listener: () => void) => () => void;
  /** Called when an operator asks for the end of the agent. */
  stop?: () => void;
  /** Makes the image store; only tests give another. */
  openImages?: (parts: ImageStoreParts) => Promise<NodeImages>;
}

/** Runs one agent until the signal aborts. Throws when it cannot start. Containers outlive it. */
export async function runAgent(config: AgentConfig, options: AgentOptions): Promise<void> {
  const { signal } = options;
  try {
    const end = Promise.withResolvers<void>();
    await using _agent = await openAgent(config, { ...options, stop: end.resolve });
    if (signal.aborted) end.resolve();
    signal.addEventListener("abort", () => end.resolve(), { once: true });
    await end.promise;
  } catch (error) {
    // Being told to stop while starting is no failure.
    if (!signal.aborted) throw error;
    options.log.debug("stopped while starting", { error: String(error) });
  }
}

/** Starts one agent; disposing it ends everything but the containers. */
export async function openAgent(config: AgentConfig, options: AgentOptions): Promise<RunningNode> {
  const { signal, log, version, onReload, stop = () => {} } = options;
  for (const address of [config.grpcBindAddr, config.httpBindAddr]) checkBind(address, config);
  await using stack = new AsyncDisposableStack();
  const token = config.insecure ? undefined : config.token ?? await loadToken(config.dataDir);
  const identity = await LiveIdentity.open(config.identityFile ?? `${config.dataDir}/${IDENTITY_FILE}`);
  const { cluster, dataDir, insecure } = config;
  const ring = await gossipKeys({
    dataDir,
    given: cluster.key,
    insecure,
    isLocal: isLoopbackName(cluster.bind.host),
    joins: cluster.joins,
  });
  const own: { node?: RunningNode } = {};
  const proxy = stack.use(
    await openProxy({
      bindHosts: config.proxyBindHosts,
      workers: config.proxyWorkers,
      tls: config.proxyTls,
      onStale: ({ node }) => own.node?.cluster.routeIsStale(node),
      log,
    }),
  );
  const { engine, images } = stack.use(
    await openRuntime<NodeImages>({
      ...config,
      logLimits: { maxBytes: config.logMaxBytes, maxFiles: config.logMaxFiles },
      log,
      openImages: options.openImages ?? imageStore({
        mirrors: config.registryMirrors,
        insecureRegistries: config.insecureRegistries,
        credentials: dockerConfigCredentials(dockerConfigFile()),
      }),
    }, signal),
  );
  const node = stack.use(
    await startNode(
      config,
      { engine, images, proxy, identity, ring, token, version, stop, log, onReload },
      signal,
    ),
  );
  stack.use(collectPeriodically(engine, { log }));
  if (config.insecure) log.warn("the API asks for no token: whoever reaches it may do anything");
  log.info("ready", {
    node: identity.nodeId,
    api: node.apiAddress,
    http: node.httpAddress,
    ...(!config.insecure && config.token === undefined && { tokenFile: `${config.dataDir}/${TOKEN_FILE}` }),
  });
  const owned = stack.move();
  return {
    apiAddress: node.apiAddress,
    httpAddress: node.httpAddress,
    cluster: node.cluster,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Where the registries' credentials are, as Docker has it. */
function dockerConfigFile(): string {
  return `${Deno.env.get("DOCKER_CONFIG") ?? `${Deno.env.get("HOME") ?? "/root"}/.docker`}/config.json`;
}
