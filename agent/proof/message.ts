import { create } from "@bufbuild/protobuf";
import { type WorkloadProof, WorkloadProofSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { SIGNATURE_BYTES } from "../beacon/identity.ts";
import { verifyClaim } from "../beacon/identity_rotation.ts";
import { NUMBER_FIELDS, parseBody, type ProofBody } from "./body.ts";
import { contradiction, contradictionBetween } from "./consistency.ts";
import { hashOf, isSigned, type ProofEntry } from "./entry.ts";

/** Fields of a body that have a field of their own in the message. */
const OWN_FIELDS = new Set(["at_ms", "hypervisor_type"]);
/** More entries of `metrics` than any proof has. */
const MAX_METRICS = 64;

/** A proof as states carry it: all of the body is in it, so that whoever has the node's key can verify it. */
export function proofMessage({ body, hash, signature }: Omit<ProofEntry, "spec" | "key">): WorkloadProof {
  return create(WorkloadProofSchema, {
    proofHash: hash,
    proofSignature: Uint8Array.fromBase64(signature),
    metrics: Object.fromEntries(
      Object.entries(body).filter(([field]) => !OWN_FIELDS.has(field)).map((
        [field, value],
      ) => [field, String(value)]),
    ),
    proofTimestamp: BigInt(body.at_ms),
    hypervisorType: body.hypervisor_type,
  });
}

/** The body in a message from outside; the reason when there is none. Neither hash nor signature is looked at. */
export function bodyOfMessage(proof: WorkloadProof): { body: ProofBody } | { reason: string } {
  const entries = Object.entries(proof.metrics);
  if (entries.length > MAX_METRICS) return { reason: "it has too many metrics" };
  const fields: Record<string, string | number> = {
    at_ms: Number(proof.proofTimestamp),
    hypervisor_type: proof.hypervisorType,
  };
  for (const [field, text] of entries) {
    if (OWN_FIELDS.has(field)) return { reason: `${field} stands twice` };
    fields[field] = NUMBER_FIELDS.has(field) && /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : text;
  }
  const parsed = parseBody(fields);
  if ("reason" in parsed) return parsed;
  return "body" in parsed ? parsed : { reason: "it is a checkpoint" };
}

/**
 * Verifies one proof out of a state: hash, signature by one of the node's keys, sense, and that it can follow `known`,
 * an older proof of the same workload by the same node. The reason when it does not hold.
 */
export function verifyMessage(
  proof: WorkloadProof,
  options: { claim: IdentityClaim; workload: string; known?: ProofBody },
): { body: ProofBody } | { reason: string } {
  const read = bodyOfMessage(proof);
  if ("reason" in read) return read;
  const { body } = read;
  const { claim, workload, known } = options;
  if (body.workload !== workload) return { reason: "it is of another workload" };
  if (body.node !== claim.nodeId) return { reason: "it is of another node" };
  if (hashOf({ ...body }) !== proof.proofHash) return { reason: "its hash is not that of its body" };
  const verdict = verifyClaim(claim);
  if ("reason" in verdict) return { reason: `the node's identity does not hold: ${verdict.reason}` };
  const signature = proof.proofSignature;
  // Newest first: it is nearly always that one.
  const isGenuine = signature.length === SIGNATURE_BYTES &&
    verdict.keys.toReversed().some((key) => isSigned(proof.proofHash, { key, signature }));
  if (!isGenuine) return { reason: "it is not signed by the node" };
  const problem = contradiction(body) ?? (known && contradictionToKnown(known, body));
  return problem === undefined ? { body } : { reason: problem };
}

function contradictionToKnown(known: ProofBody, body: ProofBody): string | undefined {
  // The very same again, or one from before on its way late, says nothing new.
  if (body.seq <= known.seq) return undefined;
  return contradictionBetween(known, body);
}
