import type { Random } from "../../gossip/random.ts";
import { CopyIndex } from "./copies.ts";
import type { OwnState } from "./own_state.ts";
import type { ClusterEffect } from "./ports.ts";
import { Rendezvous } from "./rendezvous.ts";
import type { NodeView, StateTable } from "./state_table.ts";
import { SteadyClock } from "./steady_clock.ts";
import { TAG } from "./tags.ts";
import { changeOf } from "./workload_change.ts";

/** What the parts of a {@linkcode ClusterCore} share: time, states, and the effects they have. */
export class CoreContext {
  readonly clock = new SteadyClock();
  readonly copies: CopyIndex;
  /** Time of the outer clock, milliseconds since the epoch. */
  wallMs = 0;
  /** Ids whose copies, nodes or tombstones may have changed. */
  readonly touched = new Set<string>();
  #effects: ClusterEffect[] = [];
  readonly #counts = new Map<ClusterEffect["kind"], number>();
  #line: Rendezvous | undefined;

  constructor(
    readonly parts: {
      selfId: string;
      random: Random;
      own: OwnState;
      table: StateTable;
      /** Whether this node reschedules. */
      respawn: boolean;
    },
  ) {
    const { selfId, table } = parts;
    this.copies = new CopyIndex((nodeId) => nodeId === selfId || table.get(nodeId)?.life === "live");
  }

  /** Steady time, milliseconds. */
  get nowMs(): number {
    return this.clock.nowMs;
  }

  /** How many effects of a kind there were. */
  count(kind: ClusterEffect["kind"]): number {
    return this.#counts.get(kind) ?? 0;
  }

  emit(...effects: readonly ClusterEffect[]): void {
    for (const { kind } of effects) this.#counts.set(kind, this.count(kind) + 1);
    this.#effects.push(...effects);
  }

  note(nodeId: string, text: string): void {
    this.emit({ kind: "note", nodeId, text });
  }

  /** What another node's state says of these ids now; told as events unless it is the `first` that is heard of it. */
  copied(view: NodeView, ids: Iterable<string>, isFirst: boolean): void {
    for (const id of ids) {
      const after = view.state!.workloads.get(id)?.state;
      const change = isFirst ? undefined : changeOf(this.copies.copyOf(id, view.id)?.state, after);
      if (change !== undefined) this.emit({ kind: "workload", nodeId: view.id, id, change });
      this.copies.set(id, view.id, after);
      this.touched.add(id);
    }
  }

  takeEffects(): ClusterEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** Nodes that speak this protocol and are there, this one included. */
  liveNodes(): string[] {
    const { selfId, table } = this.parts;
    const ids = [selfId];
    for (const { id, kind, life } of table.nodes.values()) {
      if (kind === "hypercore" && life === "live") ids.push(id);
    }
    return ids;
  }

  /** How many nodes heartbeat. */
  get size(): number {
    return this.parts.table.liveCount + 1;
  }

  /** The line of those that reschedule. */
  line(): Rendezvous {
    if (this.#line !== undefined) return this.#line;
    const { selfId, table, respawn } = this.parts;
    return this.#line = new Rendezvous(
      this.liveNodes().filter((id) => {
        return id === selfId ? respawn : table.get(id)!.member.tags[TAG.respawn] === "1";
      }),
    );
  }

  /** Members came, went or changed. */
  forgetLine(): void {
    this.#line = undefined;
  }
}
