import { createHash } from "node:crypto";
import { type NodeIdentity, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify } from "../beacon/identity.ts";
import { fromBase64 } from "../beacon/identity_rotation.ts";
import { canonicalJson, type CanonicalValue, parseCanonical } from "../canonical.ts";
import { type CheckpointBody, parseBody, type ProofBody } from "./body.ts";

/** Longest line of a log, bytes; the first one carries the spec. */
export const MAX_LINE_BYTES = 65_536;

/** A proof with its signature: one line of a log, as canonical JSON. */
export interface ProofEntry {
  readonly body: ProofBody;
  /** SHA-256 of the body's canonical JSON, hex. */
  readonly hash: string;
  /** The key that signed it, base64. */
  readonly key: string;
  /** Of the hash's 64 characters in the context `hypercore/proof/1`, base64. */
  readonly signature: string;
  /** What was asked for; in a workload's first entry only. */
  readonly spec?: Readonly<Record<string, CanonicalValue>>;
}

/** A checkpoint with its signature. */
export interface CheckpointEntry extends Omit<ProofEntry, "body" | "spec"> {
  readonly body: CheckpointBody;
}

/** SHA-256 of canonical JSON, hex. */
export function hashOf(value: CanonicalValue): string {
  return createHash("sha256").update(canonicalJson(value)).digest("hex");
}

/** Adds one more hash to that of many: SHA-256 of the two in hex, one after the other. */
export function foldHash(folded: string, hash: string): string {
  return createHash("sha256").update(folded + hash).digest("hex");
}

/** Signs a body. */
export function signBody<B extends ProofBody | CheckpointBody>(
  body: B,
  identity: NodeIdentity,
): { body: B; hash: string; key: string; signature: string } {
  const hash = hashOf({ ...body });
  return {
    body,
    hash,
    key: identity.publicKey.toBase64(),
    signature: identity.sign("hypercore/proof/1", new TextEncoder().encode(hash)).toBase64(),
  };
}

/** Whether the key signed this hash as a proof. */
export function isSigned(hash: string, options: { key: Uint8Array; signature: Uint8Array }): boolean {
  return verify(options.key, "hypercore/proof/1", new TextEncoder().encode(hash), options.signature);
}

/** The line of an entry, without its line feed. */
export function entryLine(entry: ProofEntry | CheckpointEntry): string {
  return canonicalJson({ ...entry, body: { ...entry.body } });
}

/** What a line holds, once hash and signature are known to fit. */
export type ReadEntry = { key: Uint8Array } & ({ entry: ProofEntry } | { checkpoint: CheckpointEntry });

/**
 * Reads a line: its form, its hash and the signature by the key it names. Whose key that is, and what the line follows,
 * is not looked at. The reason when any of it is wrong.
 */
export function readLine(line: string): ReadEntry | { reason: string } {
  const shape = readShape(line);
  if ("reason" in shape) return shape;
  const { fields, parsed } = shape;
  if (hashOf(fields.body) !== fields.hash) return { reason: "its hash is not that of its body" };
  const key = typeof fields.key === "string" ? fromBase64(fields.key, PUBLIC_KEY_BYTES) : undefined;
  const signature = typeof fields.signature === "string"
    ? fromBase64(fields.signature, SIGNATURE_BYTES)
    : undefined;
  if (key === undefined || signature === undefined) return { reason: "its key or signature cannot be read" };
  if (!isSigned(fields.hash as string, { key, signature })) {
    return { reason: "its signature is not of its key" };
  }
  if ("checkpoint" in parsed) return { key, checkpoint: fields as unknown as CheckpointEntry };
  if ("spec" in fields && hashOf(fields.spec) !== parsed.body.spec_hash) {
    return { reason: "its spec is not what spec_hash says" };
  }
  return { key, entry: fields as unknown as ProofEntry };
}

/** Reads a line for who trusts it: only its shape is looked at. */
export function peekLine(line: string): ProofEntry | CheckpointEntry | undefined {
  const shape = readShape(line);
  return "reason" in shape ? undefined : shape.fields as unknown as ProofEntry | CheckpointEntry;
}

interface Shape {
  fields: Record<string, CanonicalValue>;
  parsed: { body: ProofBody } | { checkpoint: CheckpointBody };
}

function readShape(line: string): Shape | { reason: string } {
  if (line.length > MAX_LINE_BYTES) return { reason: `it is longer than ${MAX_LINE_BYTES} bytes` };
  const read = parseCanonical(line);
  if ("reason" in read) return read;
  const { value } = read;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { reason: "it is no object" };
  }
  const fields = value as Record<string, CanonicalValue>;
  const names = Object.keys(fields).join();
  if (names !== "body,hash,key,signature" && names !== "body,hash,key,signature,spec") {
    return { reason: "fields are missing or too many" };
  }
  const parsed = parseBody(fields.body);
  if ("reason" in parsed) return parsed;
  if ("checkpoint" in parsed && "spec" in fields) return { reason: "fields are missing or too many" };
  if (typeof fields.hash !== "string") return { reason: "its hash is no text" };
  return { fields, parsed };
}
