import type { ServiceImpl } from "@connectrpc/connect";
import type { ClusterMessage } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import { clusterProofs } from "../proof/forwarding.ts";
import { verifyMessage } from "../proof/message.ts";
import { verifyExport } from "../proof/remote_log.ts";
import type { NodeProofs } from "../proofs.ts";
import type { ClusterView } from "./cluster_view.ts";
import type { ForwardingParts } from "./forwarding.ts";

/** Time another node gets to give a log that a query asks about, milliseconds. */
const EXPORT_MS = 10_000;

/** What {@linkcode joinProofs} works with. */
export interface JoinProofsParts {
  view: Pick<ClusterView, "find">;
  client: ForwardingParts["client"];
  nodeName: string;
  /** Who another node is known to be, where that is known. */
  claimOf?: (nodeId: string) => IdentityClaim | undefined;
  /** Told what the log of another node turned out to be. */
  onVerdict?: (nodeId: string, result: "VALID" | "INVALID" | "UNKNOWN") => void;
}

/** The proofs of the whole cluster, as one of its nodes offers them. */
export interface JoinedProofs {
  /** For clients: forwarded to where the workload runs, verified here. */
  readonly service: ServiceImpl<typeof ProofService>;
  /** Answers PROOF_VERIFY. */
  answer(message: ClusterMessage): Promise<Uint8Array | undefined>;
}

/** Puts a node's own proofs together with what its cluster tells of others'. */
export function joinProofs(own: NodeProofs, parts: JoinProofsParts): JoinedProofs {
  const { view, client, nodeName, claimOf } = parts;
  const find = (id: string) => {
    try {
      return view.find(id);
    } catch (error) {
      if (error instanceof RuntimeError) return undefined; // no id, nowhere, or ambiguous
      throw error;
    }
  };
  const queries = own.queries(async (workloadId, { wantedHash }) => {
    const found = find(workloadId);
    if (found === undefined || found.isSelf) return undefined;
    const { nodeId, isLive, workload: { id, proof } } = found;
    const claim = claimOf?.(nodeId);
    try {
      if (!isLive) throw new Error("its node is not there");
      const { file } = await client(ProofService, nodeId).export({ id }, { timeoutMs: EXPORT_MS });
      const facts = { nodeId, workload: id, claim, toldHash: proof?.proofHash, wantedHash };
      return await verifyExport(file, facts);
    } catch (error) {
      // The chain cannot be had. The newest proof in its state can still be a bad one.
      const newest = proof && claim && verifyMessage(proof, { claim, workload: id });
      if (newest !== undefined && "reason" in newest) {
        return { verdict: { result: "INVALID", reason: newest.reason }, claim };
      }
      const reason = error instanceof Error ? error.message : String(error);
      return { verdict: { result: "UNKNOWN", reason: `the proofs cannot be had: ${reason}` }, claim };
    }
  });
  return {
    service: clusterProofs(own.service, {
      locate(idOrName) {
        const { isSelf, nodeId, workload } = view.find(idOrName);
        return { id: workload.id, nodeId: isSelf ? undefined : nodeId };
      },
      client,
      nodeName,
      claimOf,
      toldHash: (id) => find(id)?.workload.proof?.proofHash,
      observe: own.observe,
      onVerdict: parts.onVerdict,
    }),
    answer: (message) => queries.answer(message),
  };
}
