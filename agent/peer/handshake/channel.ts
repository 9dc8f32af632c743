import { createHash } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { ChannelBinding } from "./membership_proof.ts";

const FINGERPRINT = /^[A-Za-z0-9_-]{43}$/;

/** Whether a text may be a fingerprint. */
export function isFingerprint(text: string): boolean {
  return FINGERPRINT.test(text);
}

/** SHA-256 of a certificate (DER). */
export function certificateDigest(der: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(der).digest());
}

/** The fingerprint of a certificate as gossip's tag `fp` has it: SHA-256 of the DER, base64url without padding. */
export function fingerprintOf(der: Uint8Array): string {
  return certificateDigest(der).toBase64({ alphabet: "base64url", omitPadding: true });
}

/** The certificate that the other end of an open connection showed, DER; undefined where it showed none. */
export function peerCertificate(socket: TLSSocket): Uint8Array | undefined {
  const { raw } = socket.getPeerCertificate() as { raw?: Uint8Array } | null ?? {};
  return raw instanceof Uint8Array && raw.length > 0 ? raw : undefined;
}

/**
 * What ties a proof to this connection, seen from either end. Throws an Error where TLS exports nothing.
 *
 * In Deno `getFinished` and `getPeerFinished` are exported keying material (RFC 5705), labelled
 * `EXPORTER_DENO_TLS_FINISHED_CLIENT` and `…_SERVER`; a test compares them with OpenSSL's.
 */
export function exportedBinding(
  socket: TLSSocket,
  { role, serverCertificate }: { role: "client" | "server"; serverCertificate: Uint8Array },
): ChannelBinding {
  const own = socket.getFinished(), other = socket.getPeerFinished();
  if (own === undefined || other === undefined) {
    throw new Error("Cannot bind the handshake to its connection: TLS exports no keying material");
  }
  return {
    protocol: typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : "",
    clientExporter: role === "client" ? own : other,
    serverExporter: role === "client" ? other : own,
    serverFingerprint: certificateDigest(serverCertificate),
  };
}
