/**
 * How far ahead of ours a single message's time may be. Members are never further apart than what is under way between
 * them; a time beyond that is damage or malice, and to follow it would make everything of everyone else look old.
 */
export const MAX_LEAP = 2 ** 20;
/** Times of whole states up to this are believed: who joins an old cluster has to catch up. */
export const MAX_ADOPTED = 2 ** 48;

/** A Lamport clock, as Serf counts: it starts at 1. */
export class LamportClock {
  #time = 1;
  #refused = 0;

  get time(): number {
    return this.#time;
  }

  /** Times that were not believed. */
  get refused(): number {
    return this.#refused;
  }

  /** The current time; the clock moves on. */
  tick(): number {
    return this.#time++;
  }

  /** The time of someone's message: the clock goes past it. False where it is not to be believed. */
  witness(time: number): boolean {
    return this.#follow(time, this.#time + MAX_LEAP);
  }

  /** The time that someone's whole state, or an earlier life, tells: the clock goes past it where it is to be believed. */
  adopt(time: number): boolean {
    return this.#follow(time, Math.max(MAX_ADOPTED, this.#time + MAX_LEAP));
  }

  #follow(time: number, limit: number): boolean {
    if (time > Math.min(limit, Number.MAX_SAFE_INTEGER - 2)) {
      this.#refused++;
      return false;
    }
    if (time >= this.#time) this.#time = time + 1;
    return true;
  }
}
