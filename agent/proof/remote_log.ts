import type { IdentityClaim } from "../beacon/identity.ts";
import { isSameBytes, verifyClaim } from "../beacon/identity_rotation.ts";
import { parseExport } from "./export.ts";
import type { Verdict } from "./verifier.ts";
import { verifyInPortions } from "./verify_in_portions.ts";

/** What a log of another node is checked against. */
export interface RemoteLogFacts {
  /** The node that made it. */
  nodeId: string;
  workload: string;
  /** Who that node is known to be; without it its own word counts, which its id is bound to. */
  claim?: IdentityClaim;
  /** Hash of a proof that the node has told of. */
  toldHash?: string;
  /** Hash that is asked for. */
  wantedHash?: string;
}

/** A verdict, and the identity it was made by. */
export interface RemoteVerdict {
  verdict: Verdict;
  claim?: IdentityClaim;
}

/** Verifies an exported log as another node gave it: whatever that says of itself is checked here. */
export async function verifyExport(file: Uint8Array, facts: RemoteLogFacts): Promise<RemoteVerdict> {
  const { nodeId, workload, toldHash, wantedHash } = facts;
  const read = parseExport(file);
  const given = "claim" in read ? read.claim : undefined;
  const claim = facts.claim === undefined ? given : newerClaim(facts.claim, given);
  if ("reason" in read) return { verdict: { result: "INVALID", reason: read.reason }, claim };
  if (claim !== undefined && claim.nodeId !== nodeId) {
    return { verdict: { result: "INVALID", reason: "it is of another node" }, claim };
  }
  return { verdict: await verifyInPortions(read.lines, { claim, workload, toldHash, wantedHash }), claim };
}

/** A node may have rotated its key since its state was told: then the claim it gives leads from the one that is known. */
function newerClaim(known: IdentityClaim, given: IdentityClaim | undefined): IdentityClaim {
  const at = known.rotations.length;
  if (given === undefined || given.nodeId !== known.nodeId || given.rotations.length <= at) return known;
  const verdict = verifyClaim(given);
  return "keys" in verdict && isSameBytes(verdict.keys[at], known.publicKey) ? given : known;
}
