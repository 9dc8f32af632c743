import type { NodeStateResponse } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { IdentityClaim } from "./identity.ts";
import { parseRotations } from "./identity_rotation.ts";

/**
 * Who a node says to be in its state: its key, and how that came from the first one. Nothing where it signs nothing, or
 * where that cannot be read. Only as good as the state: to be asked of one whose signature was verified against the pins.
 */
export function stateClaim(
  nodeId: string,
  { publicKey, rotations }: Pick<NodeStateResponse, "publicKey" | "rotations">,
): IdentityClaim | undefined {
  if (publicKey.length === 0) return undefined;
  try {
    const parsed = parseRotations(rotations.map((text) => JSON.parse(text)));
    return "reason" in parsed ? undefined : { nodeId, publicKey, rotations: parsed.rotations };
  } catch {
    return undefined; // no JSON
  }
}
