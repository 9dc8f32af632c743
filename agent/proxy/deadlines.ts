/** Something that is closed when it takes too long: `deadlineMs` moves as it makes progress. */
export interface Watched {
  /** In the time of {@linkcode Deadlines.nowMs}; Infinity for none. */
  deadlineMs: number;
  /** Called once per sweep while the deadline is past. */
  onDeadline(): void;
}

/** Periods that a sweep lets pass at most, however late it comes. */
const MAX_PERIODS = 2;

/**
 * Coarse deadlines for many connections at the price of one timer: setting a deadline is a field assignment, a sweep
 * looks at all of them. Deadlines fire up to one sweep late, never early. Time in which the thread was held up hardly counts:
 * timers come before what has arrived meanwhile, and whoever kept to the time would be cut.
 */
export class Deadlines {
  /** Milliseconds, monotonic, as of the last sweep plus one period, so that no deadline is early. */
  nowMs: number;
  #sweptMs: number;
  readonly #watched = new Set<Watched>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(private readonly options: { sweepMs: number; now: () => number }) {
    this.#sweptMs = options.now();
    this.nowMs = this.#sweptMs + options.sweepMs;
    this.#timer = setInterval(() => this.sweep(), options.sweepMs);
  }

  add(watched: Watched): void {
    this.#watched.add(watched);
  }

  remove(watched: Watched): void {
    this.#watched.delete(watched);
  }

  sweep(): void {
    const { sweepMs, now } = this.options;
    const sweptMs = now(), passedMs = this.nowMs - sweepMs;
    const untilMs = passedMs + Math.min(sweptMs - this.#sweptMs, MAX_PERIODS * sweepMs);
    this.#sweptMs = sweptMs;
    this.nowMs = untilMs + sweepMs;
    for (const watched of this.#watched) {
      if (watched.deadlineMs <= untilMs) watched.onDeadline();
    }
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
