import type { Client } from "@connectrpc/connect";
import type { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { ClusterCore } from "../cluster/core.ts";
import type { ListedCopy } from "../cluster/reads.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import type { ClusterView } from "./cluster_view.ts";
import { PEER_CALL_MS } from "./forwarding.ts";
import type { Movable, MoverParts } from "./mover.ts";
import type { Placer } from "./placer.ts";

/** Time another node gets to end its copy, milliseconds. */
const EVICT_MS = 60_000;

/** Moves by way of the cluster's view, the placer and calls to the nodes. */
export function moverParts(parts: {
  nodeId: string;
  manager: WorkloadManager;
  core: ClusterCore;
  view: ClusterView;
  placer: Placer;
  peer(nodeId: string): Client<typeof PeerService>;
  setCordoned(cordoned: boolean): Promise<void>;
}): MoverParts {
  const { nodeId: selfId, manager, core, view, placer, peer } = parts;
  return {
    find: (idOrName) => movable(view.find(idOrName)),
    node(node) {
      const { id, name, life, kind } = view.node(node);
      if (life !== "live") return { id, name, refusal: "is not there" };
      return kind === "hypercore" ? { id, name } : { id, name, refusal: "takes no workloads with an id" };
    },
    on: (nodeId) => core.list().filter((copy) => copy.nodeId === nodeId && copy.isLive).map(movable),
    async request({ id, nodeId }, signal) {
      if (nodeId === selfId) return manager.get(id).record.request;
      const { request } = await peer(nodeId).fetchRequest({ id }, { signal, timeoutMs: PEER_CALL_MS });
      if (request === undefined) {
        throw new RuntimeError("not-found", `Cannot move workload "${id}": it has no request`);
      }
      return request;
    },
    async place(request, { workload, to, signal }) {
      const { id, generation, createdAtMs, restarts, nodeId } = workload;
      // Where it was bound to its old node, the move is what unbinds it.
      const { response } = await placer.place({ ...request, node: "" }, {
        id,
        generation: generation + 1,
        createdAtMs,
        restarts,
        exclude: new Set([nodeId]),
        to,
        signal,
      });
      return response.node;
    },
    async evict({ id, nodeId }, { generation, signal }) {
      if (nodeId !== selfId) {
        await peer(nodeId).evict({ id, generation: BigInt(generation) }, { signal, timeoutMs: EVICT_MS });
      } else if (manager.list().some((each) => each.id === id && each.record.generation < generation)) {
        await manager.stop(id);
      }
    },
    async cordon(node, cordoned) {
      const nodeId = view.nodeId(node);
      if (nodeId === selfId) await parts.setCordoned(cordoned);
      else await peer(nodeId).cordon({ cordoned }, { timeoutMs: PEER_CALL_MS });
    },
  };
}

function movable({ nodeId, nodeName, isLive, workload }: ListedCopy): Movable {
  const { id, generation, createdAtMs, restarts } = workload;
  if (!isLive) {
    throw new RuntimeError(
      "unavailable",
      `Cannot move workload "${id}": its node "${nodeName}" is not there`,
    );
  }
  return { id, nodeId, nodeName, generation: Number(generation), createdAtMs: Number(createdAtMs), restarts };
}
