import { create } from "@bufbuild/protobuf";
import {
  type Offer,
  OfferSchema,
  type PolicyContext,
  type VmSpawnRequest,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
  type WorkloadState,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { CreateOptions } from "../../runtime/engine.ts";
import type { Images } from "../api/services.ts";
import { workloadState } from "../api/convert.ts";
import type { NodeBeacon } from "../beacon/node_beacon.ts";
import type { LocalState } from "../cluster/ports.ts";
import type { Placement } from "../workloads/spawner.ts";
import type { WorkloadRecord } from "../workloads/labels.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import type { Workload } from "../workloads/workload.ts";

/** What {@linkcode LocalNode} works with. */
export interface LocalNodeParts {
  nodeId: string;
  nodeName: string;
  manager: WorkloadManager;
  images: Pick<Images, "list">;
  tags: Readonly<Record<string, string>>;
  isCordoned: () => boolean;
  /** What its state says of its policy; nothing by default. */
  policy?: () => PolicyContext;
  /** Its beacon, and what it saw of others; nothing by default. */
  beacon?: Pick<NodeBeacon, "metadata" | "observations">;
  /** Whether a workload of this id was stopped for good, at this generation or a later one. */
  isBuried: (id: string, generation: bigint) => boolean;
}

/** This node as the cluster deals with it: what it offers, what it takes, what it says of itself. */
export class LocalNode {
  readonly #parts: LocalNodeParts;
  /** What was said of each workload, as long as nothing about it changes. */
  readonly #told = new WeakMap<
    Workload,
    { version: number; record: WorkloadRecord; proof: Workload["proof"]; state: WorkloadState }
  >();

  constructor(parts: LocalNodeParts) {
    this.#parts = parts;
  }

  /** What it would give for this; throws the reason why it would not take it. */
  async offer(request: VmSpawnRequest): Promise<VmSpawnResponse> {
    const { nodeName, manager } = this.#parts;
    this.#checkOpen();
    await manager.dryRun(this.#addressed(request));
    return create(VmSpawnResponseSchema, { node: nodeName, offer: await this.#offer(request.imageRef) });
  }

  /**
   * Runs it here. Answers a repetition with what is there: the same id in the same or a later generation. Throws what a
   * spawn throws, and `precondition` for what was stopped for good.
   */
  async place(
    request: VmSpawnRequest,
    options: CreateOptions & Placement & { id: string },
  ): Promise<VmSpawnResponse> {
    const { manager, isBuried } = this.#parts;
    const { id, generation = 1 } = options;
    const present = manager.list().find((each) => each.id === id);
    if (present === undefined || present.record.generation < generation) {
      this.#checkOpen();
      if (isBuried(id, BigInt(generation))) {
        throw new RuntimeError("precondition", `Cannot start workload "${id}": it was stopped for good`);
      }
    }
    if (present !== undefined) {
      if (present.record.generation >= generation && present.phase !== "stopping") return this.#answer(id);
      // An older copy of the same workload, or one that is on its way out: it makes room first.
      await manager.stop(id);
    }
    await manager.spawn({ ...this.#addressed(request), dryRun: false }, options);
    return this.#answer(id);
  }

  /** Everything about this node that others are told. */
  state(): LocalState {
    const { manager, tags, isCordoned } = this.#parts;
    const { capacity, usage } = manager;
    return {
      workloads: manager.list().map((workload) => this.#state(workload)),
      capacity: {
        $typeName: "cluster.services.api.Capacity",
        milliCpus: capacity.milliCpus,
        memoryBytes: BigInt(capacity.memoryBytes),
        usedMilliCpus: usage.milliCpus,
        usedMemoryBytes: BigInt(usage.memoryBytes),
      },
      cordoned: isCordoned(),
      tags: { ...tags },
      policy: this.#parts.policy?.(),
      beacon: this.#parts.beacon?.metadata(),
      observations: this.#parts.beacon?.observations() ?? [],
    };
  }

  #state(workload: Workload): WorkloadState {
    const { version, record, proof } = workload;
    const told = this.#told.get(workload);
    if (told?.version === version && told.record === record && told.proof === proof) return told.state;
    const state = workloadState(workload, this.#parts.manager.url(workload));
    this.#told.set(workload, { version, record, proof, state });
    return state;
  }

  #answer(id: string): VmSpawnResponse {
    const { manager, nodeName } = this.#parts;
    return create(VmSpawnResponseSchema, { id, url: manager.url(manager.get(id)), node: nodeName });
  }

  #checkOpen(): void {
    if (this.#parts.isCordoned()) {
      throw new RuntimeError("precondition", "Cannot take the workload: the node is cordoned");
    }
  }

  /** A request may name the node by id as well. */
  #addressed(request: VmSpawnRequest): VmSpawnRequest {
    const { nodeId, nodeName } = this.#parts;
    return request.node === nodeId ? { ...request, node: nodeName } : request;
  }

  async #offer(imageRef: string): Promise<Offer> {
    const { nodeId, manager, images } = this.#parts;
    const { capacity, usage } = manager;
    const present = await images.list().catch(() => []); // an offer without this fact is still one
    return create(OfferSchema, {
      nodeId,
      freeMilliCpus: Math.max(0, capacity.milliCpus - usage.milliCpus),
      freeMemoryBytes: BigInt(Math.max(0, capacity.memoryBytes - usage.memoryBytes)),
      workloads: usage.workloads,
      imagePresent: present.some(({ name }) => isSameImage(name, imageRef)),
      sameImage: manager.list().filter(({ spec }) => spec.image === imageRef).length,
    });
  }
}

/** Names are stored in full: `docker.io/library/nginx:1` for `nginx:1`. */
function isSameImage(stored: string, asked: string): boolean {
  const tagged = /[:@][^/]*$/.test(asked) ? asked : `${asked}:latest`;
  return stored === tagged || stored.endsWith(`/${tagged}`);
}
