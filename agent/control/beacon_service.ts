import type { ServiceImpl } from "@connectrpc/connect";
import type { BeaconService } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import type { AttestedFacts } from "../beacon/attestation.ts";
import type { Workload } from "../workloads/workload.ts";
import type { Attestations } from "./attestations.ts";

/** What the service works with. */
export interface BeaconServiceParts {
  attestations: Attestations;
}

/** Beacons and attestations for clients. */
export function beaconService({ attestations }: BeaconServiceParts): ServiceImpl<typeof BeaconService> {
  return {
    attest: (request, { signal }) => attestations.ask(request, signal),
    list: () => ({ beacons: [], registry: "standalone" }),
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
