import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  type ClusterMessage,
  type ProofVerification,
  ProofVerificationSchema,
  type WorkloadProof,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { rotationText } from "../beacon/identity_rotation.ts";
import { encodeClusterMessage, unwrap } from "../control/cluster_messages.ts";
import { Slots } from "../api/slots.ts";
import { hashOf } from "./entry.ts";
import type { ProofKeeper, ProofObservation } from "./keeper.ts";
import { verifyMessage } from "./message.ts";

/** Logs verified at once for others; more get the answer UNKNOWN. */
export const MAX_CONCURRENT_QUERIES = 8;

/** What answers questions for proofs. */
export interface ProofQueryParts {
  keeper: Pick<ProofKeeper, "verify" | "has">;
  identity: IdentityClaim;
  /** The newest proof of a workload of another node, out of its state, and who that node is known to be. */
  remote?: (workloadId: string) => { proof: WorkloadProof; claim: IdentityClaim } | undefined;
  observe?: (observation: ProofObservation) => void;
}

/**
 * Answers PROOF_VERIFY: by the whole log for a workload of this node, by the newest proof in its state for one of
 * another. `beacon_registry_hash` says by which identity.
 */
export class ProofQueries {
  readonly #parts: ProofQueryParts;
  readonly #slots = new Slots("verifications for other nodes", MAX_CONCURRENT_QUERIES);

  constructor(parts: ProofQueryParts) {
    this.#parts = parts;
  }

  /** Answers a question in the envelope of gossip queries in such an envelope; nothing to what is no such question. */
  async answer(message: ClusterMessage): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const query = unwrap(message, ProofVerificationSchema);
    if (query === undefined) return undefined;
    return encodeClusterMessage(ClusterEvent.PROOF_VERIFY, ProofVerificationSchema, await this.verify(query));
  }

  /** The same without envelopes. Never throws for what a peer may ask. */
  async verify(query: ProofVerification): Promise<ProofVerification> {
    const { workloadId, proofHash } = query;
    const answer = (result: "VALID" | "INVALID" | "UNKNOWN", claim?: IdentityClaim) => {
      this.#parts.observe?.({ kind: "verified", result });
      return create(ProofVerificationSchema, {
        workloadId,
        proofHash,
        verificationResult: result,
        beaconRegistryHash: claim === undefined ? "" : registryHash(claim),
      });
    };
    try {
      using _slot = this.#slots.take();
      const { keeper, identity, remote } = this.#parts;
      if (await keeper.has(workloadId)) {
        const { result } = await keeper.verify(workloadId, {
          wantedHash: proofHash === "" ? undefined : proofHash,
        });
        return answer(result, identity);
      }
      const known = remote?.(workloadId);
      if (known === undefined || (proofHash !== "" && known.proof.proofHash !== proofHash)) {
        return answer("UNKNOWN");
      }
      const verdict = verifyMessage(known.proof, { claim: known.claim, workload: workloadId });
      return answer("reason" in verdict ? "INVALID" : "VALID", known.claim);
    } catch {
      return answer("UNKNOWN"); // no id, too much asked at once, or a log that cannot be read
    }
  }
}

/** SHA-256 of the identity that a verification was made by: of its id, key and rotations in canonical JSON. */
export function registryHash({ nodeId, publicKey, rotations }: IdentityClaim): string {
  return hashOf({
    node_id: nodeId,
    public_key: publicKey.toBase64(),
    rotations: rotations.map(rotationText),
  });
}
