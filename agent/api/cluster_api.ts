import { create } from "@bufbuild/protobuf";
import {
  type Node,
  NodeSchema,
  type NodesStateResponse,
  NodesStateResponseSchema,
  type PolicyContext,
  type VmSpawnRequest,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ContainerEngine, CreateOptions } from "../../runtime/engine.ts";
import { logOwner } from "../workloads/log_owner.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import { workloadState } from "./convert.ts";

/** Most bytes of a log in one answer (stock gRPC clients take messages of 4 MiB); the newest ones are kept. */
export const MAX_LOG_RESPONSE_BYTES = 3 << 20;

const NEWLINE = 0x0a;

/** What {@linkcode ClusterApi} works with. */
export interface ClusterApiOptions {
  manager: WorkloadManager;
  engine: Pick<ContainerEngine, "logs" | "hasLog">;
  /** What this node's state says of its policy; nothing by default. */
  policy?: () => PolicyContext;
  node: { id: string; name: string; address: string };
  /** Told of a stop for good before it begins. */
  onStop?: (workload: { id: string; generation: bigint }) => void;
}

/** The four calls of the original, for every way they come in. They throw `RuntimeError`. */
export interface ClusterCalls {
  /** Spawns; with `dry_run` only answers where it would, with an empty id. */
  spawn(request: VmSpawnRequest, options?: CreateOptions): Promise<VmSpawnResponse>;
  /** Gives the node that ran it. */
  stop(id: string, options?: { graceMs?: number }): Promise<Node>;
  list(): NodesStateResponse;
  /** The newest lines that fit {@linkcode MAX_LOG_RESPONSE_BYTES}. */
  logs(id: string, options?: { tail?: number; signal?: AbortSignal }): Promise<string>;
}

/** The four calls for what runs on this node. */
export class ClusterApi implements ClusterCalls {
  readonly #options: ClusterApiOptions;

  constructor(options: ClusterApiOptions) {
    this.#options = options;
  }

  /** This node. */
  get node(): Node {
    const { id, name, address } = this.#options.node;
    return create(NodeSchema, { id, name, ip: address });
  }

  /** Spawns; with `dry_run` only answers whether this node would, with an empty id. */
  async spawn(request: VmSpawnRequest, options: CreateOptions = {}): Promise<VmSpawnResponse> {
    const { manager, node } = this.#options;
    if (request.dryRun) {
      await manager.dryRun(request);
      return create(VmSpawnResponseSchema, { node: node.name });
    }
    const workload = await manager.spawn(request, options);
    return create(VmSpawnResponseSchema, { id: workload.id, url: manager.url(workload), node: node.name });
  }

  async stop(idOrName: string, options: { graceMs?: number } = {}): Promise<Node> {
    const { manager, onStop } = this.#options;
    const { id, record } = manager.get(idOrName);
    onStop?.({ id, generation: BigInt(record.generation) });
    await manager.stop(id, options);
    return this.node;
  }

  list(): NodesStateResponse {
    const { manager, policy } = this.#options;
    const workloads = manager.list().map((workload) => workloadState(workload, manager.url(workload)));
    return create(NodesStateResponseSchema, { states: [{ node: this.node, workloads, policy: policy?.() }] });
  }

  /** The newest lines that fit {@linkcode MAX_LOG_RESPONSE_BYTES}. */
  async logs(id: string, options: { tail?: number; signal?: AbortSignal } = {}): Promise<string> {
    const owner = await logOwner(id, this.#options);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.#options.engine.logs(owner, options)) {
      chunks.push(chunk);
      length += chunk.length;
      while (length - chunks[0].length >= MAX_LOG_RESPONSE_BYTES) length -= chunks.shift()!.length;
    }
    return new TextDecoder().decode(newest(chunks, length));
  }
}

/** The end of it, from the start of a line when it has to be cut. */
function newest(chunks: readonly Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  if (length <= MAX_LOG_RESPONSE_BYTES) return all;
  const cut = all.subarray(length - MAX_LOG_RESPONSE_BYTES);
  return cut.subarray(cut.indexOf(NEWLINE) + 1);
}
