import { createHash, createHmac, hkdfSync, timingSafeEqual, X509Certificate } from "node:crypto";

/** What both ends of a hop agree on in the TLS handshake (RFC 7301); the version of everything in this file. */
export const HOP_ALPN = "hypercore-proxy/1";
/** The same, but what follows the claim is a session with many streams; each is used as such a connection is. */
export const HOP_MUX_ALPN = "hypercore-proxy/2";
/**
 * The name every node's certificate must carry as a DNS subject alternative name. No public authority can issue it, so
 * that of all certificates only the pinned one passes.
 */
export const HOP_SERVER_NAME = "node.hypercore.internal";

/** Both sides' first bytes. */
export const HOP_MAGIC = new TextEncoder().encode("HCHOP/1\n");
export const NONCE_BYTES = 32;
export const PROOF_BYTES = 32;
/** What the serving side says first: magic and nonce. */
export const GREETING_BYTES = HOP_MAGIC.length + NONCE_BYTES;
/** Of a node id, in ASCII. */
export const MAX_NODE_ID_BYTES = 64;
/** The longest claim: magic, length, node id, proof. */
export const MAX_CLAIM_BYTES = HOP_MAGIC.length + 1 + MAX_NODE_ID_BYTES + PROOF_BYTES;
/** The serving side's verdict on a claim: one byte, and the end of the connection after a refusal. */
export const CLAIM_ACCEPTED = 0x06;
export const CLAIM_REFUSED = 0x15;

const CONTEXT = new TextEncoder().encode("hypercore-proxy/1 client\0");
const HKDF_INFO = "hypercore-proxy/1";

/**
 * The secret by which a hop's dialling side proves to be a member: HKDF-SHA256 of a key of the cluster (RFC 5869), 32 bytes in
 * hexadecimal. A cluster without a key (`--insecure`) has a secret that anybody can make.
 */
export function hopSecret(clusterKey?: Uint8Array): string {
  return hex(new Uint8Array(hkdfSync("sha256", clusterKey ?? new Uint8Array(0), "", HKDF_INFO, 32)));
}

/** SHA-256 of a certificate given as PEM, in lower-case hexadecimal. Throws when it is none. */
export function fingerprintOf(certificatePem: string): string {
  return hex(createHash("sha256").update(new X509Certificate(certificatePem).raw).digest());
}

/**
 * A fingerprint in lower-case hexadecimal, from that (with or without colons) or from base64url as in the members' tags;
 * undefined when it is neither.
 */
export function parseFingerprint(text: string): string | undefined {
  const plain = text.replaceAll(":", "");
  if (/^[0-9a-f]{64}$/i.test(plain)) return plain.toLowerCase();
  if (!/^[\w-]{43}=?$/.test(text)) return undefined;
  return hex(Uint8Array.from(atob(text.replace(/=$/, "").replaceAll("-", "+").replaceAll("_", "/")), code));
}

/** The serving side's greeting. */
export function encodeGreeting(nonce: Uint8Array): Uint8Array<ArrayBuffer> {
  return concat(HOP_MAGIC, nonce);
}

/** The nonce of a greeting; undefined when it is none. */
export function parseGreeting(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.length === GREETING_BYTES && hasMagic(bytes) ? bytes.subarray(HOP_MAGIC.length) : undefined;
}

/** What a claim of membership is made of. */
export interface ClaimFacts {
  nonce: Uint8Array;
  /** Of the serving side's certificate, hexadecimal: a claim made to one node is of no use with another. */
  serverFingerprint: string;
  /** Who dials. Throws a RangeError when empty, longer than {@linkcode MAX_NODE_ID_BYTES} or not printable ASCII. */
  node: string;
}

/** The dialling side's claim: magic, length and text of its node id, HMAC-SHA256 over all of the facts. */
export function encodeClaim(facts: ClaimFacts, secret: string): Uint8Array<ArrayBuffer> {
  if (!isNodeId(facts.node)) {
    throw new RangeError(`Cannot claim membership as "${facts.node}": not a node id`);
  }
  const node = new TextEncoder().encode(facts.node);
  return concat(HOP_MAGIC, Uint8Array.of(node.length), node, prove(facts, secret));
}

/**
 * How long the claim at the start of `bytes` is; undefined while that cannot be told, 0 when it is no claim.
 */
export function claimLength(bytes: Uint8Array): number | undefined {
  if (!hasMagic(bytes)) return 0;
  if (bytes.length <= HOP_MAGIC.length) return undefined;
  const nodeBytes = bytes[HOP_MAGIC.length];
  if (nodeBytes === 0 || nodeBytes > MAX_NODE_ID_BYTES) return 0;
  return HOP_MAGIC.length + 1 + nodeBytes + PROOF_BYTES;
}

/**
 * Who made a whole claim, when any of the secrets proves it: several hold while a cluster changes its key. The secret found
 * comes with it, so that the connection can end with it.
 */
export function checkClaim(
  claim: Uint8Array,
  facts: Omit<ClaimFacts, "node">,
  secrets: readonly string[],
): { node: string; secret: string } | undefined {
  if (claimLength(claim) !== claim.length) return undefined;
  const proof = claim.subarray(claim.length - PROOF_BYTES);
  const node = String.fromCharCode(...claim.subarray(HOP_MAGIC.length + 1, claim.length - PROOF_BYTES));
  if (!isNodeId(node)) return undefined;
  const secret = secrets.find((one) => timingSafeEqual(prove({ ...facts, node }, one), proof));
  return secret === undefined ? undefined : { node, secret };
}

function prove({ nonce, serverFingerprint, node }: ClaimFacts, secret: string): Uint8Array {
  return createHmac("sha256", unhex(secret)).update(CONTEXT).update(nonce).update(unhex(serverFingerprint))
    .update(node).digest();
}

function isNodeId(text: string): boolean {
  return text.length > 0 && text.length <= MAX_NODE_ID_BYTES && /^[\x21-\x7e]+$/.test(text);
}

/** Whether `bytes` begins with the magic, as far as it goes. */
function hasMagic(bytes: Uint8Array): boolean {
  const count = Math.min(bytes.length, HOP_MAGIC.length);
  for (let i = 0; i < count; i++) {
    if (bytes[i] !== HOP_MAGIC[i]) return false;
  }
  return true;
}

function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function code(char: string): number {
  return char.charCodeAt(0);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unhex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
