import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { ProofService, VerifyProofResponseSchema } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { Slots } from "../api/slots.ts";
import type { IdentityClaim, NodeIdentity } from "../beacon/identity.ts";
import { parseIdOrName } from "../workloads/parse_spawn.ts";
import type { Workload } from "../workloads/workload.ts";
import { exportText } from "./export.ts";
import type { ProofKeeper, ProofObservation } from "./keeper.ts";
import type { Verdict } from "./verifier.ts";

/** Logs that clients may read or verify at once. */
export const MAX_PROOF_CALLS = 16;
/** Most proofs in one answer: a whole log, whose lines are never shorter than this many times fit its limit. */
export const MAX_SHOWN_PROOFS = 4_096;

/** What the service works with. */
export interface ProofServiceParts {
  keeper: ProofKeeper;
  identity: NodeIdentity;
  nodeName: string;
  /** By id or name; throws for what does not run here. */
  get(idOrName: string): Workload;
  observe?: (observation: ProofObservation) => void;
}

/** The proofs of this node's workloads. */
export function proofService(parts: ProofServiceParts): ServiceImpl<typeof ProofService> {
  const { keeper, identity, nodeName, observe } = parts;
  const slots = new Slots("calls for proofs", MAX_PROOF_CALLS);
  return {
    async show(request) {
      using _slot = slots.take();
      const workloadId = await find(parts, request.id);
      const lines = await keeper.lines(workloadId);
      return { workloadId, entries: lines.slice(-Math.min(request.count || 1, MAX_SHOWN_PROOFS)) };
    },
    async verify(request) {
      using _slot = slots.take();
      const workloadId = await find(parts, request.id);
      const verdict = await keeper.verify(workloadId, { wantedHash: request.proofHash || undefined });
      observe?.({ kind: "verified", result: verdict.result });
      return verdictMessage(verdict, { workloadId, nodeId: identity.nodeId, verifiedBy: nodeName });
    },
    async export(request) {
      using _slot = slots.take();
      const workloadId = await find(parts, request.id);
      const { nodeId, publicKey, rotations } = identity;
      const claim: IdentityClaim = { nodeId, publicKey, rotations };
      const text = exportText({ claim, workload: workloadId, lines: await keeper.lines(workloadId) });
      return { workloadId, file: new TextEncoder().encode(text) as Uint8Array<ArrayBuffer> };
    },
  };
}

/** A verdict as the API has it. */
export function verdictMessage(
  verdict: Verdict,
  facts: { workloadId: string; nodeId: string; verifiedBy: string },
): MessageInitShape<typeof VerifyProofResponseSchema> {
  const { result } = verdict;
  if (result !== "VALID") {
    const badSeq = result === "INVALID" ? BigInt(verdict.seq ?? 0) : 0n;
    return { ...facts, result, reason: verdict.reason, badSeq };
  }
  const { first, last, lastHash, count, dropped, cpuUs, wallMs } = verdict.summary;
  return {
    ...facts,
    result,
    summary: {
      count: BigInt(count),
      dropped: BigInt(dropped),
      lastHash,
      firstAtMs: BigInt(first.at_ms),
      lastAtMs: BigInt(last.at_ms),
      generation: BigInt(last.generation),
      cpuUs: BigInt(cpuUs),
      wallMs: BigInt(wallMs),
      imageDigest: last.image_digest,
      hypervisorType: last.hypervisor_type,
    },
  };
}

/** The id behind an id or name, also of a workload that was stopped. Throws `not-found` when there are no proofs of it. */
async function find({ get, keeper }: ProofServiceParts, idOrName: string): Promise<string> {
  const key = parseIdOrName(idOrName);
  try {
    return get(key).id;
  } catch (error) {
    if (!(error instanceof RuntimeError && error.code === "not-found")) throw error;
  }
  if (await keeper.has(key)) return key;
  throw new RuntimeError("not-found", `Cannot find proofs of workload "${key}": none are kept on this node`);
}
