import type { ServiceImpl } from "@connectrpc/connect";
import { systemRandom } from "../../gossip/mod.ts";
import type { ClusterMessage } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { BeaconService } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import type { IdentityClaim } from "../beacon/identity.ts";
import type { Deed } from "../beacon/reputation.ts";
import { stateClaim } from "../beacon/state_claim.ts";
import type { ClusterCore } from "../cluster/core.ts";
import type { ClusterEffect } from "../cluster/ports.ts";
import type { Membership } from "../membership/membership.ts";
import { Attestations } from "./attestations.ts";
import { attestedWorkload, beaconService } from "./beacon_service.ts";
import type { ClusterParts } from "./cluster_parts.ts";
import { type JoinedProofs, joinProofs } from "./cluster_proofs.ts";
import type { ClusterView } from "./cluster_view.ts";
import type { ForwardingParts } from "./forwarding.ts";
import { sampleProof } from "./proof_sample.ts";

/** What {@linkcode Trust} works with besides the parts of a cluster. */
export interface TrustParts {
  membership: Membership;
  core: ClusterCore;
  view: ClusterView;
  client: ForwardingParts["client"];
}

/** What a log of another node that was verified here says of that node; nothing where it could not be had. */
const DEED_OF_LOG = { VALID: "proof-valid", INVALID: "log-invalid", UNKNOWN: undefined } as const;

/** What a node's cluster has of the trust modules: who the others are, what they can prove, and what they are thought of. */
export class Trust {
  /** Absent when the node makes no proofs. */
  readonly proofs: JoinedProofs | undefined;
  readonly beacons: ServiceImpl<typeof BeaconService>;
  readonly #parts: ClusterParts;
  readonly #own: TrustParts;
  readonly #attestations: Attestations;

  constructor(parts: ClusterParts, own: TrustParts) {
    const { nodeId, nodeName, version, identity, manager, beacon, observeBeacon } = parts;
    const { membership, core, view, client } = own;
    this.#parts = parts;
    this.#own = own;
    const claimOf = (id: string) => this.#claimOf(id);
    this.proofs = parts.proofs && joinProofs(parts.proofs, {
      view,
      client,
      nodeName,
      claimOf,
      onVerdict: (id, result) => {
        const deed = DEED_OF_LOG[result];
        if (deed !== undefined) this.note(id, deed);
      },
    });
    this.#attestations = new Attestations({
      node: { id: nodeId, name: nodeName, version },
      identity,
      membership,
      view,
      claimOf,
      rootOf: (id) => core.root(id),
      workload: (id) => attestedWorkload(manager.list().find((each) => each.id === id)),
      nowMs: Date.now,
      elapsedMs: () => performance.now(),
      observe: observeBeacon,
      onDeed: (id, deed) => this.note(id, deed),
    });
    this.beacons = beaconService({ attestations: this.#attestations, nodes: () => core.nodes(), beacon });
  }

  /** Another node did something, for it or against it. */
  note(nodeId: string, deed: Deed): void {
    this.#parts.beacon?.note(nodeId, deed);
  }

  /** A state was not believed. What did not come from where the node should be may be anybody's. */
  refused({ nodeId, via }: ClusterEffect & { kind: "refused" }): void {
    this.#parts.observeBeacon?.({ kind: "state-refused", via });
    if (via === "owner") this.note(nodeId, "state-forged");
  }

  /** Answers BEACON_ATTEST. */
  attest(message: ClusterMessage): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return this.#attestations.answer(message);
  }

  /** The beacon measures and listens from now on. */
  connect(): void {
    const { membership, core } = this.#own;
    const random = systemRandom();
    this.#parts.beacon?.connect(membership, {
      nodes: () => core.nodes(),
      sampleProof: () =>
        sampleProof({
          list: () => core.list(),
          claimOf: (id) => this.#claimOf(id),
          random: (limit) => random.int(limit),
        }),
    });
  }

  /** Who another node is known to be: by its state, where that is signed as the key pinned for it says. */
  #claimOf(nodeId: string): IdentityClaim | undefined {
    const node = this.#own.core.nodes().find(({ id }) => id === nodeId);
    return node?.isVerified && node.header !== undefined ? stateClaim(nodeId, node.header) : undefined;
  }
}
