import { LamportClock } from "./lamport.ts";

/** Queries of one Lamport time that are told apart; more are dropped. */
export const MAX_QUERIES_PER_TIME = 256;

/** What becomes of a message: it is handled, was before or is too old, or shares its time with too many. */
export type Verdict = "new" | "known" | "too-many";

/** Recent queries by Lamport time: handles each once. */
export class QueryLog {
  readonly clock = new LamportClock();
  /** Queries before this are too old to be handled. */
  minTime = 0;
  readonly #slots: ({ ltime: number; ids: number[] } | undefined)[];

  constructor(slots: number) {
    this.#slots = new Array(slots).fill(undefined);
  }

  /** Whether the query is new; it is remembered then. */
  accept(ltime: number, id: number): Verdict {
    if (!this.clock.witness(ltime) || ltime < this.minTime) return "known";
    const size = this.#slots.length;
    if (this.clock.time > size && ltime < this.clock.time - size) return "known";
    const index = ltime % size;
    let slot = this.#slots[index];
    if (slot === undefined || slot.ltime !== ltime) {
      if (slot !== undefined && slot.ltime > ltime) return "known";
      slot = { ltime, ids: [] };
      this.#slots[index] = slot;
    }
    if (slot.ids.includes(id)) return "known";
    if (slot.ids.length >= MAX_QUERIES_PER_TIME) return "too-many";
    slot.ids.push(id);
    return "new";
  }
}
