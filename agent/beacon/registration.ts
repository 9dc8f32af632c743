import type { BeaconMetadata } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { canonicalJson } from "../canonical.ts";
import type { NodeIdentity } from "./identity.ts";
import { rotationText } from "./identity_rotation.ts";

/** What a node tells a registry of itself. */
export interface RegistrationFacts {
  nodeName: string;
  version: string;
  beacon: BeaconMetadata;
  nowMs: number;
}

/**
 * What a registry is sent: `{"registration":TEXT,"signature":BASE64}`, the signature by the node's identity over the text, in
 * the context `hypercore/register/1`. Figures are text: canonical JSON has whole numbers only.
 */
export function registrationText(identity: NodeIdentity, facts: RegistrationFacts): string {
  const { nodeName, version, beacon, nowMs } = facts;
  const registration = canonicalJson({
    agent_version: version,
    at_ms: Math.round(nowMs),
    beacon: {
      at_ms: Number(beacon.timestamp),
      capabilities: beacon.nodeCapabilities,
      jitter_ms: String(beacon.jitterMs),
      latency_ms: String(beacon.latencyMs),
      packet_loss: String(beacon.packetLoss),
      price_per_gb: String(beacon.pricePerGb),
      queue_depth: beacon.queueDepth,
      reputation_score: beacon.reputationScore,
      signature: beacon.nodeSignature.toBase64(),
      starting_reputation: String(beacon.startingReputation),
    },
    key: identity.publicKey.toBase64(),
    name: nodeName,
    node: identity.nodeId,
    rotations: identity.rotations.map(rotationText),
  });
  const signature = identity.sign("hypercore/register/1", new TextEncoder().encode(registration));
  return canonicalJson({ registration, signature: signature.toBase64() });
}
