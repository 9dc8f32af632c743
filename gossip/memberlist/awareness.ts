/** Lifeguard's local health: 0 is healthy, more means that this node itself may be the slow one. */
export class Awareness {
  #score = 0;
  readonly #max: number;

  constructor(maxMultiplier: number) {
    this.#max = maxMultiplier - 1;
  }

  get score(): number {
    return this.#score;
  }

  /** Moves the score, within its bounds. */
  apply(delta: number): void {
    this.#score = Math.min(Math.max(this.#score + delta, 0), this.#max);
  }

  /** A time-out stretched by the score. */
  scale(timeoutMs: number): number {
    return timeoutMs * (this.#score + 1);
  }
}
