import type { WorkloadState } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { Earliest } from "./earliest.ts";
import { DUPLICATE_HOLD_MS, END_AGAIN_MS } from "./limits.ts";

/** One node's copy of a workload. */
export interface Copy {
  nodeId: string;
  state: WorkloadState;
}

/**
 * Which of two live copies of an id has the better claim; the lower result comes first. The highest generation wins;
 * among equals one that runs before one that does not, then the lowest node id. It takes nothing but what the states
 * say, so all nodes that have the same states agree.
 */
export function compareClaims(a: Copy, b: Copy): number {
  if (a.state.generation !== b.state.generation) return a.state.generation > b.state.generation ? -1 : 1;
  const [aRuns, bRuns] = [isRunning(a.state), isRunning(b.state)];
  if (aRuns !== bRuns) return aRuns ? -1 : 1;
  return a.nodeId < b.nodeId ? -1 : a.nodeId > b.nodeId ? 1 : 0;
}

/** A Go node's workloads have no status; it tells only of those that run. */
export function isRunning({ status }: WorkloadState): boolean {
  return status === "running" || status === "";
}

/** Every copy of every workload by id: of this node and of the others, live or not. */
export class CopyIndex {
  readonly #copies = new Map<string, Copy[]>();
  readonly #isLive: (nodeId: string) => boolean;

  /** `isLive`: whether a node is taken to be there. */
  constructor(isLive: (nodeId: string) => boolean) {
    this.#isLive = isLive;
  }

  get size(): number {
    return this.#copies.size;
  }

  ids(): IterableIterator<string> {
    return this.#copies.keys();
  }

  /** Enters a node's copy of an id, or takes it out. */
  set(id: string, nodeId: string, state: WorkloadState | undefined): void {
    const copies = this.#copies.get(id);
    const at = copies?.findIndex((copy) => copy.nodeId === nodeId) ?? -1;
    if (state === undefined) {
      if (at < 0) return;
      if (copies!.length === 1) this.#copies.delete(id);
      else copies!.splice(at, 1);
    } else if (copies === undefined) this.#copies.set(id, [{ nodeId, state }]);
    else if (at < 0) copies.push({ nodeId, state });
    else copies[at] = { nodeId, state };
  }

  /** A node's copy of an id. */
  copyOf(id: string, nodeId: string): Copy | undefined {
    return this.#copies.get(id)?.find((copy) => copy.nodeId === nodeId);
  }

  /** All copies of an id, in no order. */
  of(id: string): readonly Copy[] {
    return this.#copies.get(id) ?? NONE;
  }

  /** Those on nodes that are there and not being stopped, the best claim first. */
  live(id: string): readonly Copy[] {
    const copies = this.of(id);
    if (copies.length === 1) return this.#counts(copies[0]) ? copies : NONE;
    return copies.filter((copy) => this.#counts(copy)).sort(compareClaims);
  }

  #counts(copy: Copy): boolean {
    return copy.state.status !== "stopping" && this.#isLive(copy.nodeId);
  }
}

const NONE: readonly Copy[] = [];

interface Lost {
  winner: string;
  generation: bigint;
  /** Since when the winner was seen running; undefined while it does not. */
  runningMs: number | undefined;
  endedMs: number | undefined;
}

/**
 * Watches this node's copies that others have a better claim to. A local one ends only when the same winner has been
 * seen running for {@linkcode DUPLICATE_HOLD_MS}, so that no two copies end for each other's sake.
 */
export class DuplicateWatch {
  readonly #selfId: string;
  readonly #copies: CopyIndex;
  readonly #lost = new Map<string, Lost>();
  readonly #earliest = new Earliest(() => this.#nextMs());

  constructor(options: { selfId: string; copies: CopyIndex }) {
    this.#selfId = options.selfId;
    this.#copies = options.copies;
  }

  /** Ids whose local copy has lost and not ended. */
  get size(): number {
    return this.#lost.size;
  }

  /** Looks at an id again: its copies, or the nodes that have them, may have changed. */
  check(id: string, nowMs: number): void {
    const live = this.#copies.live(id);
    const winner = live[0];
    this.#earliest.changed();
    const isLocalLost = live.length > 1 && winner.nodeId !== this.#selfId &&
      live.some(({ nodeId }) => nodeId === this.#selfId);
    if (!isLocalLost) return void this.#lost.delete(id);
    const { generation } = winner.state;
    const runningMs = isRunning(winner.state) ? nowMs : undefined;
    const known = this.#lost.get(id);
    if (known === undefined || known.winner !== winner.nodeId || known.generation !== generation) {
      this.#lost.set(id, { winner: winner.nodeId, generation, runningMs, endedMs: undefined });
    } else if (runningMs === undefined) known.runningMs = undefined;
    else known.runningMs ??= runningMs;
  }

  /** The local copies to end now. */
  due(nowMs: number): { id: string; winner: string }[] {
    const due: { id: string; winner: string }[] = [];
    if (nowMs < this.nextMs()) return due;
    this.#earliest.changed();
    for (const [id, lost] of this.#lost) {
      if (this.#dueMs(lost) > nowMs) continue;
      lost.endedMs = nowMs;
      due.push({ id, winner: lost.winner });
    }
    return due;
  }

  /** When {@linkcode due} has something to say. */
  nextMs(): number {
    return this.#earliest.atMs;
  }

  #nextMs(): number {
    let next = Infinity;
    for (const lost of this.#lost.values()) next = Math.min(next, this.#dueMs(lost));
    return next;
  }

  #dueMs({ runningMs, endedMs }: Lost): number {
    if (runningMs === undefined) return Infinity;
    return Math.max(runningMs + DUPLICATE_HOLD_MS, (endedMs ?? -Infinity) + END_AGAIN_MS);
  }
}
