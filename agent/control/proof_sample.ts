import type { IdentityClaim } from "../beacon/identity.ts";
import type { Deed } from "../beacon/reputation.ts";
import type { ListedCopy } from "../cluster/reads.ts";
import { verifyMessage } from "../proof/message.ts";

/** What a sample is taken from. */
export interface ProofSampleParts {
  /** The workloads of the cluster. */
  list(): readonly ListedCopy[];
  /** Who a node is known to be; absent for one whose state is not verified. */
  claimOf(nodeId: string): IdentityClaim | undefined;
  /** A whole number from 0 to below `limit`. */
  random(limit: number): number;
}

/** Verifies one told proof of another node, any. Nothing where none is told by a node whose key is known. */
export function sampleProof(parts: ProofSampleParts): { nodeId: string; deed: Deed } | undefined {
  const proven = parts.list().filter(({ isSelf, isLive, workload }) =>
    !isSelf && isLive && workload.proof !== undefined
  );
  if (proven.length === 0) return undefined;
  const { nodeId, workload } = proven[parts.random(proven.length)];
  const claim = parts.claimOf(nodeId);
  if (claim === undefined) return undefined;
  const verdict = verifyMessage(workload.proof!, { claim, workload: workload.id });
  return { nodeId, deed: "reason" in verdict ? "proof-invalid" : "proof-valid" };
}
