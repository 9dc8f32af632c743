import type { ContainerEngine } from "../runtime/engine.ts";
import { RuntimeError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";
import type { RotatableIdentity } from "./beacon/identity_live.ts";
import type { BeaconObservation } from "./beacon/observation.ts";
import { NodeBeacon } from "./beacon/node_beacon.ts";
import { apiHandler } from "./api/handler.ts";
import { listenApi } from "./api/listener.ts";
import { type Images, routes } from "./api/services.ts";
import type { AgentConfig, HostPort } from "./config.ts";
import type { Cluster } from "./control/cluster.ts";
import { httpApp } from "./http/app.ts";
import { listenHttp } from "./http/server.ts";
import { BeaconMetrics } from "./metrics/beacon_metrics.ts";
import { ApiMetrics } from "./metrics/api_metrics.ts";
import { AgentMetrics } from "./metrics/metrics.ts";
import { openMember } from "./member.ts";
import type { GossipKeys } from "./membership/gossip_keys.ts";
import { nodeCapacity, parseMeminfo } from "./node_facts.ts";
import { openPolicies } from "./policies.ts";
import { policyContext } from "./policy/context.ts";
import type { Candidate } from "./policy/facts.ts";
import { localCandidate } from "./policy/local.ts";
import { openProofs } from "./proofs.ts";
import type { Proxy } from "./proxy/mod.ts";
import { checkBind } from "./security/bind.ts";
import { acceptedHosts, type GuardPolicy } from "./security/guard.ts";
import { decodeLabels } from "./workloads/labels.ts";
import { DEFAULT_MEMORY_MIB } from "./workloads/limits.ts";
import { parseSpawn } from "./workloads/parse_spawn.ts";
import { WorkloadManager } from "./workloads/manager.ts";

/** Time between the withdrawal of a route and the stop signal, milliseconds. */
const DRAIN_MS = 200;
const MEBIBYTE = 1_048_576;

/** The parts a node is made of; tests bring their own. */
export interface NodeParts {
  engine: ContainerEngine;
  images: Images;
  proxy: Proxy;
  identity: RotatableIdentity;
  /** Calls back when the operator asks to read files again; returns what ends that. */
  onReload?: (listener: () => void) => () => void;
  /** Keys of gossip. */
  ring: GossipKeys;
  /** Of the API; absent means none is asked for. */
  token?: string;
  version: string;
  /** Asks for the end of the agent, as `hypercore leave` does. */
  stop?: () => void;
  log: Log;
}

/** A node that answers. Disposing closes its ports and ends its work; containers run on. */
export interface RunningNode extends AsyncDisposable {
  readonly apiAddress: HostPort;
  readonly httpAddress: HostPort;
  /** Its part in the cluster. */
  readonly cluster: Cluster;
}

/** Wires one node together and opens its ports, when what ran before is adopted and routed again. */
export async function startNode(
  config: AgentConfig,
  parts: NodeParts,
  signal: AbortSignal,
): Promise<RunningNode> {
  const { engine, images, proxy, identity, version, log } = parts;
  for (const address of [config.grpcBindAddr, config.httpBindAddr]) checkBind(address, config);
  await using stack = new AsyncDisposableStack();
  const metrics = stack.use(new AgentMetrics({ version, nodeName: config.nodeName }));
  // Its parts are there before the cluster, which is told what they do.
  const own: { cluster?: Cluster } = {};
  const parseContext = {
    nodeName: config.nodeName,
    reservedPorts: new Set([config.grpcBindAddr.port, config.httpBindAddr.port]),
  };
  const apiMetrics = new ApiMetrics(metrics.registry);
  const beaconMetrics = new BeaconMetrics(metrics.registry);
  const observeBeacon = (observation: BeaconObservation) => beaconMetrics.observe(observation);
  const beacon = stack.use(
    await NodeBeacon.open({
      identity,
      nodeName: config.nodeName,
      version,
      observe: observeBeacon,
      engine,
      config: config.beacon,
      onChange: () => own.cluster?.localChanged(),
      log,
    }),
  );
  const self = (): Candidate =>
    localCandidate({
      id: identity.nodeId,
      name: config.nodeName,
      tags: config.cluster.tags,
      workloads: manager.list(),
      capacity: manager.capacity,
      usage: manager.usage,
      cordoned: own.cluster?.isCordoned,
      facts: beacon.localFacts(),
    });
  const candidates = () => own.cluster?.policies.candidates() ?? [self()];
  const policies = stack.use(
    await openPolicies(config, {
      nodeId: identity.nodeId,
      candidates,
      log,
      observe: (observation) => metrics.observePolicy(observation),
      onReload: parts.onReload,
    }),
  );
  const newId = () => crypto.getRandomValues(new Uint8Array(6)).toHex();
  const manager: WorkloadManager = stack.use(
    new WorkloadManager({
      engine,
      proxy,
      log,
      policies: policies.gate,
      node: {
        ...parseContext,
        baseUrl: config.baseUrl,
        tls: config.proxyTls !== undefined,
      },
      capacity: nodeCapacity({
        cpus: navigator.hardwareConcurrency,
        memory: parseMeminfo(await Deno.readTextFile("/proc/meminfo")),
        grantedBytes: await grantedBytes(engine),
        vcpuLimit: config.vcpuLimit,
      }),
      nowMs: Date.now,
      setTimer(callback, delayMs) {
        const timer = setTimeout(callback, delayMs);
        return () => clearTimeout(timer);
      },
      newId,
      drainMs: DRAIN_MS,
      observe: (observation) => metrics.observe(observation),
      onChange: () => own.cluster?.localChanged(),
      routes: (routes) => own.cluster?.routes(routes) ?? routes,
    }),
  );
  const proofs = stack.use(
    openProofs(config, {
      manager,
      engine,
      identity,
      registry: metrics.registry,
      onProofs: () => own.cluster?.localChanged(),
      log,
    }),
  );
  metrics.connect({
    workloads: () => manager.list(),
    ledger: () => manager,
    proxy,
    readersCutOff: () => manager.readersCutOff,
  });
  proofs.keeper.start();
  await manager.start(signal);
  manager.applyNetworkPolicies();
  stack.defer(policies.store.onChange(() => manager.applyNetworkPolicies()));
  await proofs.keeper.resume();
  const cluster = own.cluster = stack.use(
    await openMember({
      config: config.cluster,
      dataDir: config.dataDir,
      ring: parts.ring,
      identity,
      nodeId: identity.nodeId,
      nodeName: config.nodeName,
      version,
      manager,
      policies: { gate: policies.gate, self },
      policyContext: () => policyContext(policies.store.current?.policy, config.cluster.tags),
      beacon,
      observeBeacon,
      engine,
      images,
      proofs,
      proxy,
      newId,
      metrics: metrics.gossip,
      registry: metrics.registry,
      stop: parts.stop ?? (() => {}),
      log,
    }),
  );
  metrics.connectCluster(cluster);

  const shutdown = new AbortController();
  const addresses = Deno.networkInterfaces().map((each) => each.address);
  const guard: GuardPolicy = {
    token: parts.token,
    hosts: acceptedHosts({
      nodeName: config.nodeName,
      baseUrl: config.baseUrl,
      bindHosts: [config.grpcBindAddr.host, config.httpBindAddr.host],
      interfaceAddresses: addresses,
    }),
  };
  const { nodeName, containerdNamespace, insecure, baseUrl } = config;
  const facts = { nodeName, nodeId: identity.nodeId, version, containerdNamespace, insecure, baseUrl };
  const apiListener = stack.use(
    await listenApi({
      address: config.grpcBindAddr,
      tls: config.apiTls,
      log,
      onRefused: apiMetrics.refusedConnection,
      onStalled: apiMetrics.cutConnection,
      handler: apiHandler({
        routes: routes({
          cluster,
          manager,
          engine,
          images,
          identity,
          proofs: cluster.proofs ?? proofs.service,
          facts,
          policy: {
            ...policies,
            candidates,
            // Which node may have it is the question here.
            parse: (request) => parseSpawn({ ...request, node: "" }, parseContext),
          },
        }),
        guard,
        log,
        count: apiMetrics.call,
        shutdown: shutdown.signal,
      }),
    }),
  );
  const app = httpApp({
    api: cluster.calls,
    guard,
    log,
    version,
    metrics: () => metrics.text(),
    ready: async () => void await engine.health(),
    count: apiMetrics.httpRequest,
  });
  const httpListener = stack.use(
    await listenHttp(app, {
      address: config.httpBindAddr,
      tls: config.apiTls,
      log,
      onRefused: apiMetrics.refusedConnection,
      onStalled: apiMetrics.cutConnection,
    }),
  );
  // Disposed first: streams end before the ports close.
  stack.defer(() => shutdown.abort(new RuntimeError("unavailable", "Cannot go on: the agent is stopping")));
  const owned = stack.move();
  return {
    apiAddress: apiListener.address,
    httpAddress: httpListener.address,
    cluster,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Memory that workloads of an earlier agent were granted. */
async function grantedBytes(engine: ContainerEngine): Promise<number> {
  let sum = 0;
  for (const { labels } of await engine.list()) {
    const record = decodeLabels(labels);
    if (record === undefined || record instanceof Error) continue;
    sum += (record.request.memory || DEFAULT_MEMORY_MIB) * MEBIBYTE;
  }
  return sum;
}
