import type { VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { CoreContext } from "./context.ts";
import { compareClaims, type Copy } from "./copies.ts";
import type { Rendezvous } from "./rendezvous.ts";
import { QUORUM_REGAINED_MS } from "./limits.ts";
import { type Lost, Rescheduler, type RescheduleView } from "./reschedule.ts";
import { needsTrust } from "./told_workload.ts";
import { Entrusting, TrustStore } from "./trust.ts";

/** How often lines are ranked anew while members come and go, milliseconds. */
const REPLAN_MS = 500;
const TRUST_SWEEP_MS = 60_000;

/** How a node repairs. */
export interface RepairOptions {
  /** Reschedules only where more than half of the last known members are there. */
  quorum: "none" | "majority";
  takeoverMs?: number;
  isStopped: (id: string) => boolean;
}

/** Starts dead nodes' workloads again when it is this node's turn, and holds and gives in trust what that needs. */
export class Repair implements RescheduleView {
  readonly trust = new TrustStore();
  readonly #context: CoreContext;
  readonly #options: RepairOptions;
  readonly #rescheduler: Rescheduler;
  readonly #entrusting = new Entrusting();
  #isLineStale = false;
  /** When this node was last seen to be on the smaller side. */
  #minorityMs = -Infinity;
  #replanMs = 0;
  #trustSweepMs = 0;

  constructor(context: CoreContext, options: RepairOptions) {
    this.#context = context;
    this.#options = options;
    const { selfId, random, respawn } = context.parts;
    this.#rescheduler = new Rescheduler({
      selfId,
      isEnabled: respawn,
      random,
      view: this,
      takeoverMs: options.takeoverMs,
    });
  }

  get sizes() {
    return {
      reschedules: this.#rescheduler.size,
      reschedulesUnderWay: this.#rescheduler.underWay,
      trusted: this.trust.size,
      entrusting: this.#entrusting.size,
    };
  }

  /** Looks at an id again. */
  check(id: string): void {
    this.#rescheduler.check(id, this.#context.nowMs);
  }

  /** Members that reschedule came or went, or this node has other workloads with secrets. */
  replan(): void {
    this.#isLineStale = true;
  }

  /** There may be room where there was none. */
  roomMayBe(): void {
    this.#rescheduler.nudge(this.#context.nowMs);
  }

  /** Takes a request in trust; why not, or undefined. */
  entrusted(given: { id: string; ownerNodeId: string; request: VmSpawnRequest }): string | undefined {
    const refusal = this.trust.keep(given.id, given.ownerNodeId, given.request);
    this.check(given.id);
    return refusal;
  }

  entrustDone(id: string, nodeId: string, ok: boolean): void {
    this.#entrusting.done(id, nodeId, { ok, nowMs: this.#context.nowMs });
  }

  rescheduled(id: string, result: { generation: bigint; ok: boolean }): void {
    this.#rescheduler.done(id, { ...result, nowMs: this.#context.nowMs });
  }

  /** Does what is due. */
  tick(): void {
    const { nowMs, copies } = this.#context;
    if (this.#isLineStale && nowMs >= this.#replanMs) this.#replan();
    for (const action of this.#rescheduler.due(nowMs)) {
      const { lost } = action;
      if (action.kind === "start") this.#start(lost, action.generation);
      else {
        this.#context.note(
          lost.from,
          `Cannot start workload "${lost.id}" elsewhere: its whole request was not given in trust to this node`,
        );
      }
    }
    for (const [id, to] of this.#entrusting.due(nowMs, this.#incarnationOf)) {
      this.#context.emit({ kind: "entrust", id, to });
    }
    if (nowMs >= this.#trustSweepMs) {
      this.#trustSweepMs = nowMs + TRUST_SWEEP_MS;
      this.trust.sweep(nowMs, (id) => copies.of(id).length > 0 && !this.#options.isStopped(id));
    }
  }

  nextMs(): number {
    const replanMs = this.#isLineStale ? this.#replanMs : Infinity;
    return Math.min(replanMs, this.#trustSweepMs, this.#rescheduler.nextMs(), this.#entrusting.nextMs());
  }

  // ---- What the rescheduler sees.

  lost(id: string): Lost | undefined {
    if (this.#options.isStopped(id)) return undefined;
    const best = this.#best(id);
    if (best === undefined) return undefined;
    const { deadMs } = this.#context.parts.table.get(best.nodeId)!;
    if (deadMs === undefined) return undefined;
    return { id, from: best.nodeId, deadMs, generation: best.state.generation };
  }

  canStart(id: string): boolean {
    const best = this.#best(id);
    if (best === undefined) return false;
    return this.trust.has(id) || (best.state.sourceRequest !== undefined && !needsTrust(best.state));
  }

  isTrusted(id: string): boolean {
    return this.trust.has(id);
  }

  line(): Rendezvous {
    return this.#context.line();
  }

  /**
   * A majority counts who was heard since the death: in a partition one node after the other is found dead, and until the
   * last is, the smaller side may look like the larger. When it heals, they come back one after the other as well.
   */
  isAllowed({ deadMs }: Lost): boolean {
    if (this.#options.quorum === "none") return true;
    const { nowMs } = this.#context;
    let [heard, live, known] = [1, 1, 1];
    for (const { kind, life, member, heardMs } of this.#context.parts.table.nodes.values()) {
      if (kind !== "hypercore" || life === "left" || member.status === "left") continue;
      known++;
      if (life !== "live") continue;
      live++;
      if (heardMs > deadMs) heard++;
    }
    if (live * 2 <= known) this.#minorityMs = nowMs;
    return heard * 2 > known && nowMs - this.#minorityMs >= QUORUM_REGAINED_MS;
  }

  /** The copy that counts of those on dead nodes; none where a node that is there has one, in whatever state. */
  #best(id: string): Copy | undefined {
    const { copies, parts: { selfId, table } } = this.#context;
    let best: Copy | undefined;
    for (const copy of copies.of(id)) {
      const view = table.get(copy.nodeId);
      if (copy.nodeId === selfId || view === undefined || view.life === "live") return undefined;
      if (view.kind !== "hypercore" || copy.state.status === "stopping") continue;
      if (best === undefined || compareClaims(copy, best) < 0) best = copy;
    }
    return best;
  }

  #start(lost: Lost, generation: bigint): void {
    const { state } = this.#best(lost.id)!;
    this.#context.emit({
      kind: "reschedule",
      id: lost.id,
      generation,
      from: lost.from,
      request: this.trust.get(lost.id) ?? state.sourceRequest!,
      createdAtMs: state.createdAtMs,
      restarts: state.restarts,
    });
    this.#context.note(lost.from, `Starting workload "${lost.id}" elsewhere, generation ${generation}`);
  }

  #replan(): void {
    const { nowMs, parts: { own, selfId, table } } = this.#context;
    this.#isLineStale = false;
    this.#replanMs = nowMs + REPLAN_MS;
    for (const view of table.nodes.values()) {
      if (view.deadMs === undefined) continue;
      for (const id of view.state?.workloads.keys() ?? []) this.check(id);
    }
    const secret: string[] = [];
    for (const [id, { state }] of own.workloads) {
      if (state.status !== "stopping" && needsTrust(state)) secret.push(id);
    }
    this.#entrusting.plan(secret, {
      line: this.#context.line(),
      selfId,
      nowMs,
      incarnationOf: this.#incarnationOf,
    });
  }

  #incarnationOf = (nodeId: string): bigint | undefined => {
    return this.#context.parts.table.get(nodeId)?.state?.incarnation;
  };
}
