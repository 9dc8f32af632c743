import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  type ClusterMessage,
  type ProofVerification,
  ProofVerificationSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { rotationText } from "../beacon/identity_rotation.ts";
import { encodeClusterMessage, unwrap } from "../control/cluster_messages.ts";
import { Slots } from "../api/slots.ts";
import { hashOf } from "./entry.ts";
import type { ProofKeeper, ProofObservation } from "./keeper.ts";
import type { RemoteVerdict } from "./remote_log.ts";
import type { Verdict } from "./verifier.ts";

/** Logs verified at once for others; more get the answer UNKNOWN. */
export const MAX_CONCURRENT_QUERIES = 8;

/** Length of a reason in an answer, which is one packet. */
const MAX_REASON_LENGTH = 200;

/** What answers questions for proofs. */
export interface ProofQueryParts {
  keeper: Pick<ProofKeeper, "verify" | "has">;
  identity: IdentityClaim;
  /** Verifies the log of a workload of another node; `undefined` when no node is known to have it. Throws nothing. */
  remote?: (workloadId: string, wanted: { wantedHash?: string }) => Promise<RemoteVerdict | undefined>;
  observe?: (observation: ProofObservation) => void;
}

/**
 * Answers PROOF_VERIFY for workloads of this node and of others, by the whole log each: that of another node is fetched
 * there and verified here. `beacon_registry_hash` says by which identity.
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
    const wantedHash = proofHash === "" ? undefined : proofHash;
    const answer = (verdict: Verdict, claim?: IdentityClaim) => {
      const { result } = verdict;
      this.#parts.observe?.({ kind: "verified", result });
      return create(ProofVerificationSchema, {
        workloadId,
        proofHash,
        verificationResult: result,
        beaconRegistryHash: claim === undefined ? "" : registryHash(claim),
        reason: result === "VALID" ? "" : verdict.reason,
        badSeq: result === "INVALID" ? BigInt(verdict.seq ?? 0) : 0n,
      });
    };
    try {
      using _slot = this.#slots.take();
      const { keeper, identity, remote } = this.#parts;
      if (await keeper.has(workloadId)) {
        return answer(await keeper.verify(workloadId, { wantedHash }), identity);
      }
      const known = await remote?.(workloadId, { wantedHash });
      if (known === undefined) return answer(unknown("no node is known to have proofs of it"));
      return answer(known.verdict, known.claim);
    } catch (error) {
      // No id, too much asked at once, or a log that cannot be read.
      return answer(unknown(error instanceof Error ? error.message : String(error)));
    }
  }
}

function unknown(reason: string): Verdict {
  return { result: "UNKNOWN", reason: reason.slice(0, MAX_REASON_LENGTH) };
}

/** SHA-256 of the identity that a verification was made by: of its id, key and rotations in canonical JSON. */
export function registryHash({ nodeId, publicKey, rotations }: IdentityClaim): string {
  return hashOf({
    node_id: nodeId,
    public_key: publicKey.toBase64(),
    rotations: rotations.map(rotationText),
  });
}
