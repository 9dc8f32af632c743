import type { DescService } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import {
  ClusterService,
  type Node,
  NodeSchema,
  type NodesStateResponse,
  type VmSpawnRequest,
  type VmSpawnResponse,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { CreateOptions } from "../../runtime/engine.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { ClusterCalls } from "../api/cluster_api.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { DEFAULT_GRACE_MS } from "../workloads/limits.ts";
import type { ClusterView } from "./cluster_view.ts";
import { type Location, PEER_CALL_MS } from "./forwarding.ts";
import type { OriginalNodes } from "./original_nodes.ts";
import type { Placer } from "./placer.ts";

/** What {@linkcode ClusterWideCalls} works with. */
export interface ClusterWideParts {
  local: ClusterCalls;
  view: ClusterView;
  client<S extends DescService>(service: S, nodeId: string): Client<S>;
  placer: Placer;
  /** A member that takes no calls, only queries; undefined for our own agents. */
  originalNode(nodeId: string): ClusterMember | undefined;
  originals: Pick<OriginalNodes, "stop">;
  locateLog(idOrName: string): Promise<Location>;
  /** Learns the present state of a node, as far as it can be had soon; never rejects. */
  catchUp(nodeId: string): Promise<void>;
  /** Lays down that a workload was stopped for good, for every node to know. */
  bury(id: string, generation: bigint): void;
}

/** The original's four calls for the whole cluster, on any of its nodes. */
export class ClusterWideCalls implements ClusterCalls {
  readonly #parts: ClusterWideParts;

  constructor(parts: ClusterWideParts) {
    this.#parts = parts;
  }

  spawn(request: VmSpawnRequest, options: CreateOptions = {}): Promise<VmSpawnResponse> {
    return this.#parts.placer.spawn(request, options);
  }

  /** Where the owner cannot be reached, the tombstone alone is laid: the owner ends its copy when it is back. */
  async stop(idOrName: string, options: { graceMs?: number } = {}): Promise<Node> {
    const { local, view, client, bury, originals, originalNode, catchUp } = this.#parts;
    const { isSelf, isLive, nodeId, nodeName, workload: { id, generation } } = view.find(idOrName);
    if (isSelf) return await local.stop(id, options);
    if (!isLive) {
      bury(id, generation);
      return create(NodeSchema, { id: nodeId, name: nodeName });
    }
    const original = originalNode(nodeId);
    if (original !== undefined) return await originals.stop(original, id);
    const timeoutMs = PEER_CALL_MS + (options.graceMs ?? DEFAULT_GRACE_MS);
    try {
      const node = await client(ClusterService, nodeId).stop({ id, graceMs: options.graceMs }, { timeoutMs });
      await catchUp(nodeId);
      return node;
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      bury(id, generation);
      throw new RuntimeError(
        "unavailable",
        `Cannot reach node "${nodeName}": workload "${id}" ends as soon as it can be reached`,
        { cause: error },
      );
    }
  }

  list(): NodesStateResponse {
    return this.#parts.view.list();
  }

  async logs(idOrName: string, options: { tail?: number; signal?: AbortSignal } = {}): Promise<string> {
    const { local, locateLog, client } = this.#parts;
    const { id, nodeId } = await locateLog(idOrName);
    if (nodeId === undefined) return await local.logs(id, options);
    const { tail = 0, signal } = options;
    return (await client(ClusterService, nodeId).logs({ id, tail }, { signal, timeoutMs: PEER_CALL_MS }))
      .logs;
  }
}

function isUnreachable(error: unknown): boolean {
  return (error instanceof RuntimeError && error.code === "unavailable") ||
    (error instanceof ConnectError &&
      (error.code === Code.Unavailable || error.code === Code.DeadlineExceeded));
}
