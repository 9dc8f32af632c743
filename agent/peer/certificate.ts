import { X509Certificate } from "node:crypto";
import { fingerprintOf } from "./handshake/channel.ts";

/** The file in the data dir that holds the certificate and its key, PEM. */
export const CERTIFICATE_FILE = "peer.pem";
const YEAR_MS = 365 * 86_400_000;
/**
 * How long a certificate is valid, milliseconds. Peers pin it, so time says nothing about its worth; but some TLS stacks look
 * at the dates, and machines' clocks may be years wrong.
 */
export const VALIDITY_MS = 20 * YEAR_MS;
/** An agent that starts makes a new one when less than this is left, milliseconds: nobody is connected then. */
export const RENEW_WITHIN_MS = 10 * YEAR_MS;
/** A clock that shows an earlier time is wrong, milliseconds since the epoch. */
const EARLIEST_NOW_MS = Date.UTC(2026, 0, 1);
/** When every certificate begins, milliseconds since the epoch. */
const NOT_BEFORE_MS = Date.UTC(2000, 0, 1);
/** The DNS name of every certificate; no public authority can issue it. */
export const SERVER_NAME = "node.hypercore.internal";
/** Longest file that is read, bytes. */
const MAX_FILE_BYTES = 64 * 1024;

/** The certificate by which this node's peers know it. */
export interface PeerCertificate {
  /** DER. */
  der: Uint8Array;
  certPem: string;
  keyPem: string;
  /** SHA-256 of the DER, base64url without padding: the gossip tag `fp`. */
  fingerprint: string;
  notAfterMs: number;
}

/**
 * This node's certificate: the one in the data dir, made at first start with mode 0600, or a new one in its place where it
 * expires within {@linkcode RENEW_WITHIN_MS}. Two agents that start at the same moment end up with the same one. Throws an
 * Error that names the file.
 */
export async function loadPeerCertificate(
  dataDir: string,
  { nowMs }: { nowMs: number },
): Promise<PeerCertificate> {
  const path = `${dataDir}/${CERTIFICATE_FILE}`;
  try {
    const current = await read(path);
    if (current !== undefined && current.notAfterMs - nowMs >= RENEW_WITHIN_MS) return current;
    return await write(dataDir, { path, nowMs, replaces: current !== undefined });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot load the node's certificate "${path}": ${reason}`, { cause: error });
  }
}

async function read(path: string): Promise<PeerCertificate | undefined> {
  let text: string;
  try {
    const { mode, size } = await Deno.lstat(path);
    if (mode !== null && (mode & 0o077) !== 0) throw new Error("others may read it; its mode must be 0600");
    if (size > MAX_FILE_BYTES) throw new Error(`it has ${size} bytes, the limit is ${MAX_FILE_BYTES}`);
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  return parse(text);
}

function parse(text: string): PeerCertificate {
  const certPem = block(text, "CERTIFICATE"), keyPem = block(text, "PRIVATE KEY");
  try {
    const certificate = new X509Certificate(certPem);
    const der = new Uint8Array(certificate.raw);
    return {
      der,
      certPem,
      keyPem,
      fingerprint: fingerprintOf(der),
      notAfterMs: Date.parse(certificate.validTo),
    };
  } catch (error) {
    throw new Error("it holds no valid certificate; remove it for a new one", { cause: error });
  }
}

function block(text: string, label: string): string {
  const match = new RegExp(`-----BEGIN ${label}-----[\\s\\S]+?-----END ${label}-----`).exec(text);
  if (match === null) throw new Error("it does not hold a certificate and its key; remove it for a new one");
  return `${match[0]}\n`;
}

/** Writes it whole under another name first; at first start the link fails when somebody else was faster. */
async function write(
  dataDir: string,
  { path, nowMs, replaces }: { path: string; nowMs: number; replaces: boolean },
): Promise<PeerCertificate> {
  // Hardly ever, so the encoder of certificates is not loaded before.
  const { makeCertificate } = await import("./make_certificate.ts");
  const { certificate, key } = makeCertificate({
    dnsName: SERVER_NAME,
    notBefore: new Date(NOT_BEFORE_MS),
    notAfter: new Date(Math.max(nowMs, EARLIEST_NOW_MS) + VALIDITY_MS),
  });
  const text = pem("CERTIFICATE", certificate) + pem("PRIVATE KEY", key);
  await Deno.mkdir(dataDir, { recursive: true });
  const draft = `${path}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(draft, text, { mode: 0o600, createNew: true });
    if (replaces) await Deno.rename(draft, path);
    else await Deno.link(draft, path);
    return parse(text);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    const winner = await read(path);
    if (winner === undefined) throw error;
    return winner;
  } finally {
    await Deno.remove(draft).catch(() => {}); // renamed, or never written
  }
}

function pem(label: string, der: Uint8Array): string {
  const lines = der.toBase64().match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
