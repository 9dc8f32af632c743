import type { ConnectRouter, HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { IdentityService } from "../../proto/gen/hypercore/v1/identity_pb.ts";
import { BeaconService } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import { ClusterAdminService } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import { NodeService } from "../../proto/gen/hypercore/v1/node_pb.ts";
import { PolicyService } from "../../proto/gen/hypercore/v1/policy_pb.ts";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import type { ContainerEngine } from "../../runtime/engine.ts";
import type { Image, PullProgress } from "../../runtime/image/mod.ts";
import type { RotatableIdentity } from "../beacon/identity_live.ts";
import { parseImage } from "../workloads/parse_spawn.ts";
import type { ClusterCalls } from "./cluster_api.ts";
import { imageMessage, pullProgress } from "./convert.ts";
import { identityService } from "./identity_service.ts";
import { policyService, type PolicyServiceOptions } from "./policy_service.ts";
import { streamProgress } from "./progress.ts";
import { Slots } from "./slots.ts";
import type { WorkloadManager } from "../workloads/manager.ts";

/** Image transfers that clients may have under way at once. */
export const MAX_IMAGE_TRANSFERS = 16;

/** The images of the node, as the API needs them. Throws `RuntimeError`. */
export interface Images {
  pull(
    ref: string,
    options: { signal: AbortSignal; onProgress: (progress: PullProgress) => void },
  ): Promise<Image>;
  load(archive: AsyncIterable<Uint8Array>, options: { signal: AbortSignal }): Promise<Image[]>;
  list(signal?: AbortSignal): Promise<Image[]>;
  remove(ref: string, signal?: AbortSignal): Promise<void>;
}

/** What does not change about a node. */
export interface NodeFacts {
  nodeName: string;
  nodeId: string;
  version: string;
  containerdNamespace: string;
  insecure: boolean;
  baseUrl: string;
}

/** The cluster as the API needs it. */
export interface ClusterServices {
  readonly calls: ClusterCalls;
  readonly workloads: ServiceImpl<typeof WorkloadService>;
  readonly admin: ServiceImpl<typeof ClusterAdminService>;
  /** Absent means the node has no such service. */
  readonly beacons?: ServiceImpl<typeof BeaconService>;
  /** For `info`. */
  facts(): ClusterFacts;
  /** Tells the members what is different about this node. */
  localChanged(): void;
}

/** What a node says of itself as a member. */
export interface ClusterFacts {
  gossipAddress: string;
  gossipEncrypted: boolean;
  membersAlive: number;
  cordoned: boolean;
  clusterWorkloads: number;
}

/** What the services work with. */
export interface ServiceOptions {
  cluster: ClusterServices;
  manager: WorkloadManager;
  engine: ContainerEngine;
  images: Images;
  identity: RotatableIdentity;
  proofs: ServiceImpl<typeof ProofService>;
  facts: NodeFacts;
  /** Absent means the node has no such service. */
  policy?: PolicyServiceOptions;
}

/** Every service of the API port. */
export function routes(options: ServiceOptions): (router: ConnectRouter) => void {
  return (router) => {
    const { cluster } = options;
    router.service(ClusterService, clusterService(cluster.calls));
    router.service(WorkloadService, cluster.workloads);
    router.service(ClusterAdminService, cluster.admin);
    if (cluster.beacons !== undefined) router.service(BeaconService, cluster.beacons);
    router.service(ImageService, imageService(options.images));
    router.service(NodeService, nodeService(options));
    if (options.policy !== undefined) router.service(PolicyService, policyService(options.policy));
    router.service(ProofService, options.proofs);
    router.service(
      IdentityService,
      identityService(options.identity, {
        nodeName: options.facts.nodeName,
        onRotated: () => cluster.localChanged(),
      }),
    );
  };
}

/** ClusterService by the calls it stands for. */
export function clusterService(api: ClusterCalls): ServiceImpl<typeof ClusterService> {
  return {
    spawn: (request, { signal }) => api.spawn(request, { signal }),
    stop: ({ id, graceMs }) => api.stop(id, { graceMs }),
    list: () => api.list(),
    async logs({ id, tail }, { signal }) {
      return { logs: await api.logs(id, { tail: tail || undefined, signal }) };
    },
  };
}

function imageService(images: Images): ServiceImpl<typeof ImageService> {
  const transfers = new Slots("image transfers", MAX_IMAGE_TRANSFERS);
  return {
    async *pull({ imageRef }, { signal }: HandlerContext) {
      using _slot = transfers.take();
      const ref = parseImage(imageRef);
      const events = streamProgress(({ onPull }) => images.pull(ref, { signal, onProgress: onPull }));
      for await (const event of events) {
        if (event.case === "pull") yield { event: { case: "progress", value: pullProgress(event.value) } };
        if (event.case === "result") yield { event: { case: "image", value: imageMessage(event.value) } };
      }
    },
    async load(requests, { signal }) {
      using _slot = transfers.take();
      const loaded = await images.load(archive(requests), { signal });
      return { images: loaded.map(imageMessage) };
    },
    async listImages(_request, { signal }) {
      return { images: (await images.list(signal)).map(imageMessage) };
    },
    async removeImage({ imageRef }, { signal }) {
      await images.remove(parseImage(imageRef), signal);
      return {};
    },
  };
}

async function* archive(requests: AsyncIterable<{ data: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { data } of requests) yield data;
}

function nodeService({ engine, manager, cluster, facts }: ServiceOptions): ServiceImpl<typeof NodeService> {
  return {
    async info() {
      const { version, socket, isPrivate } = await engine.health();
      const { capacity, usage } = manager;
      return {
        ...facts,
        ...cluster.facts(),
        containerdVersion: version,
        containerdSocket: socket,
        containerdPrivate: isPrivate,
        vcpusTotal: Math.floor(capacity.milliCpus / 1000),
        vcpusUsed: Math.ceil(usage.milliCpus / 1000),
        memoryTotalBytes: BigInt(capacity.memoryBytes),
        memoryUsedBytes: BigInt(usage.memoryBytes),
        workloads: usage.workloads,
      };
    },
  };
}
