/**
 * Connections between nodes: the port they share with gossip, the proofs of membership, calls both ways.
 *
 * ```ts ignore
 * const certificate = await loadPeerCertificate(dataDir, { nowMs: Date.now() });
 * const keys = new PeerKeys(() => membership.keys); // the gossip keys, the primary first
 * const port = await PeerPort.open({ bind, nodeId, certificate, keys, log });
 * const serf = await createSerf({ name, bind, transport: port.transport, tags: { fp: certificate.fingerprint } });
 * const server = new PeerServer({ routes, keys, log });
 * port.serve({ calls: server });
 * const peers = new PeerClients({ nodeId, keys, resolve: (id) => membership.addressOf(id) });
 * await peers.client(PeerService, "another node's id").cordon({ cordoned: true });
 * ```
 *
 * Disposed in this order: clients, server, gossip, port.
 *
 * @module
 */
export { CALLER, type Caller, callerOf } from "./caller.ts";
export { loadPeerCertificate, type PeerCertificate } from "./certificate.ts";
export { NO_TIMEOUT, PeerClients, type PeerClientsOptions } from "./client.ts";
export type { PeerAddress } from "./handshake/dial.ts";
export { PeerKeys } from "./handshake/peer_keys.ts";
export { PEER_LIMITS, type PeerLimits } from "./limits.ts";
export { type Observe, PeerMetrics, type PeerObservation } from "./metrics.ts";
export { PeerPort, type PeerPortOptions, type PeerTakers } from "./port.ts";
export { PeerServer, type PeerServerOptions } from "./server.ts";
