/** A Lamport clock, as Serf counts: it starts at 1. */
export class LamportClock {
  #time = 1;

  get time(): number {
    return this.#time;
  }

  /** The current time; the clock moves on. */
  tick(): number {
    return this.#time++;
  }

  /** Someone else's time: the clock goes past it. */
  witness(time: number): void {
    if (time >= this.#time && time < Number.MAX_SAFE_INTEGER) this.#time = time + 1;
  }
}
