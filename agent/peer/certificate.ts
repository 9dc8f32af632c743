import { X509Certificate } from "node:crypto";
import { fingerprintOf } from "./handshake/channel.ts";

/** The file in the data dir that holds the certificate and its key, PEM. */
export const CERTIFICATE_FILE = "peer.pem";
/** How long a certificate is valid, milliseconds. */
export const VALIDITY_MS = 365 * 86_400_000;
/** An agent that starts makes a new one when less than this is left, milliseconds: nobody is connected then. */
export const RENEW_AT_START_MS = 90 * 86_400_000;
/** An agent that runs makes a new one when less than this is left, milliseconds. */
export const RENEW_WHILE_RUNNING_MS = 30 * 86_400_000;
/** Begins this much earlier, for clocks that go wrong, milliseconds. */
const BACKDATE_MS = 86_400_000;
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
 * This node's certificate: the one in the data dir, made at first start with mode 0600, or a new one in its place where
 * it expires within `renewWithinMs`. Two agents that start at the same moment end up with the same one. Throws an Error
 * that names the file.
 */
export async function loadPeerCertificate(
  dataDir: string,
  { nowMs, renewWithinMs = RENEW_AT_START_MS }: { nowMs: number; renewWithinMs?: number },
): Promise<PeerCertificate> {
  const path = `${dataDir}/${CERTIFICATE_FILE}`;
  try {
    const current = await read(path);
    if (current !== undefined && current.notAfterMs - nowMs >= renewWithinMs) return current;
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
  // Only once a year, so the encoder of certificates is not loaded before.
  const { makeCertificate } = await import("./make_certificate.ts");
  const { certificate, key } = makeCertificate({
    commonName: "hypercore",
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + VALIDITY_MS),
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
