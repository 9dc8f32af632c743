/** Something that is closed when it takes too long: `deadlineMs` moves as it makes progress. */
export interface Watched {
  /** In the time of {@linkcode Deadlines.nowMs}; Infinity for none. */
  deadlineMs: number;
  /** Called once per sweep while the deadline is past. */
  onDeadline(): void;
}

/**
 * Coarse deadlines for many connections at the price of one timer: setting a deadline is a field assignment, a sweep
 * looks at all of them. Deadlines fire up to one sweep late, never early.
 */
export class Deadlines {
  /** Milliseconds, monotonic, as of the last sweep plus one period, so that no deadline is early. */
  nowMs: number;
  readonly #watched = new Set<Watched>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(private readonly options: { sweepMs: number; now: () => number }) {
    this.nowMs = options.now() + options.sweepMs;
    this.#timer = setInterval(() => this.sweep(), options.sweepMs);
  }

  add(watched: Watched): void {
    this.#watched.add(watched);
  }

  remove(watched: Watched): void {
    this.#watched.delete(watched);
  }

  sweep(): void {
    const now = this.options.now();
    this.nowMs = now + this.options.sweepMs;
    for (const watched of this.#watched) {
      if (watched.deadlineMs <= now) watched.onDeadline();
    }
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
