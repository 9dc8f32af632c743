import type { DescService } from "@bufbuild/protobuf";
import type { Client, ConnectRouter } from "@connectrpc/connect";
import type { MetricsRegistry, Transport } from "../../gossip/mod.ts";
import type { PolicyContext } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ContainerEngine } from "../../runtime/engine.ts";
import type { Log } from "../../runtime/log.ts";
import type { Images } from "../api/services.ts";
import type { NodeIdentity } from "../beacon/identity.ts";
import type { BeaconObservation } from "../beacon/observation.ts";
import type { NodeBeacon } from "../beacon/node_beacon.ts";
import type { StateSigner, StateVerifier } from "../cluster/ports.ts";
import type { ClusterConfig } from "../config.ts";
import type { Candidate } from "../policy/facts.ts";
import type { PolicyGate } from "../policy/gate.ts";
import type { NodeProofs } from "../proofs.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import type { DurableFacts } from "./durable.ts";

/** Calls to other nodes, and what they call here. */
export interface PeerNetwork extends AsyncDisposable {
  /** Gossip's packets and streams, on the same port. */
  readonly transport: Transport;
  /** Own certificate, for the tag. */
  readonly fingerprint: string;
  /** Begins to answer. */
  serve(routes: (router: ConnectRouter) => void): void;
  /** Calls another node. */
  client<S extends DescService>(service: S, nodeId: string): Client<S>;
  /** Where the others are. */
  resolveWith(resolve: (nodeId: string) => PeerLocation | undefined): void;
  /** The members have changed. */
  changed(): void;
  /** Ends the calls both ways; gossip goes on. */
  closeCalls(): Promise<void>;
}

/** Where a node is and by what it is known. */
export interface PeerLocation {
  /** What messages call it. */
  name: string;
  host: string;
  port: number;
  fingerprint: string;
}

/** What a node's part in its cluster is made of. */
export interface ClusterParts {
  config: ClusterConfig;
  nodeId: string;
  nodeName: string;
  version: string;
  manager: WorkloadManager;
  engine: ContainerEngine;
  images: Images;
  network: PeerNetwork;
  /** Where the proxy takes requests from other nodes; absent where no port could be opened. */
  hopPort: number | undefined;
  durable: DurableFacts;
  gossip: { keys: readonly Uint8Array[]; keyringFile?: string; snapshotFile: string };
  signer?: StateSigner;
  verifier?: StateVerifier;
  /** Judges where workloads may run, and this node as its policies see it. */
  policies: { gate: PolicyGate; self: () => Candidate };
  /** What this node's state says of its policy. */
  policyContext?: () => PolicyContext;
  /** Who this node is. */
  identity: NodeIdentity;
  /** Counts what happens to beacons. */
  observeBeacon?: (observation: BeaconObservation) => void;
  /** What it measures and says of itself. */
  beacon?: NodeBeacon;
  /** What this node's workloads used. */
  proofs?: NodeProofs;
  newId: () => string;
  metrics?: MetricsRegistry;
  /** Asks for the end of the agent. */
  stop: () => void;
  log: Log;
}
