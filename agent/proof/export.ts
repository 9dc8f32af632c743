import type { IdentityClaim } from "../beacon/identity.ts";
import { PUBLIC_KEY_BYTES } from "../beacon/identity.ts";
import { fromBase64, parseRotations } from "../beacon/identity_rotation.ts";
import { canonicalJson, type CanonicalValue, parseCanonical } from "../canonical.ts";
import { MAX_LOG_BYTES } from "./compact.ts";

/** Names an exported file's format in its first line. */
export const EXPORT_FORMAT = "hypercore-proof/1";
/** Largest exported file that is read, bytes: the longest log, and a header with the most rotations. */
export const MAX_EXPORT_BYTES = MAX_LOG_BYTES + 131_072;

/** An exported file, read. */
export interface ProofExport {
  claim: IdentityClaim;
  workload: string;
  lines: string[];
}

/** A log with the identity of its node in front: canonical JSON, one value a line. */
export function exportText({ claim, workload, lines }: ProofExport): string {
  const header = canonicalJson({
    format: EXPORT_FORMAT,
    node_id: claim.nodeId,
    public_key: claim.publicKey.toBase64(),
    rotations: claim.rotations.map((record) => ({ ...record })),
    workload,
  });
  return [header, ...lines].map((line) => `${line}\n`).join("");
}

/** Reads {@linkcode exportText}; the reason when it is none. Nothing is verified yet. */
export function parseExport(bytes: Uint8Array): ProofExport | { reason: string } {
  if (bytes.length > MAX_EXPORT_BYTES) return { reason: `it is larger than ${MAX_EXPORT_BYTES} bytes` };
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { reason: "it is no text" };
  }
  if (!text.endsWith("\n")) return { reason: "it is cut off" };
  const [first, ...lines] = text.slice(0, -1).split("\n");
  const header = parseHeader(first);
  return "reason" in header
    ? { reason: `its first line is no header of proofs: ${header.reason}` }
    : { ...header, lines };
}

function parseHeader(line: string): Omit<ProofExport, "lines"> | { reason: string } {
  const read = parseCanonical(line);
  if ("reason" in read) return read;
  if (typeof read.value !== "object" || read.value === null) return { reason: "it is no object" };
  const fields = read.value as Record<string, CanonicalValue>;
  if (fields.format !== EXPORT_FORMAT) return { reason: `format is not "${EXPORT_FORMAT}"` };
  if (Object.keys(fields).join() !== "format,node_id,public_key,rotations,workload") {
    return { reason: "fields are missing or too many" };
  }
  const { node_id, public_key, workload } = fields;
  const publicKey = typeof public_key === "string" ? fromBase64(public_key, PUBLIC_KEY_BYTES) : undefined;
  if (publicKey === undefined) return { reason: "public_key is not 32 bytes in base64" };
  if (typeof node_id !== "string" || typeof workload !== "string") return { reason: "an id is no text" };
  const parsed = parseRotations(fields.rotations);
  if ("reason" in parsed) return parsed;
  return { claim: { nodeId: node_id, publicKey, rotations: parsed.rotations }, workload };
}
