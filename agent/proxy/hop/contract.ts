/** What makes a node a member among proxies; plain data, sent to every worker. */
export interface HopIdentity {
  /** This node's id; peers log it. At most 64 characters of printable ASCII. */
  node: string;
  /**
   * This node's own certificate and key, PEM. The certificate is self-signed, of version 3, is no CA (`CA:FALSE`, or no basic
   * constraints), names {@linkcode HOP_SERVER_NAME} as a DNS subject alternative name, and is valid at any time a member's
   * clock may show: peers pin it by its fingerprint.
   */
  certificate: { cert: string; key: string };
  /**
   * One `hopSecret` for each cluster key in force, the primary first: it is the one dialled with, all are accepted.
   */
  secrets: readonly string[];
  /** Where the workers take hops: `::` takes IPv4 as well. */
  bindHosts: readonly string[];
  /** Of that listener; the members must be told, as it may differ from node to node. */
  port: number;
}

/**
 * A workload's way through the proxy of the node that runs it. That node serves it from its own table alone: a request that
 * came by a hop takes no second one.
 */
export interface PeerUpstream {
  kind: "peer";
  /** The owner's node id. */
  node: string;
  /** The owner's address. */
  hostname: string;
  /** Where its workers take hops. */
  port: number;
  /** SHA-256 of the owner's certificate: hexadecimal, or base64url as in the members' tags. */
  fingerprint: string;
}

/** A route that turned out to be wrong. */
export interface StaleRoute {
  id: string;
  hostPort: number;
  /** The node that was asked. */
  node: string;
  /**
   * `not-here`: the node says that it does not run the workload; `unreachable`: there was no connection to the node, or from it to
   * the workload; `refused`: the node did not take us for a member.
   */
  reason: "not-here" | "unreachable" | "refused";
  /** For the log. */
  detail: string;
}

/** The part of the proxy that takes requests from other nodes. */
export interface HopEnd {
  /**
   * Makes this node take hops from now on, and able to dial peers; called again after the certificate or the cluster's
   * keys have changed: connections made under secrets that are no longer in force end after the request in hand. Throws an
   * Error that names the port when it cannot be opened; the identity before it then stays.
   */
  setHop(identity: HopIdentity): Promise<void>;
}
