import { randomBytes } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { exportedBinding, fingerprintOf, peerCertificate } from "./channel.ts";
import { ClientProof, ServerProof, type Step } from "./membership_proof.ts";
import { bodyLength, HEADER_BYTES, NONCE_BYTES } from "./messages.ts";
import { HandshakeError } from "./refusal.ts";

/** Time for a handshake, milliseconds. */
export const HANDSHAKE_TIMEOUT_MS = 5_000;
/** Time for a refusal to be read by who is refused, milliseconds. */
export const LINGER_MS = 1_000;

/** Bytes that a caller may have sent before it has proved its membership: both its messages, with room to spare. */
export const UNPROVED_BYTES = 1_024;

/** Who this node is in a handshake. */
export interface HandshakeIdentity {
  nodeId: string;
  /** Derived keys (see `derivePeerKeys`), the primary first; none in a cluster without a key. */
  keys: readonly Uint8Array[];
}

/** What bounds a handshake. */
export interface HandshakeBounds {
  /** {@linkcode HANDSHAKE_TIMEOUT_MS} by default. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/**
 * The client's part on an open TLS connection, before any byte of the protocol that ALPN chose: compares the server's
 * certificate with the fingerprint that gossip told, and only then proves membership and has the server prove it.
 * Resolves the derived key that both hold, undefined in a cluster without one. Throws a {@linkcode HandshakeError}, or the
 * reason of `signal`; the socket is destroyed then.
 */
export async function proveAsClient(
  socket: TLSSocket,
  options: HandshakeIdentity & HandshakeBounds & { peer: { nodeId: string; fingerprint: string } },
): Promise<{ key: Uint8Array | undefined }> {
  const { nodeId, keys, peer } = options;
  const certificate = peerCertificate(socket);
  if (certificate === undefined || fingerprintOf(certificate) !== peer.fingerprint) {
    socket.destroy();
    throw new HandshakeError("certificate", "us");
  }
  const binding = exportedBinding(socket, { role: "client", serverCertificate: certificate });
  const proof = new ClientProof({ nodeId, keys, nonce: nonce(), binding }, { expectedId: peer.nodeId });
  const { key } = await exchange(socket, { ...options, proof, first: proof.start() });
  return { key };
}

/**
 * The server's part. Resolves the id that the caller claims and the derived key it proved that it holds. Throws a
 * {@linkcode HandshakeError} after telling the caller the reason, or the reason of `signal`; the socket closes then.
 */
export async function proveAsServer(
  socket: TLSSocket,
  options: HandshakeIdentity & HandshakeBounds & { certificate: Uint8Array },
): Promise<{ nodeId: string; key: Uint8Array | undefined }> {
  const { nodeId, keys, certificate } = options;
  const binding = exportedBinding(socket, { role: "server", serverCertificate: certificate });
  const proof = new ServerProof({ nodeId, keys, nonce: nonce(), binding });
  const { peerId, key } = await exchange(socket, {
    ...options,
    proof,
    first: { kind: "read" },
    maxBytes: UNPROVED_BYTES,
  });
  return { nodeId: peerId, key };
}

function nonce(): Uint8Array {
  return new Uint8Array(randomBytes(NONCE_BYTES));
}

/** Runs a proof over a socket. What follows the handshake stays in the socket's buffer. */
async function exchange(
  socket: TLSSocket,
  options: HandshakeBounds & { proof: { receive(bytes: Uint8Array): Step }; first: Step; maxBytes?: number },
): Promise<Step & { kind: "done" }> {
  const { proof, first, signal, maxBytes = Infinity, timeoutMs = HANDSHAKE_TIMEOUT_MS } = options;
  const over = Promise.withResolvers<Step & { kind: "done" }>();
  let header: Uint8Array | undefined;
  let isOver = false;

  const take = (step: Step) => {
    if (step.kind === "failed") {
      isOver = true;
      if (step.send === undefined) socket.destroy();
      else lastWords(socket, step.send);
      return over.reject(new HandshakeError(step.refusal, step.by));
    }
    if (step.send !== undefined) socket.write(step.send);
    if (step.kind === "read") return;
    isOver = true;
    over.resolve(step);
  };
  const pump = () => {
    // It has not even been told yet what to prove.
    if (socket.readableLength > maxBytes) return end(new HandshakeError("malformed", "us"));
    while (!isOver) {
      const wanted = header === undefined ? HEADER_BYTES : bodyLength(header)!;
      const bytes: Uint8Array | null = wanted === 0 ? new Uint8Array() : socket.read(wanted);
      if (bytes === null) return;
      // The rest before an end of stream is shorter than what was asked for.
      if (bytes.length < wanted) return lost();
      if (header === undefined && bodyLength(bytes) !== undefined) {
        header = bytes;
        continue;
      }
      const message = header === undefined ? bytes : Uint8Array.of(...header, ...bytes);
      header = undefined;
      take(proof.receive(message));
    }
  };
  const end = (error: unknown) => {
    isOver = true;
    socket.destroy();
    over.reject(error);
  };
  const lost = () => end(new HandshakeError("closed", "us"));
  const aborted = () => end(signal!.reason);
  const timer = setTimeout(() => end(new HandshakeError("timeout", "us")), timeoutMs);
  signal?.addEventListener("abort", aborted, { once: true });
  // Stays for good: an error that nobody listens to would end the process, and each shows as a close as well.
  socket.on("error", () => {});
  socket.on("readable", pump);
  socket.on("end", lost);
  socket.on("close", lost);
  try {
    if (signal?.aborted) aborted();
    else if (socket.destroyed) lost();
    else {
      take(first);
      pump();
    }
    return await over.promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", aborted);
    socket.off("readable", pump);
    socket.off("end", lost);
    socket.off("close", lost);
  }
}

/** Says why, and closes when the other end has read it or had the time to. */
function lastWords(socket: TLSSocket, bytes: Uint8Array): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
  let bytesRead = 0;
  socket.on("data", ({ length }: Uint8Array) => (bytesRead += length) > UNPROVED_BYTES && socket.destroy());
  socket.end(bytes);
}
