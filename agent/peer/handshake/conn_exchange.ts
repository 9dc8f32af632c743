import { randomBytes } from "node:crypto";
import { certificateBinding } from "./channel.ts";
import type { HandshakeBounds, HandshakeIdentity } from "./exchange.ts";
import { HANDSHAKE_TIMEOUT_MS } from "./exchange.ts";
import { ClientProof, type ProofOptions, ServerProof, type Step } from "./membership_proof.ts";
import { bodyLength, HEADER_BYTES, NONCE_BYTES } from "./messages.ts";
import { HandshakeError } from "./refusal.ts";

/** What of a `Deno.TlsConn` the handshake uses. */
export type HandshakeConn = Pick<Deno.Conn, "read" | "write" | "close">;

/** What both ends give for a handshake over Deno's native TLS. */
export interface ConnHandshakeOptions extends HandshakeIdentity, HandshakeBounds {
  /** What ALPN chose. */
  protocol: string;
  /** The server's certificate, DER. The client has made TLS take no other. */
  certificate: Uint8Array;
}

/**
 * The client's part over Deno's native TLS. Resolves the derived key that both hold, undefined in a cluster without one.
 * Throws a {@linkcode HandshakeError}, a system error, or the reason of `signal`; the connection is closed then.
 */
export async function proveOverConnAsClient(
  conn: HandshakeConn,
  options: ConnHandshakeOptions & { peerId: string },
): Promise<{ key: Uint8Array | undefined }> {
  const proof = new ClientProof(proofOptions(options), { expectedId: options.peerId });
  const { key } = await run(conn, { ...options, proof, first: proof.start() });
  return { key };
}

/**
 * The server's part over Deno's native TLS. Resolves the id that the caller claims and the derived key it proved that it
 * holds. Throws a {@linkcode HandshakeError} after telling the caller the reason, a system error, or the reason of
 * `signal`; the connection is closed then.
 */
export async function proveOverConnAsServer(
  conn: HandshakeConn,
  options: ConnHandshakeOptions,
): Promise<{ nodeId: string; key: Uint8Array | undefined }> {
  const proof = new ServerProof(proofOptions(options));
  const { peerId, key } = await run(conn, { ...options, proof, first: { kind: "read" } });
  return { nodeId: peerId, key };
}

function proofOptions({ nodeId, keys, protocol, certificate }: ConnHandshakeOptions): ProofOptions {
  const nonce = new Uint8Array(randomBytes(NONCE_BYTES));
  return { nodeId, keys, nonce, binding: certificateBinding(protocol, certificate) };
}

async function run(
  conn: HandshakeConn,
  options: HandshakeBounds & { proof: { receive(bytes: Uint8Array): Step }; first: Step },
): Promise<Step & { kind: "done" }> {
  const { proof, signal, timeoutMs = HANDSHAKE_TIMEOUT_MS } = options;
  let reason: unknown;
  const stop = (error: unknown) => {
    reason ??= error;
    close(conn);
  };
  const aborted = () => stop(signal!.reason);
  const timer = setTimeout(() => stop(new HandshakeError("timeout", "us")), timeoutMs);
  signal?.addEventListener("abort", aborted, { once: true });
  try {
    signal?.throwIfAborted();
    for (let step = options.first;; step = proof.receive(await readMessage(conn))) {
      if (step.send !== undefined) await writeAll(conn, step.send);
      if (step.kind === "failed") throw new HandshakeError(step.refusal, step.by);
      if (step.kind === "done") return step;
    }
  } catch (error) {
    close(conn);
    throw reason ?? error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", aborted);
  }
}

async function readMessage(conn: HandshakeConn): Promise<Uint8Array> {
  const header = await readExactly(conn, HEADER_BYTES);
  const length = bodyLength(header);
  // What cannot be a message is judged as it is.
  return length === undefined ? header : Uint8Array.of(...header, ...await readExactly(conn, length));
}

async function readExactly(conn: HandshakeConn, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await conn.read(bytes.subarray(at));
    if (count === null) throw new HandshakeError("closed", "us");
    at += count;
  }
  return bytes;
}

async function writeAll(conn: HandshakeConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

function close(conn: HandshakeConn): void {
  try {
    conn.close();
  } catch {
    // closed already
  }
}
