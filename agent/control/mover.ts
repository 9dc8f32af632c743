import type { MessageInitShape } from "@bufbuild/protobuf";
import type { VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { MoveEventSchema } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";

/** A step of a move. */
export type MoveStep = MessageInitShape<typeof MoveEventSchema>;

/** A workload on its way: what starts the next copy of it. */
export interface Movable {
  id: string;
  nodeId: string;
  nodeName: string;
  generation: number;
  createdAtMs: number;
  restarts: number;
}

/** What moves are made of. */
export interface MoverParts {
  /** Throws `not-found`. */
  find(idOrName: string): Movable;
  /** A node by name or id, and why nothing can be moved there, if so; throws `not-found`. */
  node(node: string): { id: string; name: string; refusal?: string };
  /** What runs on a node. */
  on(nodeId: string): Movable[];
  /** The whole spawn request, secrets included. */
  request(workload: Movable, signal: AbortSignal): Promise<VmSpawnRequest>;
  /** Starts the next copy on another node; gives its name. */
  place(
    request: VmSpawnRequest,
    options: { workload: Movable; to: string | undefined; signal: AbortSignal },
  ): Promise<string>;
  /** Ends the old copy, which is older than `generation`. */
  evict(workload: Movable, options: { generation: number; signal: AbortSignal }): Promise<void>;
  cordon(node: string, cordoned: boolean): Promise<void>;
}

/** Workloads of a drained node that move at once. */
export const MOVES_AT_ONCE = 4;

/** Moves workloads between living nodes: start there, switch the routes, stop here; id and URL stay. */
export class Mover {
  readonly #parts: MoverParts;

  constructor(parts: MoverParts) {
    this.#parts = parts;
  }

  /** Yields each step. Throws when it cannot be moved; the workload runs on where it was then. */
  async *move(idOrName: string, options: { to: string; signal: AbortSignal }): AsyncGenerator<MoveStep> {
    const { signal } = options;
    const workload = this.#parts.find(idOrName);
    const { id, nodeName } = workload;
    const to = options.to === "" ? undefined : this.#parts.node(options.to);
    if (to?.id === workload.nodeId) {
      throw new RuntimeError(
        "precondition",
        `Cannot move workload "${id}": it is on node "${nodeName}" already`,
      );
    }
    if (to?.refusal !== undefined) {
      throw new RuntimeError("unavailable", `Cannot move workload "${id}": node "${to.name}" ${to.refusal}`);
    }
    yield { id, step: "placing", node: to?.name };
    const request = await this.#parts.request(workload, signal);
    const node = await this.#parts.place(request, { workload, to: to?.id, signal });
    yield { id, step: "started", node };
    yield { id, step: "stopping", node: nodeName };
    await this.#parts.evict(workload, { generation: workload.generation + 1, signal });
    yield { id, step: "moved", node };
  }

  /** Lets a node, by name or id, take new workloads or not. Throws `not-found`. */
  async cordon(node: string, cordoned: boolean): Promise<void> {
    await this.#parts.cordon(node, cordoned);
  }

  /** Cordons a node and moves everything off it, a few at a time. A workload that cannot move stays, with a "failed". */
  async *drain(node: string, signal: AbortSignal): AsyncGenerator<MoveStep> {
    const nodeId = this.#parts.node(node).id;
    await this.#parts.cordon(nodeId, true);
    const waiting = this.#parts.on(nodeId);
    const running = new Map<string, Promise<{ id: string; steps: MoveStep[] }>>();
    while (waiting.length > 0 || running.size > 0) {
      signal.throwIfAborted();
      while (running.size < MOVES_AT_ONCE && waiting.length > 0) {
        const { id } = waiting.shift()!;
        running.set(id, this.#moveWhole(id, signal));
      }
      const { id, steps } = await Promise.race(running.values());
      running.delete(id);
      yield* steps;
    }
  }

  async #moveWhole(id: string, signal: AbortSignal): Promise<{ id: string; steps: MoveStep[] }> {
    const steps: MoveStep[] = [];
    try {
      for await (const step of this.move(id, { to: "", signal })) steps.push(step);
    } catch (error) {
      // One that stopped meanwhile needs no move.
      const isGone = error instanceof RuntimeError && error.code === "not-found";
      const detail = error instanceof Error ? error.message : String(error);
      if (!isGone) steps.push({ id, step: "failed", detail });
    }
    return { id, steps };
  }
}
