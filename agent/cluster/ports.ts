import type { NodeStateResponse, VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { WorkloadChange } from "./workload_change.ts";

/** A member as the cluster's cores see it. */
export interface ClusterMember {
  /** Node id: the tag, or the member's name where it has none. */
  id: string;
  name: string;
  status: "alive" | "leaving" | "left" | "failed";
  /** IP address and gossip port. */
  address: { host: string; port: number };
  tags: Readonly<Record<string, string>>;
}

/** A workload of this node, as it is told to others: the values of its environment are left out. */
export type LocalState =
  & Pick<
    NodeStateResponse,
    "workloads" | "capacity" | "cordoned" | "tags" | "policy" | "beacon"
  >
  & Partial<Pick<NodeStateResponse, "observations">>;

/** A version of a node's state. */
export interface StateVersion {
  incarnation: bigint;
  version: bigint;
}

/** What a core wants done. Drivers do it and report back by the inputs named here. */
export type ClusterEffect =
  /** A user event, coalescing off. */
  | { kind: "event"; name: string; payload: Uint8Array }
  /** Fetch the state of a node from itself (`since` undefined: whole); answer by `fetched`. */
  | { kind: "fetch"; nodeId: string; since?: StateVersion }
  /** Fetch all states from one peer, after a join; answer by `learned`, one by one, then `learnedAll`. */
  | { kind: "fetch-all"; nodeId: string }
  /** A copy of this workload with a better claim runs elsewhere: end the local one, without a tombstone. */
  | { kind: "end-duplicate"; id: string; generation: bigint; winner: string }
  /** A tombstone forbids a workload that runs here: end it. */
  | { kind: "end-stopped"; id: string; generation: bigint }
  /** Start a dead node's workload somewhere, with this generation; answer by `rescheduled`. */
  | {
    kind: "reschedule";
    id: string;
    generation: bigint;
    from: string;
    request: VmSpawnRequest;
    createdAtMs: bigint;
    restarts: number;
  }
  /** Give this node's request of a workload in trust to these nodes; answer by `entrustDone`, for each. */
  | { kind: "entrust"; id: string; to: readonly string[] }
  /** The tombstones changed: keep them on disk. */
  | { kind: "save-tombstones" }
  /** Who serves what has changed: plan the routes anew. */
  | { kind: "routes" }
  /** Another node's workload changed: for the cluster's event stream. */
  | { kind: "workload"; nodeId: string; id: string; change: WorkloadChange }
  /** A state was not believed. `owner`: it came from where the node itself should be. */
  | { kind: "refused"; nodeId: string; via: "event" | "owner" | "relay" }
  /** For the cluster's event stream and the log. */
  | { kind: "note"; nodeId: string; text: string };

/** How this node's state is signed; the beacon's part. What the bytes say is defined at `StateUpdate` in peer.proto. */
export interface StateSigner {
  /** Goes into `public_key`. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
  /** Goes into `rotations`. */
  readonly rotations: readonly string[];
  /** The signature as it goes into `state_signature`. */
  sign(bytes: Uint8Array): string;
}

/** What somebody says to be a node's state. */
export interface StateClaim {
  nodeId: string;
  /** What the signature must be over. */
  bytes: Uint8Array;
  /** The state, without its workloads. */
  header: NodeStateResponse;
  /** Empty where there is none. */
  signature: string;
  publicKey: Uint8Array;
}

/** Result of checking a state's signature. */
export type Verdict = "verified" | "unsigned" | { refused: string };

/** Judges states of others before they are believed. */
export interface StateVerifier {
  verify(claim: StateClaim): Verdict;
}
