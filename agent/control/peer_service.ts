import type { ServiceImpl } from "@connectrpc/connect";
import type { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { pullProgress } from "../api/convert.ts";
import { streamProgress } from "../api/progress.ts";
import type { ClusterCore } from "../cluster/core.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import type { CoreDriver } from "./core_driver.ts";
import type { LocalNode } from "./local_node.ts";

const ID = /^[0-9a-f]{12}$/;

/** What other members may ask of this node. */
export interface PeerServiceParts {
  core: ClusterCore;
  driver: CoreDriver;
  local: LocalNode;
  manager: WorkloadManager;
  setCordoned(cordoned: boolean): Promise<void>;
}

/** The calls between nodes. The caller has proved to be a member; nothing is passed on to a third node. */
export function peerService(parts: PeerServiceParts): ServiceImpl<typeof PeerService> {
  const { core, driver, local, manager } = parts;
  return {
    fetchState: ({ incarnation, version }) =>
      core.ownUpdate(incarnation === 0n ? undefined : { incarnation, version }),
    async *fetchStates() {
      yield* core.updates();
    },
    offer({ ...request }) {
      return local.offer(request);
    },
    async *place({ request, id, generation, createdAtMs, restarts }, { signal }) {
      if (request === undefined || !ID.test(id)) {
        throw new RuntimeError("invalid", `Cannot place workload "${id.slice(0, 40)}": no request, or no id`);
      }
      const placed = streamProgress((report) =>
        local.place(request, {
          id,
          generation: Number(generation),
          createdAtMs: Number(createdAtMs) || undefined,
          restarts,
          signal,
          ...report,
        })
      );
      for await (const event of placed) {
        yield event.case === "pull"
          ? { event: { case: event.case, value: pullProgress(event.value) } }
          : { event };
      }
    },
    async evict({ id, generation, graceMs }) {
      const workload = manager.list().find((each) => each.id === id);
      if (workload === undefined || BigInt(workload.record.generation) >= generation) return {};
      await manager.stop(id, { graceMs });
      return {};
    },
    async fetchRequest({ id }) {
      const request = manager.list().find((each) => each.id === id)?.record.request ?? core.trusted(id);
      if (request === undefined) {
        throw new RuntimeError(
          "not-found",
          `Cannot find the request of workload "${id.slice(0, 40)}" on this node`,
        );
      }
      return await Promise.resolve({ request });
    },
    async entrust({ id, ownerNodeId, request }) {
      if (request === undefined || !ID.test(id)) {
        throw new RuntimeError("invalid", `Cannot keep the request of "${id.slice(0, 40)}": it is none`);
      }
      let refusal: string | undefined;
      driver.input((nowMs) => {
        const result = core.entrusted(nowMs, { id, ownerNodeId, request });
        refusal = result.refusal;
        return result.effects;
      });
      if (refusal !== undefined) {
        throw new RuntimeError("exhausted", `Cannot keep the request of "${id}": ${refusal}`);
      }
      return await Promise.resolve({});
    },
    async cordon({ cordoned }) {
      await parts.setCordoned(cordoned);
      return {};
    },
  };
}
