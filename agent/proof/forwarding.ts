import type { ServiceImpl } from "@connectrpc/connect";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { type ForwardingParts, type Location, PEER_CALL_MS } from "../control/forwarding.ts";
import { parseExport } from "./export.ts";
import type { ProofObservation } from "./keeper.ts";
import { verdictMessage } from "./proof_service.ts";
import { verifyInPortions } from "./verify_in_portions.ts";

type Proofs = ServiceImpl<typeof ProofService>;

/** What forwarding proofs works with besides. */
export interface ProofForwardingParts extends Pick<ForwardingParts, "locate" | "client"> {
  nodeName: string;
  /** Who this node knows another one to be; what it says of itself is not enough where that is known. */
  claimOf?: (nodeId: string) => IdentityClaim | undefined;
  /** Hash of the newest proof of a workload that its node's state has told of. */
  toldHash?: (workloadId: string) => string | undefined;
  observe?: (observation: ProofObservation) => void;
}

/**
 * The proofs of a whole cluster: each call goes to the node that runs the workload. Only a verification does not trust
 * that node: its log is fetched, and verified here.
 */
export function clusterProofs(local: Proofs, parts: ProofForwardingParts): Proofs {
  const remote = (nodeId: string) => parts.client(ProofService, nodeId);
  const locate = (id: string): Location => {
    try {
      return parts.locate(id);
    } catch (error) {
      // It may have been stopped here: its proofs are kept for a while.
      if (error instanceof RuntimeError && error.code === "not-found") return { id };
      throw error;
    }
  };
  return {
    show(request, context) {
      const { id, nodeId } = locate(request.id);
      if (nodeId === undefined) return local.show({ ...request, id }, context);
      return remote(nodeId).show({ id, count: request.count }, {
        signal: context.signal,
        timeoutMs: PEER_CALL_MS,
      });
    },
    export(request, context) {
      const { id, nodeId } = locate(request.id);
      if (nodeId === undefined) return local.export({ ...request, id }, context);
      return remote(nodeId).export({ id }, { signal: context.signal, timeoutMs: PEER_CALL_MS });
    },
    async verify(request, context) {
      const { id, nodeId } = locate(request.id);
      if (nodeId === undefined) return await local.verify({ ...request, id }, context);
      const toldHash = parts.toldHash?.(id);
      const { file } = await remote(nodeId).export({ id }, {
        signal: context.signal,
        timeoutMs: PEER_CALL_MS,
      });
      const read = parseExport(file);
      const claim = parts.claimOf?.(nodeId) ?? ("claim" in read ? read.claim : undefined);
      const verdict = "reason" in read
        ? { result: "INVALID" as const, reason: read.reason }
        : claim !== undefined && claim.nodeId !== nodeId
        ? { result: "INVALID" as const, reason: "it is of another node" }
        : await verifyInPortions(read.lines, {
          claim,
          workload: id,
          toldHash,
          wantedHash: request.proofHash || undefined,
        });
      parts.observe?.({ kind: "verified", result: verdict.result });
      return verdictMessage(verdict, { workloadId: id, nodeId, verifiedBy: parts.nodeName });
    },
  };
}
