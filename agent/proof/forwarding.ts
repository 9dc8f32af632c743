import type { ServiceImpl } from "@connectrpc/connect";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { type ForwardingParts, type Location, PEER_CALL_MS } from "../control/forwarding.ts";
import type { ProofObservation } from "./keeper.ts";
import { verdictMessage } from "./proof_service.ts";
import { verifyExport } from "./remote_log.ts";

type Proofs = ServiceImpl<typeof ProofService>;

/** What forwarding proofs works with besides. */
export interface ProofForwardingParts extends Pick<ForwardingParts, "locate" | "client"> {
  nodeName: string;
  /** Who this node knows another one to be; what it says of itself is not enough where that is known. */
  claimOf?: (nodeId: string) => IdentityClaim | undefined;
  /** Hash of the newest proof of a workload that its node's state has told of. */
  toldHash?: (workloadId: string) => string | undefined;
  observe?: (observation: ProofObservation) => void;
  /** Told what the log of another node turned out to be. */
  onVerdict?: (nodeId: string, result: "VALID" | "INVALID" | "UNKNOWN") => void;
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
      const call = { signal: context.signal, timeoutMs: PEER_CALL_MS };
      const { file } = await remote(nodeId).export({ id }, call);
      const { verdict } = await verifyExport(file, {
        nodeId,
        workload: id,
        claim: parts.claimOf?.(nodeId),
        toldHash: parts.toldHash?.(id),
        wantedHash: request.proofHash || undefined,
      });
      parts.observe?.({ kind: "verified", result: verdict.result });
      parts.onVerdict?.(nodeId, verdict.result);
      return verdictMessage(verdict, { workloadId: id, nodeId, verifiedBy: parts.nodeName });
    },
  };
}
