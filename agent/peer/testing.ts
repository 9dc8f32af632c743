import assert from "node:assert/strict";
import { once } from "node:events";
import tls from "node:tls";
import type { ConnectRouter } from "@connectrpc/connect";
import { silentLog } from "../../runtime/log.ts";
import type { PeerCertificate } from "./certificate.ts";
import { loadPeerCertificate } from "./certificate.ts";
import { PeerClients } from "./client.ts";
import { peerCertificate } from "./handshake/channel.ts";
import { type PeerAddress, PROTOCOL } from "./handshake/dial.ts";
import { PeerKeys } from "./handshake/peer_keys.ts";
import type { PeerLimits } from "./limits.ts";
import type { PeerObservation } from "./metrics.ts";
import { PeerPort } from "./port.ts";
import { PeerServer } from "./server.ts";

/** A cluster key for tests. */
export const TEST_KEY: Uint8Array = new Uint8Array(32).fill(1);

/** A certificate as a node makes it. */
export async function makePeerCertificate(): Promise<PeerCertificate> {
  const dir = await Deno.makeTempDir({ prefix: "hypercore-peer-" });
  try {
    return await loadPeerCertificate(dir, { nowMs: Date.now() });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** What a node of a test is made of. */
export interface TestPeerOptions {
  nodeId: string;
  routes?: (router: ConnectRouter) => void;
  /** Cluster keys, the primary first; may be changed later. */
  clusterKeys?: Uint8Array[];
  certificate?: PeerCertificate;
  host?: string;
  port?: number;
  limits?: Partial<PeerLimits>;
  /** Where others find each other; shared by the nodes of a test. */
  directory?: Map<string, Omit<PeerAddress, "nodeId">>;
}

/** A node's connections alone: port, server and clients on loopback, without gossip. */
export interface TestPeer extends AsyncDisposable {
  readonly nodeId: string;
  readonly port: PeerPort;
  readonly server: PeerServer;
  readonly peers: PeerClients;
  readonly address: PeerAddress;
  readonly clusterKeys: Uint8Array[];
  readonly seen: PeerObservation[];
}

/** Starts a node and puts it into the directory. */
export async function startPeer(options: TestPeerOptions): Promise<TestPeer> {
  const { nodeId, clusterKeys = [TEST_KEY], limits, host = "127.0.0.1", directory = new Map() } = options;
  const certificate = options.certificate ?? await makePeerCertificate();
  const keys = new PeerKeys(() => clusterKeys);
  const seen: PeerObservation[] = [];
  const observe = (observation: PeerObservation) => void seen.push(observation);
  await using stack = new AsyncDisposableStack();
  const bind = { host, port: options.port ?? 0 };
  const port = await PeerPort.open({ bind, nodeId, certificate, keys, log: silentLog, observe, limits });
  stack.use(port);
  stack.use(port.transport);
  const server = stack.use(
    new PeerServer({ routes: options.routes ?? (() => {}), keys, log: silentLog, observe, limits }),
  );
  port.serve({ calls: server });
  const resolve = (id: string) => directory.get(id);
  const peers = stack.use(new PeerClients({ nodeId, keys, resolve, observe, limits }));
  const dialHost = host === "::" ? "::1" : host === "0.0.0.0" ? "127.0.0.1" : host;
  const address = {
    host: dialHost,
    port: port.address.port,
    fingerprint: certificate.fingerprint,
  };
  directory.set(nodeId, address);
  const owned = stack.move();
  return {
    nodeId,
    port,
    server,
    peers,
    address: { nodeId, ...address },
    clusterKeys,
    seen,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Waits until it holds. Throws a TimeoutError when that takes longer than a busy machine could. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const late = AbortSignal.timeout(60_000); !(await condition());) {
    late.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** TLS to a node's port, as a caller opens it before the proof; whoever answers is taken. */
export async function openTls(port: number): Promise<tls.TLSSocket> {
  const socket = tls.connect({
    port,
    host: "127.0.0.1",
    rejectUnauthorized: false,
    ALPNProtocols: [PROTOCOL.calls],
  });
  socket.on("error", () => {});
  await once(socket, "secureConnect");
  assert(peerCertificate(socket));
  return socket;
}
