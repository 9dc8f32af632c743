import { HANDSHAKE_TIMEOUT_MS } from "./handshake/exchange.ts";

/** What bounds connections between nodes; tests set some of them lower. */
export interface PeerLimits {
  /** Connections that have not yet shown what they are, or not yet proved membership. */
  pending: number;
  /** The same from one address. */
  pendingPerAddress: number;
  /** The same from one IPv6 /64, a stranger's or a LAN's. */
  pendingPerNetwork: number;
  /** Time for a connection's first byte, milliseconds. */
  firstByteMs: number;
  /** Time for TLS and the proofs, milliseconds. */
  handshakeMs: number;
  /** Connections for calls. */
  connections: number;
  /** The same from one node: one is in use, others may be left of a network that broke. The oldest gives way. */
  connectionsPerPeer: number;
  /** Calls at once on a connection; more wait at the caller. */
  streamsPerConnection: number;
  /** Bytes of a message. */
  messageBytes: number;
  /** Bytes of all headers of a call. */
  headerBytes: number;
  /** The longest deadline that a caller may ask for, milliseconds. */
  deadlineMs: number;
  /** A connection without calls is closed after this, milliseconds; by callers earlier. */
  serverIdleMs: number;
  /** Whether the caller is still there is asked this often, milliseconds. */
  serverPingMs: number;
  /** Time for its answer, milliseconds. */
  pingTimeoutMs: number;
  /** Time that calls in flight get to end by themselves when the server stops, milliseconds. */
  drainMs: number;
  /** Nodes to which connections are open at once. */
  openPeers: number;
  /** A caller closes a connection without calls after this, milliseconds. */
  clientIdleMs: number;
  /** Whether the callee is still there is asked after so long without a byte from it, milliseconds. */
  clientPingMs: number;
  /** Deadline of a unary call that names none, connecting included, milliseconds. */
  callMs: number;
}

/** The limits in use. */
export const PEER_LIMITS: Readonly<PeerLimits> = {
  pending: 192,
  pendingPerAddress: 64,
  pendingPerNetwork: 128,
  firstByteMs: 5_000,
  handshakeMs: HANDSHAKE_TIMEOUT_MS,
  connections: 2_048,
  connectionsPerPeer: 4,
  streamsPerConnection: 256,
  messageBytes: 16 << 20,
  headerBytes: 16 << 10,
  deadlineMs: 24 * 3_600_000,
  serverIdleMs: 5 * 60_000,
  serverPingMs: 30_000,
  pingTimeoutMs: 5_000,
  drainMs: 500,
  openPeers: 256,
  clientIdleMs: 2 * 60_000,
  clientPingMs: 10_000,
  callMs: 15_000,
};
