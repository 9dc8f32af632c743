import { toBinary } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { Earliest } from "./earliest.ts";
import {
  ENTRUST_RETRY_MS,
  MAX_ENTRUSTS,
  MAX_IN_LINE,
  MAX_TRUSTED,
  MAX_TRUSTED_BYTES,
  TRUST_KEEP_MS,
} from "./limits.ts";
import type { Rendezvous } from "./rendezvous.ts";

interface Trusted {
  ownerNodeId: string;
  request: VmSpawnRequest;
  bytes: number;
  /** Since when nobody has the workload any more. */
  orphanMs: number | undefined;
}

/** Whole requests of other nodes' workloads, secrets included. In memory only. */
export class TrustStore {
  readonly #trusted = new Map<string, Trusted>();
  #bytes = 0;

  get size(): number {
    return this.#trusted.size;
  }

  /** Takes a request in trust. Undefined, or why not. */
  keep(id: string, ownerNodeId: string, request: VmSpawnRequest): string | undefined {
    const bytes = toBinary(VmSpawnRequestSchema, request).length;
    const freed = this.#trusted.get(id);
    if (freed === undefined && this.#trusted.size >= MAX_TRUSTED) {
      return `${MAX_TRUSTED} requests are kept already`;
    }
    if (this.#bytes - (freed?.bytes ?? 0) + bytes > MAX_TRUSTED_BYTES) {
      return `the requests kept would take more than ${MAX_TRUSTED_BYTES} bytes`;
    }
    this.drop(id);
    this.#bytes += bytes;
    this.#trusted.set(id, { ownerNodeId, request, bytes, orphanMs: undefined });
  }

  get(id: string): VmSpawnRequest | undefined {
    return this.#trusted.get(id)?.request;
  }

  has(id: string): boolean {
    return this.#trusted.has(id);
  }

  drop(id: string): void {
    const known = this.#trusted.get(id);
    if (known === undefined) return;
    this.#bytes -= known.bytes;
    this.#trusted.delete(id);
  }

  /** Drops what nobody has had for a while. */
  sweep(nowMs: number, exists: (id: string) => boolean): void {
    for (const [id, trusted] of this.#trusted) {
      if (exists(id)) trusted.orphanMs = undefined;
      else if (trusted.orphanMs === undefined) trusted.orphanMs = nowMs;
      else if (nowMs - trusted.orphanMs >= TRUST_KEEP_MS) this.drop(id);
    }
  }
}

/** One node that is to have a request. */
interface Holder {
  /** Incarnation of the holder when it was given: a restarted one has lost it. */
  incarnation: bigint | undefined;
  state: "wanted" | "asked" | "given";
  dueMs: number;
}

/** Sees to it that the first in line for each of this node's workloads with secrets hold its request. */
export class Entrusting {
  readonly #holders = new Map<string, Map<string, Holder>>();
  readonly #earliest = new Earliest(() => this.#nextMs());
  #asked = 0;

  /** Workloads that have something to entrust. */
  get size(): number {
    return this.#holders.size;
  }

  /**
   * Compares who should hold what with who does. `ids` are this node's workloads that need it; `line` ranks the members
   * that reschedule.
   */
  plan(ids: Iterable<string>, options: {
    line: Rendezvous;
    selfId: string;
    nowMs: number;
    incarnationOf: (nodeId: string) => bigint | undefined;
  }): void {
    const { line, selfId, nowMs, incarnationOf } = options;
    this.#earliest.changed();
    const seen = new Set<string>();
    for (const id of ids) {
      seen.add(id);
      const known = this.#holders.get(id) ?? new Map<string, Holder>();
      const next = new Map<string, Holder>();
      for (const nodeId of line.first(id, MAX_IN_LINE, selfId)) {
        const incarnation = incarnationOf(nodeId);
        const holder = known.get(nodeId);
        const isLost = holder?.state === "given" && holder.incarnation !== incarnation;
        next.set(nodeId, holder && !isLost ? holder : { incarnation, state: "wanted", dueMs: nowMs });
      }
      this.#replace(id, known, next);
    }
    for (const [id, known] of this.#holders) {
      if (seen.has(id)) continue;
      this.#replace(id, known, new Map());
      this.#holders.delete(id);
    }
  }

  #replace(id: string, known: ReadonlyMap<string, Holder>, next: Map<string, Holder>): void {
    for (const [nodeId, holder] of known) {
      if (holder.state === "asked" && next.get(nodeId) !== holder) this.#asked--;
    }
    this.#holders.set(id, next);
  }

  /** A workload's request is another now. */
  changed(id: string): void {
    this.#earliest.changed();
    for (const holder of this.#holders.get(id)?.values() ?? []) {
      if (holder.state === "asked") this.#asked--;
      holder.state = "wanted";
      holder.dueMs = 0;
    }
  }

  /** What to give to whom now. */
  due(nowMs: number, incarnationOf: (nodeId: string) => bigint | undefined): Map<string, string[]> {
    const due = new Map<string, string[]>();
    if (nowMs < this.nextMs()) return due;
    this.#earliest.changed();
    for (const [id, holders] of this.#holders) {
      for (const [nodeId, holder] of holders) {
        if (holder.state === "given" || holder.dueMs > nowMs) continue;
        if (holder.state === "wanted" && this.#asked >= MAX_ENTRUSTS) continue;
        if (holder.state === "wanted") this.#asked++;
        holder.state = "asked";
        holder.incarnation = incarnationOf(nodeId);
        holder.dueMs = nowMs + ENTRUST_RETRY_MS;
        due.set(id, [...due.get(id) ?? [], nodeId]);
      }
    }
    return due;
  }

  /** A node took the request, or did not. */
  done(id: string, nodeId: string, options: { ok: boolean; nowMs: number }): void {
    const holder = this.#holders.get(id)?.get(nodeId);
    if (holder?.state !== "asked") return;
    this.#earliest.changed();
    this.#asked--;
    holder.state = options.ok ? "given" : "wanted";
    holder.dueMs = options.nowMs + ENTRUST_RETRY_MS;
  }

  /** When {@linkcode due} has something to say. */
  nextMs(): number {
    return this.#earliest.atMs;
  }

  #nextMs(): number {
    let next = Infinity;
    for (const holders of this.#holders.values()) {
      for (const { state, dueMs } of holders.values()) {
        const isReady = state === "asked" || (state === "wanted" && this.#asked < MAX_ENTRUSTS);
        if (isReady) next = Math.min(next, dueMs);
      }
    }
    return next;
  }
}
