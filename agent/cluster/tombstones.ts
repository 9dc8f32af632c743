import { create } from "@bufbuild/protobuf";
import { type Tombstone, TombstoneSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { MAX_TOMBSTONES, TOMBSTONE_MS } from "./limits.ts";

/** A tombstone, and whether this node states it. */
export interface Buried {
  tombstone: Tombstone;
  isOwn: boolean;
}

/** How often expired ones are looked for, milliseconds. */
const EXPIRE_EVERY_MS = 60_000;

/**
 * The workloads that were stopped for good, as far as this node knows. A tombstone holds for its id, whatever the
 * generation of a copy: an id does not come back.
 */
export class Tombstones {
  readonly #buried = new Map<string, Buried>();
  #expiredMs = -Infinity;

  get size(): number {
    return this.#buried.size;
  }

  has(id: string): boolean {
    return this.#buried.has(id);
  }

  get(id: string): Buried | undefined {
    return this.#buried.get(id);
  }

  /** Those that this node states. */
  own(): Tombstone[] {
    return Array.from(this.#buried.values()).filter(({ isOwn }) => isOwn).map(({ tombstone }) => tombstone);
  }

  /**
   * Takes one. False where it is known, or has expired. A time in the future (another clock) counts as now, so that
   * it does not stay longer than any other.
   */
  add(given: Tombstone, options: { wallMs: number; isOwn: boolean }): boolean {
    const { wallMs, isOwn } = options;
    const stoppedAtMs = Math.min(Number(given.stoppedAtMs), wallMs);
    if (given.id === "" || stoppedAtMs + TOMBSTONE_MS <= wallMs) return false;
    const known = this.#buried.get(given.id);
    if (known !== undefined && known.tombstone.generation >= given.generation && known.isOwn >= isOwn) {
      return false;
    }
    const generation = known && known.tombstone.generation > given.generation
      ? known.tombstone.generation
      : given.generation;
    const tombstone = create(TombstoneSchema, {
      id: given.id,
      generation,
      stoppedAtMs: BigInt(Math.round(stoppedAtMs)),
    });
    this.#buried.delete(given.id);
    this.#buried.set(given.id, { tombstone, isOwn: isOwn || known?.isOwn === true });
    for (const id of this.#buried.keys()) {
      if (this.#buried.size <= MAX_TOMBSTONES) break;
      this.#buried.delete(id);
    }
    return true;
  }

  /** Drops what has expired; whether there was any. */
  expire(wallMs: number): boolean {
    if (Math.abs(wallMs - this.#expiredMs) < EXPIRE_EVERY_MS) return false;
    this.#expiredMs = wallMs;
    const before = this.#buried.size;
    for (const [id, { tombstone }] of this.#buried) {
      if (Number(tombstone.stoppedAtMs) + TOMBSTONE_MS <= wallMs) this.#buried.delete(id);
    }
    return this.#buried.size < before;
  }

  /** As it is kept on disk. */
  serialise(): string {
    const rows = Array.from(
      this.#buried.values(),
      ({ tombstone: { id, generation, stoppedAtMs }, isOwn }) => {
        return [id, String(generation), Number(stoppedAtMs), isOwn ? 1 : 0];
      },
    );
    return JSON.stringify({ version: 1, tombstones: rows });
  }

  /** Takes what {@linkcode serialise} gave. Throws `Error` where it is not that. */
  load(text: string, wallMs: number): void {
    try {
      const { version, tombstones } = JSON.parse(text);
      if (version !== 1 || !Array.isArray(tombstones)) throw new Error("it is of another version");
      for (const [id, generation, stoppedAtMs, isOwn] of tombstones) {
        if (typeof id !== "string" || !Number.isFinite(stoppedAtMs)) throw new Error("a row is damaged");
        const tombstone = create(TombstoneSchema, {
          id,
          generation: BigInt(generation),
          stoppedAtMs: BigInt(Math.round(stoppedAtMs)),
        });
        this.add(tombstone, { wallMs, isOwn: isOwn === 1 });
      }
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`Cannot read the tombstones: ${reason}`, { cause });
    }
  }
}
