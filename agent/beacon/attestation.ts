import { canonicalBytes, canonicalJson, type CanonicalValue, parseCanonical } from "../canonical.ts";
import {
  type IdentityClaim,
  type NodeIdentity,
  PUBLIC_KEY_BYTES,
  SIGNATURE_BYTES,
  verify,
} from "./identity.ts";
import { fromBase64, isSameBytes } from "./identity_rotation.ts";

/** What a node can be asked to sign. */
export const ATTESTATION_TYPES = ["NODE_IDENTITY", "STATE_HASH", "WORKLOAD"] as const;

/** One of {@linkcode ATTESTATION_TYPES}. */
export type AttestationType = typeof ATTESTATION_TYPES[number];

/** Bytes of a challenge's nonce. */
export const NONCE_BYTES = 32;
/** Longest challenge or answer that is read, bytes: each is one packet. */
export const MAX_ATTESTATION_BYTES = 1_024;

/** Who is asked for what. */
export interface Challenge {
  nodeId: string;
  type: AttestationType;
  /** Fresh for each question: no answer to an earlier one fits. */
  nonce: Uint8Array;
  /** Id, for WORKLOAD. */
  workload?: string;
}

/** What a node says of the asked thing; flat. */
export type AttestedFacts = Readonly<Record<string, string | number>>;

/** A verified answer. */
export interface Attested {
  /** What was signed, whole. */
  statement: Readonly<Record<string, CanonicalValue>>;
  text: string;
  signature: Uint8Array<ArrayBuffer>;
  publicKey: Uint8Array<ArrayBuffer>;
}

/** Fields of a statement that say what it answers; facts have other names. */
const FIXED = ["at_ms", "node", "nonce", "type"] as const;

/** The content of the question, besides node and type. */
export function encodeChallenge({ nonce, workload }: Challenge): Uint8Array<ArrayBuffer> {
  return canonicalBytes({ nonce: nonce.toBase64(), ...(workload !== undefined && { workload }) });
}

/** Reads a question. The reason when it is none. */
export function decodeChallenge(
  asked: { nodeId: string; attestationType: string; attestationData: Uint8Array },
): Challenge | { reason: string } {
  const type = ATTESTATION_TYPES.find((each) => each === asked.attestationType);
  if (type === undefined) {
    return { reason: `there is no attestation "${asked.attestationType.slice(0, 40)}"` };
  }
  const fields = readObject(asked.attestationData);
  if ("reason" in fields) return fields;
  const { nonce: nonceText, workload, ...rest } = fields.value;
  const nonce = typeof nonceText === "string" ? fromBase64(nonceText, NONCE_BYTES) : undefined;
  if (nonce === undefined) return { reason: `its nonce is not ${NONCE_BYTES} bytes` };
  const isWorkload = type === "WORKLOAD";
  if (Object.keys(rest).length > 0 || isWorkload !== (typeof workload === "string")) {
    return { reason: "it has wrong or missing fields" };
  }
  return { nodeId: asked.nodeId, type, nonce, ...(isWorkload && { workload: workload as string }) };
}

/** Signs the answer, in the context `hypercore/attest/1`. */
export function attest(
  challenge: Challenge,
  options: { identity: NodeIdentity; facts: AttestedFacts; nowMs: number },
): Uint8Array<ArrayBuffer> {
  const { identity, facts, nowMs } = options;
  const { type, nonce, workload } = challenge;
  const statement = canonicalJson({
    ...facts,
    ...(workload !== undefined && { workload }),
    at_ms: Math.round(nowMs),
    node: identity.nodeId,
    nonce: nonce.toBase64(),
    type,
  });
  const bytes = new TextEncoder().encode(statement);
  return canonicalBytes({
    key: identity.publicKey.toBase64(),
    signature: identity.sign("hypercore/attest/1", bytes).toBase64(),
    statement,
  });
}

/**
 * Checks an answer against the question and against who the node is known to be. The reason when it is refused: another
 * node's, of another key, an answer to an earlier question, or changed on the way.
 */
export function verifyAttestation(
  answer: Uint8Array,
  options: { challenge: Challenge; claim: IdentityClaim },
): Attested | { reason: string } {
  const { challenge, claim } = options;
  const envelope = readObject(answer);
  if ("reason" in envelope) return envelope;
  const { key, signature, statement: text, ...more } = envelope.value;
  if (typeof text !== "string" || Object.keys(more).length > 0) {
    return { reason: "it has wrong or missing fields" };
  }
  const publicKey = typeof key === "string" ? fromBase64(key, PUBLIC_KEY_BYTES) : undefined;
  const signatureBytes = typeof signature === "string" ? fromBase64(signature, SIGNATURE_BYTES) : undefined;
  if (publicKey === undefined || signatureBytes === undefined) {
    return { reason: "its key or signature cannot be read" };
  }
  if (claim.nodeId !== challenge.nodeId) return { reason: "the key known is another node's" };
  if (!isSameBytes(publicKey, claim.publicKey)) {
    return { reason: "its key is not the one that the node is known by" };
  }
  const bytes = new TextEncoder().encode(text);
  if (!verify(publicKey, "hypercore/attest/1", bytes, signatureBytes)) {
    return { reason: "its signature is not good" };
  }
  const parsed = readObject(bytes);
  if ("reason" in parsed) return parsed;
  const statement = parsed.value;
  if (statement.node !== challenge.nodeId) return { reason: "it is another node's" };
  if (statement.nonce !== challenge.nonce.toBase64()) return { reason: "it does not answer this question" };
  if (statement.type !== challenge.type) return { reason: "it attests something else" };
  if (statement.workload !== challenge.workload) return { reason: "it is of another workload" };
  if (!Number.isSafeInteger(statement.at_ms)) return { reason: "it does not say when it was made" };
  return { statement, text, signature: signatureBytes, publicKey };
}

/** What a node attests, without the fields that every statement has. */
export function factsOf({ statement }: Attested): AttestedFacts {
  return Object.fromEntries(
    Object.entries(statement).filter(([name, value]) =>
      !(FIXED as readonly string[]).includes(name) && (typeof value === "string" || typeof value === "number")
    ),
  ) as AttestedFacts;
}

function readObject(bytes: Uint8Array): { value: Record<string, CanonicalValue> } | { reason: string } {
  if (bytes.length > MAX_ATTESTATION_BYTES) {
    return { reason: `it is longer than ${MAX_ATTESTATION_BYTES} bytes` };
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { reason: "it is not UTF-8" };
  }
  const parsed = parseCanonical(text);
  if ("reason" in parsed) return parsed;
  const { value } = parsed;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { reason: "it is no object" };
  }
  return { value: value as Record<string, CanonicalValue> };
}
