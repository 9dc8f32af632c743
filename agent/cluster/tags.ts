/** Serf tags by which agents know each other. Everything in them is public within the cluster. */
export const TAG = {
  /** Version of the protocol between agents; a member without it is a Go node or a stock Serf agent. */
  protocol: "hc",
  /** Node id. */
  id: "id",
  /** SHA-256 of the node's TLS certificate, base64url without padding. */
  fingerprint: "fp",
  /** Port where the proxy's workers take requests from other nodes. */
  hopPort: "hp",
  /** "1" where the agent reschedules the workloads of failed nodes. */
  respawn: "respawn",
  /** Architecture of the machine as containers call it: "amd64", "arm64". */
  arch: "arch",
} as const;

/** What {@linkcode TAG.protocol} says. */
export const PROTOCOL_VERSION = "1";

/** User events and queries on the gossip wire. */
export const GOSSIP = {
  /** The original's query: a ClusterMessage, answered by ClusterMessages. */
  query: "hypercore_query",
  /** The original's state broadcast: NodeStateResponse fragments. */
  stateBroadcast: "hypercore_state_broadcast",
  /** A `hypercore.v1.StateUpdate` to the version before. */
  stateDelta: "hypercore_state_delta",
  /** A query, its payload the id of a workload that is gone: who has its log answers. */
  findLog: "hypercore_find_log",
  /** A `hypercore.v1.Heartbeat`. */
  heartbeat: "hypercore_heartbeat",
} as const;
