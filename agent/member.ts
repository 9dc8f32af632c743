import type { DescService } from "@bufbuild/protobuf";
import type { Client, ConnectRouter } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import type { Transport } from "../gossip/mod.ts";
import type { Log } from "../runtime/log.ts";
import { PinnedIdentities } from "./beacon/pinned_identities.ts";
import { IdentitySigner } from "./beacon/state_signature.ts";
import type { ClusterConfig } from "./config.ts";
import { Cluster } from "./control/cluster.ts";
import type { ClusterParts, PeerLocation, PeerNetwork } from "./control/cluster_parts.ts";
import { DurableFacts } from "./control/durable.ts";
import type { GossipKeys } from "./membership/gossip_keys.ts";
import {
  loadPeerCertificate,
  type Observe,
  type PeerCertificate,
  PeerClients,
  PeerKeys,
  PeerMetrics,
  PeerPort,
  PeerServer,
} from "./peer/mod.ts";
import { HopPort } from "./control/hop_port.ts";
import type { HopEnd } from "./proxy/mod.ts";
import { isLoopbackName } from "./security/guard.ts";

/** Folder in the data dir of what a node's part in the cluster remembers. */
export const CLUSTER_DIR = "cluster";
const SNAPSHOT_FILE = "gossip.snapshot";

/** What {@linkcode openMember} is given besides the parts of a {@linkcode Cluster}. */
export interface MemberOptions extends Omit<ClusterParts, "network" | "durable" | "gossip" | "hopPort"> {
  dataDir: string;
  ring: GossipKeys;
  proxy: HopEnd;
  /** Where the connections between nodes are counted. */
  registry: Registry;
}

/**
 * Makes this node a member: keys, certificate, the port it shares with gossip, and its part in the cluster. Disposing says
 * goodbye to the others first. Throws an Error that says what is wrong.
 */
export async function openMember(options: MemberOptions): Promise<Cluster> {
  const { config, dataDir, nodeId, ring, log } = options;
  const certificate = await loadPeerCertificate(dataDir, { nowMs: Date.now() });
  const pins = await PinnedIdentities.open(dataDir, { requireSigned: config.requireSigned, log });
  const durable = await DurableFacts.open(`${dataDir}/${CLUSTER_DIR}`, log);
  await using stack = new AsyncDisposableStack();
  stack.use(pins);
  // Until there is a member, whose ring may change.
  const own: { member?: Cluster } = {};
  const clusterKeys = () => own.member?.membership.keys ?? ring.keys;
  const connections: { network?: PeerConnections } = {};
  const peers = new PeerMetrics(options.registry, {
    incoming: () => connections.network?.incoming ?? 0,
    outgoing: () => connections.network?.outgoing ?? 0,
    pending: () => connections.network?.pending ?? 0,
  });
  const network = connections.network = stack.use(
    await PeerConnections.open({
      config,
      nodeId,
      certificate,
      clusterKeys,
      log,
      observe: (observation) => peers.observe(observation),
    }),
  );
  const { proxy } = options;
  const hop = new HopPort({ nodeId, proxy, gossip: network.address, certificate, clusterKeys, log });
  await hop.open();
  const member = own.member = await Cluster.open({
    ...options,
    signer: new IdentitySigner(options.identity),
    verifier: pins.verifier,
    config: { ...config, bind: network.address },
    network,
    durable,
    hopPort: hop.port,
    gossip: {
      keys: ring.keys,
      keyringFile: ring.file,
      snapshotFile: `${dataDir}/${CLUSTER_DIR}/${SNAPSHOT_FILE}`,
    },
  });
  member.membership.serf.listen((event) => {
    if (event.kind === "keyring") hop.renew();
  });
  member.closeLast(stack.move());
  sayHowToJoin(member, { isNew: ring.isNew, log });
  return member;
}

/** The line that other machines are started with; the key in it is made only once. */
function sayHowToJoin(member: Cluster, options: { isNew: boolean; log: Log }): void {
  const { host, port } = member.membership.self.address;
  const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  if (!member.membership.isEncrypted) {
    if (!isLoopbackName(host)) {
      options.log.warn("gossip is not encrypted: whoever reaches it may join and read", { address });
    }
    return;
  }
  if (!options.isNew) return;
  options.log.info("made the cluster's key; start other nodes with", {
    command: `hypercore agent --join ${member.membership.keys[0].toBase64()}@${address}`,
  });
}

/** Port, server and clients of the calls between nodes. */
class PeerConnections implements PeerNetwork {
  readonly #nodeId: string;
  readonly #port: PeerPort;
  readonly #keys: PeerKeys;
  readonly #clients: PeerClients;
  readonly #log: Log;
  readonly #observe: Observe | undefined;
  #server: PeerServer | undefined;
  #resolve: (nodeId: string) => PeerLocation | undefined = () => undefined;

  private constructor(
    readonly fingerprint: string,
    own: { nodeId: string; port: PeerPort; keys: PeerKeys; log: Log; observe?: Observe },
  ) {
    this.#nodeId = own.nodeId;
    this.#port = own.port;
    this.#keys = own.keys;
    this.#log = own.log;
    this.#observe = own.observe;
    this.#clients = new PeerClients({
      nodeId: own.nodeId,
      keys: own.keys,
      resolve: (nodeId) => this.#resolve(nodeId),
      observe: own.observe,
    });
  }

  static async open(options: {
    config: ClusterConfig;
    nodeId: string;
    certificate: PeerCertificate;
    clusterKeys: () => readonly Uint8Array[];
    log: Log;
    observe?: Observe;
  }): Promise<PeerConnections> {
    const { config: { bind }, nodeId, certificate, log, observe } = options;
    const keys = new PeerKeys(options.clusterKeys);
    const port = await PeerPort.open({ bind, nodeId, certificate, keys, log, observe });
    return new PeerConnections(certificate.fingerprint, { nodeId, port, keys, log, observe });
  }

  get transport(): Transport {
    return this.#port.transport;
  }

  get address() {
    return this.#port.address;
  }

  /** Connections that other nodes have opened. */
  get incoming(): number {
    return this.#server?.connections ?? 0;
  }

  /** Connections to other nodes. */
  get outgoing(): number {
    return this.#clients.connections;
  }

  /** Connections that have not yet shown what they are, or not yet proved membership. */
  get pending(): number {
    return this.#port.pending;
  }

  serve(routes: (router: ConnectRouter) => void): void {
    this.#server = new PeerServer({ routes, keys: this.#keys, log: this.#log, observe: this.#observe });
    this.#port.serve({ calls: this.#server });
  }

  client<S extends DescService>(service: S, nodeId: string): Client<S> {
    return this.#clients.client(service, nodeId);
  }

  resolveWith(resolve: (nodeId: string) => PeerLocation | undefined): void {
    this.#resolve = resolve;
  }

  changed(): void {
    this.#clients.refresh();
  }

  async closeCalls(): Promise<void> {
    await this.#clients[Symbol.asyncDispose]();
    await this.#server?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.closeCalls();
    await this.#port[Symbol.asyncDispose]();
  }
}
