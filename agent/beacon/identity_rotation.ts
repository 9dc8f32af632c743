import { canonicalBytes, canonicalJson, type CanonicalValue } from "../canonical.ts";
import {
  type IdentityClaim,
  nodeIdOf,
  type PrivateKey,
  PUBLIC_KEY_BYTES,
  SIGNATURE_BYTES,
  verify,
} from "./identity.ts";

/** Rotations one identity can have; a node that needs more starts over with a new identity. */
export const MAX_ROTATIONS = 64;

/**
 * One change of key: the old key says which one follows, the new one says that it is there. Binary fields are base64.
 * What is signed, by both, in the context `hypercore/rotate/1`, is the canonical JSON of the record without the two
 * signatures.
 */
export interface RotationRecord {
  /** Since the epoch; by the clock of the node. */
  readonly at_ms: number;
  readonly new_key: string;
  readonly new_signature: string;
  readonly node_id: string;
  readonly old_key: string;
  readonly old_signature: string;
  /** 1 for the first rotation. */
  readonly seq: number;
}

type RotationBody = Omit<RotationRecord, "new_signature" | "old_signature">;

/** The record that makes `next` the key of an identity whose key is `current`. Throws an Error at the limit. */
export function rotate(
  claim: Pick<IdentityClaim, "nodeId" | "rotations">,
  options: { current: PrivateKey; next: PrivateKey; nowMs: number },
): RotationRecord {
  const { current, next, nowMs } = options;
  if (claim.rotations.length >= MAX_ROTATIONS) {
    throw new Error(`it has been rotated ${MAX_ROTATIONS} times already`);
  }
  const body: RotationBody = {
    at_ms: nowMs,
    new_key: next.publicKey.toBase64(),
    node_id: claim.nodeId,
    old_key: current.publicKey.toBase64(),
    seq: claim.rotations.length + 1,
  };
  const bytes = canonicalBytes({ ...body });
  return {
    ...body,
    new_signature: next.sign("hypercore/rotate/1", bytes).toBase64(),
    old_signature: current.sign("hypercore/rotate/1", bytes).toBase64(),
  };
}

/**
 * All keys the identity has had, first to newest, when the claim holds: the id is that of the first key, each key is
 * introduced by the one before it, and the last one is the claimed key. Otherwise the reason.
 */
export function verifyClaim(claim: IdentityClaim): { keys: Uint8Array[] } | { reason: string } {
  const { nodeId, publicKey, rotations } = claim;
  if (publicKey.length !== PUBLIC_KEY_BYTES) return { reason: "its key is not 32 bytes" };
  if (rotations.length > MAX_ROTATIONS) return { reason: `it has more than ${MAX_ROTATIONS} rotations` };
  const keys: Uint8Array[] = [];
  for (const [i, record] of rotations.entries()) {
    const checked = checkRecord(record, { nodeId, seq: i + 1, oldKey: keys.at(-1) });
    if ("reason" in checked) return { reason: `rotation ${i + 1}: ${checked.reason}` };
    if (i === 0) keys.push(checked.oldKey);
    keys.push(checked.newKey);
  }
  if (keys.length === 0) keys.push(publicKey);
  if (nodeIdOf(keys[0]) !== nodeId) return { reason: "its id does not belong to its first key" };
  if (!isSameBytes(keys.at(-1)!, publicKey)) return { reason: "its rotations lead to another key" };
  return { keys };
}

/** Reads records that came from outside. The reason when they are not what they should be; signatures are not checked. */
export function parseRotations(value: unknown): { rotations: RotationRecord[] } | { reason: string } {
  if (!Array.isArray(value)) return { reason: "its rotations are no list" };
  if (value.length > MAX_ROTATIONS) return { reason: `it has more than ${MAX_ROTATIONS} rotations` };
  const isWhole = value.every((each) =>
    typeof each === "object" && each !== null && Object.keys(each).sort().join() === FIELDS &&
    Number.isSafeInteger(each.at_ms) && Number.isSafeInteger(each.seq) &&
    TEXT_FIELDS.every((field) => typeof each[field] === "string" && each[field].length <= MAX_FIELD_LENGTH)
  );
  return isWhole ? { rotations: value } : { reason: "a rotation has wrong or missing fields" };
}

/** A record as canonical JSON. */
export function rotationText(record: RotationRecord): string {
  return canonicalJson({ ...record });
}

/** Strict base64 of exactly `length` bytes; nothing when it is anything else. */
export function fromBase64(text: string, length: number): Uint8Array<ArrayBuffer> | undefined {
  try {
    const bytes = Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
    // Encoding it again refuses white space, the only freedom that is left.
    return bytes.length === length && bytes.toBase64() === text ? bytes : undefined;
  } catch {
    return undefined;
  }
}

/** Compares public bytes. */
export function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

const TEXT_FIELDS = ["new_key", "new_signature", "node_id", "old_key", "old_signature"];
const FIELDS = ["at_ms", ...TEXT_FIELDS, "seq"].sort().join();
const MAX_FIELD_LENGTH = 128;

function checkRecord(
  record: RotationRecord,
  expected: { nodeId: string; seq: number; oldKey?: Uint8Array },
): { oldKey: Uint8Array; newKey: Uint8Array } | { reason: string } {
  const oldKey = fromBase64(record.old_key, PUBLIC_KEY_BYTES);
  const newKey = fromBase64(record.new_key, PUBLIC_KEY_BYTES);
  const oldSignature = fromBase64(record.old_signature, SIGNATURE_BYTES);
  const newSignature = fromBase64(record.new_signature, SIGNATURE_BYTES);
  if (!oldKey || !newKey || !oldSignature || !newSignature) {
    return { reason: "a key or signature cannot be read" };
  }
  if (record.node_id !== expected.nodeId) return { reason: "it is of another node" };
  if (record.seq !== expected.seq) return { reason: "it is out of order" };
  if (expected.oldKey !== undefined && !isSameBytes(expected.oldKey, oldKey)) {
    return { reason: "it does not follow from the key before" };
  }
  const { new_signature: _new, old_signature: _old, ...body } = record;
  let bytes: Uint8Array;
  try {
    bytes = canonicalBytes(body as Record<string, CanonicalValue>);
  } catch {
    return { reason: "a field has no canonical form" };
  }
  if (!verify(oldKey, "hypercore/rotate/1", bytes, oldSignature)) {
    return { reason: "the old key did not sign it" };
  }
  if (!verify(newKey, "hypercore/rotate/1", bytes, newSignature)) {
    return { reason: "the new key did not sign it" };
  }
  return { oldKey, newKey };
}
