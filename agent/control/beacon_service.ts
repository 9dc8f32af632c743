import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { BeaconService, BeaconViewSchema } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import type { AttestedFacts } from "../beacon/attestation.ts";
import type { NodeBeacon } from "../beacon/node_beacon.ts";
import type { NodeSummary } from "../cluster/reads.ts";
import type { Workload } from "../workloads/workload.ts";
import type { Attestations } from "./attestations.ts";

/** What the service works with. */
export interface BeaconServiceParts {
  attestations: Attestations;
  /** All nodes, this one among them. */
  nodes(): readonly NodeSummary[];
  /** What this node measures and thinks; absent where it does not. */
  beacon?: Pick<NodeBeacon, "measured" | "judge" | "registry">;
}

/** Beacons and attestations for clients. */
export function beaconService(parts: BeaconServiceParts): ServiceImpl<typeof BeaconService> {
  return {
    attest: (request, { signal }) => parts.attestations.ask(request, signal),
    list() {
      const registry = parts.beacon?.registry;
      return {
        beacons: parts.nodes().map((node) => view(node, parts.beacon)),
        registry: registry?.kind ?? "standalone",
        registryReason: registry?.kind === "disconnected" ? registry.reason : "",
      };
    },
  };
}

function view(
  node: NodeSummary,
  beacon: BeaconServiceParts["beacon"],
): MessageInitShape<typeof BeaconViewSchema> {
  const { id, name, isSelf, isVerified, header } = node;
  const told = header?.beacon;
  const measured = isSelf ? {} : beacon?.measured(node) ?? {};
  const judgement = beacon?.judge(node);
  const own = isSelf && told !== undefined
    ? { latencyMs: told.latencyMs, jitterMs: told.jitterMs, packetLoss: told.packetLoss }
    : {};
  return {
    nodeName: name,
    nodeId: id,
    isSelf,
    verified: isVerified,
    latencyMs: measured.latencyMs,
    jitterMs: measured.jitterMs,
    packetLoss: measured.packetLossPercent,
    ...own,
    queueDepth: told?.queueDepth ?? 0,
    pricePerGb: told?.pricePerGb ?? 0,
    reputation: isSelf ? judgement?.score : measured.reputation,
    ownScore: judgement?.own,
    ownWeight: judgement?.ownWeight ?? 0,
    observers: judgement?.observers ?? 0,
    capabilities: told?.nodeCapabilities ?? [],
    beaconAtMs: told?.timestamp ?? 0n,
  };
}

/** What this node attests of a workload that it runs. */
export function attestedWorkload(workload: Workload | undefined): AttestedFacts | undefined {
  if (workload === undefined) return undefined;
  const { phase, record, spec, proof } = workload;
  return {
    generation: record.generation,
    image: spec.image,
    image_digest: proof?.metrics.image_digest ?? "",
    proof_hash: proof?.proofHash ?? "",
    status: phase,
  };
}
