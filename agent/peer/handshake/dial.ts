import tls from "node:tls";
import { isFingerprint } from "./channel.ts";
import { type HandshakeBounds, type HandshakeIdentity, proveAsClient } from "./exchange.ts";
import { HandshakeError } from "./refusal.ts";

/** Time for a connection to a peer: TCP, TLS and the proofs, milliseconds. */
export const DIAL_TIMEOUT_MS = 10_000;

/** What a connection is for, by its ALPN id. */
export const PROTOCOL = {
  /** Calls of PeerService and of the node's own services. */
  calls: "h2",
} as const;

/** What a connection is for. */
export type PeerProtocol = typeof PROTOCOL[keyof typeof PROTOCOL];

/** Where a node is and by what it is known. */
export interface PeerAddress {
  nodeId: string;
  /** What messages call it; its id by default. */
  name?: string;
  /** IP address. */
  host: string;
  port: number;
  /** Fingerprint of its certificate, as its gossip tag says. */
  fingerprint: string;
}

/**
 * Connects to a peer: TCP, TLS 1.3, the fingerprint, the proofs both ways. The socket is ready for the first byte of
 * `protocol`. Throws a {@linkcode HandshakeError}, a system error of the connection, or the reason of `signal`.
 */
export async function dialPeer(
  peer: PeerAddress,
  options: HandshakeIdentity & HandshakeBounds & { protocol: PeerProtocol },
): Promise<tls.TLSSocket> {
  const { protocol, timeoutMs = DIAL_TIMEOUT_MS, signal } = options;
  signal?.throwIfAborted();
  if (!isFingerprint(peer.fingerprint)) throw new HandshakeError("certificate", "us");
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new HandshakeError("timeout", "us")), timeoutMs);
  const bounds = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]);
  try {
    const socket = await openTls(peer, { protocol, signal: bounds });
    await proveAsClient(socket, { ...options, peer, signal: bounds, timeoutMs });
    return socket;
  } finally {
    clearTimeout(timer);
  }
}

function openTls(
  { host, port, fingerprint }: PeerAddress,
  { protocol, signal }: { protocol: PeerProtocol; signal: AbortSignal },
): Promise<tls.TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
  const socket = tls.connect({
    host,
    port,
    // Made by the peer itself: its fingerprint is compared instead, and the proofs are bound to this connection.
    rejectUnauthorized: false,
    minVersion: "TLSv1.3",
    ALPNProtocols: [protocol],
    servername: serverName(fingerprint),
  });
  const aborted = () => socket.destroy();
  let failure: Error | undefined;
  const failed = (error: Error) => failure ??= error;
  const closed = () => reject(signal.aborted ? signal.reason : failure ?? new HandshakeError("closed", "us"));
  signal.addEventListener("abort", aborted, { once: true });
  socket.setNoDelay(true);
  socket.on("error", failed);
  socket.once("close", closed);
  socket.once("secureConnect", () => {
    if (socket.alpnProtocol === protocol) resolve(socket);
    else socket.destroy(new HandshakeError("malformed", "us"));
  });
  return promise.finally(() => {
    signal.removeEventListener("abort", aborted);
    socket.off("close", closed);
  });
}

/** A name of its own for each certificate, so that TLS never resumes the session of another node. */
function serverName(fingerprint: string): string {
  const hex = Uint8Array.fromBase64(fingerprint, { alphabet: "base64url" }).subarray(0, 16).toHex();
  return `${hex}.hypercore.internal`;
}
