import { LamportClock } from "./lamport.ts";

/** Queries of one Lamport time that are told apart; more are dropped. */
const MAX_PER_TIME = 256;

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
  accept(ltime: number, id: number): boolean {
    if (!this.clock.witness(ltime) || ltime < this.minTime) return false;
    const size = this.#slots.length;
    if (this.clock.time > size && ltime < this.clock.time - size) return false;
    const index = ltime % size;
    let slot = this.#slots[index];
    if (slot === undefined || slot.ltime !== ltime) {
      if (slot !== undefined && slot.ltime > ltime) return false;
      slot = { ltime, ids: [] };
      this.#slots[index] = slot;
    }
    if (slot.ids.includes(id) || slot.ids.length >= MAX_PER_TIME) return false;
    slot.ids.push(id);
    return true;
  }
}
