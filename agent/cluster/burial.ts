import { create } from "@bufbuild/protobuf";
import { type Tombstone, TombstoneSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { CoreContext } from "./context.ts";
import { Earliest } from "./earliest.ts";
import { END_AGAIN_MS, TOMBSTONE_CONFLICT_MS } from "./limits.ts";
import { Rendezvous } from "./rendezvous.ts";
import { Tombstones } from "./tombstones.ts";

/** Those further back in line all wait this many times as long. */
const MAX_WAITS = 8;

/**
 * Keeps the stopped stopped: ends a local copy that a tombstone forbids, and states a tombstone anew where a live node
 * has a copy and seems not to know.
 */
export class Burial {
  readonly tombstones = new Tombstones();
  readonly #context: CoreContext;
  /** Local copies to end: when. */
  readonly #endings = new Map<string, number>();
  /** Copies elsewhere that must not be: when the tombstone is stated anew. */
  readonly #conflicts = new Map<string, number>();

  readonly #earliest = new Earliest(() => this.#nextMs());
  readonly #onStated: (tombstone: Tombstone) => void;

  /** `onStated` is told of each tombstone that this node states from now on. */
  constructor(context: CoreContext, onStated: (tombstone: Tombstone) => void) {
    this.#context = context;
    this.#onStated = onStated;
  }

  get sizes(): { tombstones: number; endings: number; conflicts: number } {
    return { tombstones: this.tombstones.size, endings: this.#endings.size, conflicts: this.#conflicts.size };
  }

  /** This node stopped a workload for good. */
  stop(id: string, generation: bigint): void {
    const { wallMs } = this.#context;
    this.#state(create(TombstoneSchema, { id, generation, stoppedAtMs: BigInt(Math.round(wallMs)) }));
  }

  /** Others did. */
  learn(tombstones: readonly Tombstone[]): void {
    const { wallMs, touched } = this.#context;
    let isNew = false;
    for (const tombstone of tombstones) {
      if (!this.tombstones.add(tombstone, { wallMs, isOwn: false })) continue;
      isNew = true;
      touched.add(tombstone.id);
    }
    if (isNew) this.#context.emit({ kind: "save-tombstones" });
  }

  /** Looks at an id again. */
  check(id: string): void {
    this.#earliest.changed();
    const buried = this.tombstones.get(id);
    if (buried === undefined) {
      this.#endings.delete(id);
      this.#conflicts.delete(id);
      return;
    }
    const { nowMs, copies, parts: { selfId, table } } = this.#context;
    const live = copies.live(id);
    if (!live.some(({ nodeId }) => nodeId === selfId)) this.#endings.delete(id);
    else if (!this.#endings.has(id)) this.#endings.set(id, nowMs + (buried.isOwn ? END_AGAIN_MS : 0));
    const isElsewhere = live.some(({ nodeId }) => table.get(nodeId)?.kind === "hypercore");
    if (!isElsewhere || buried.isOwn) this.#conflicts.delete(id);
    else if (!this.#conflicts.has(id)) {
      const position = new Rendezvous(this.#context.liveNodes()).position(id, selfId, { most: MAX_WAITS });
      this.#conflicts.set(id, nowMs + TOMBSTONE_CONFLICT_MS * (1 + position));
    }
  }

  /** Does what is due. */
  tick(): void {
    const { nowMs, wallMs, copies, parts: { own } } = this.#context;
    if (this.tombstones.expire(wallMs)) this.#context.emit({ kind: "save-tombstones" });
    if (nowMs < this.nextMs()) return;
    this.#earliest.changed();
    for (const [id, dueMs] of this.#endings) {
      if (dueMs > nowMs) continue;
      this.#endings.set(id, nowMs + END_AGAIN_MS);
      const generation = own.workloads.get(id)?.state.generation ?? 0n;
      this.#context.emit({ kind: "end-stopped", id, generation });
    }
    for (const [id, dueMs] of this.#conflicts) {
      if (dueMs > nowMs) continue;
      this.#conflicts.delete(id);
      const buried = this.tombstones.get(id);
      if (buried !== undefined && copies.live(id).length > 0) this.#state(buried.tombstone);
    }
  }

  nextMs(): number {
    return this.#earliest.atMs;
  }

  #nextMs(): number {
    let next = Infinity;
    for (const dueMs of this.#endings.values()) next = Math.min(next, dueMs);
    for (const dueMs of this.#conflicts.values()) next = Math.min(next, dueMs);
    return next;
  }

  #state(tombstone: Tombstone): void {
    const { wallMs, touched } = this.#context;
    if (!this.tombstones.add(tombstone, { wallMs, isOwn: true })) return;
    touched.add(tombstone.id);
    this.#context.emit({ kind: "save-tombstones" });
    this.#onStated(this.tombstones.get(tombstone.id)!.tombstone);
  }
}
