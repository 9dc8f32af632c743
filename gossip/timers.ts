/** A timer that was set. */
export interface Timer {
  readonly atMs: number;
  /** It will not run; nothing happens where it has run already. */
  cancel(): void;
}

/** Cancelled timers that a heap may hold besides as many live ones before they are cleared away. */
const SPARE_CANCELLED = 16;

class Entry implements Timer {
  readonly atMs: number;
  readonly order: number;
  /** Undefined once it has run or was cancelled: what it would have needed is free. */
  run: (() => void) | undefined;
  readonly #onCancel: () => void;

  constructor(options: { atMs: number; order: number; run: () => void; onCancel: () => void }) {
    this.atMs = options.atMs;
    this.order = options.order;
    this.run = options.run;
    this.#onCancel = options.onCancel;
  }

  cancel(): void {
    if (this.run === undefined) return;
    this.run = undefined;
    this.#onCancel();
  }
}

/**
 * Timers of a core as a heap: the driver asks when to wake and then runs what is due. Equal times run in order. Cancelled
 * ones do not stay until their time has come: suspicions are timed for minutes, and cancelled by the thousand when a
 * partition heals.
 */
export class TimerHeap {
  // Three arrays side by side: what is compared on the way up and down stands in a row, not behind a pointer each.
  readonly #times: number[] = [];
  readonly #orders: number[] = [];
  readonly #entries: Entry[] = [];
  readonly #onCancel = () => this.#oneCancelled();
  #order = 0;
  /** Cancelled ones among the entries. */
  #cancelled = 0;

  /** When the next timer is due; undefined where none is set. */
  get nextMs(): number | undefined {
    const entries = this.#entries;
    while (entries.length > 0 && entries[0].run === undefined) this.#pop();
    return entries.length > 0 ? this.#times[0] : undefined;
  }

  /** Timers set and not due yet, and at most as many and a few more that were cancelled. */
  get size(): number {
    return this.#entries.length;
  }

  /** Runs `run` at `atMs`. */
  set(atMs: number, run: () => void): Timer {
    const order = this.#order++;
    const entry = new Entry({ atMs, order, run, onCancel: this.#onCancel });
    const times = this.#times;
    let i = times.length;
    times.push(atMs);
    this.#orders.push(order);
    this.#entries.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      // It was set last, so it comes after its equals.
      if (times[parent] <= atMs) break;
      this.#move(parent, i);
      i = parent;
    }
    this.#place(i, entry);
    return entry;
  }

  /** Runs every timer that is due at `nowMs`, those that others set meanwhile included. */
  run(nowMs: number): void {
    while (this.#entries.length > 0 && this.#times[0] <= nowMs) this.#pop()?.();
  }

  /** Takes the first out; what it is to run, unless it was cancelled. */
  #pop(): (() => void) | undefined {
    const [first] = this.#entries;
    const { run } = first;
    if (run === undefined) this.#cancelled--;
    first.run = undefined;
    this.#times.pop();
    this.#orders.pop();
    const last = this.#entries.pop()!;
    if (this.#entries.length > 0) this.#sink(0, last);
    return run;
  }

  #oneCancelled(): void {
    if (++this.#cancelled <= this.#entries.length / 2 + SPARE_CANCELLED) return;
    let kept = 0;
    for (let i = 0; i < this.#entries.length; i++) {
      if (this.#entries[i].run !== undefined) this.#move(i, kept++);
    }
    this.#times.length = this.#orders.length = this.#entries.length = kept;
    this.#cancelled = 0;
    for (let i = (kept >> 1) - 1; i >= 0; i--) this.#sink(i, this.#entries[i]);
  }

  /** Puts it at `i`, which is free, or below where what is there comes first. */
  #sink(i: number, entry: Entry): void {
    const times = this.#times;
    const orders = this.#orders;
    const { atMs, order } = entry;
    const size = times.length;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      const other = child + 1;
      if (
        other < size &&
        (times[other] < times[child] || (times[other] === times[child] && orders[other] < orders[child]))
      ) child = other;
      if (times[child] > atMs || (times[child] === atMs && orders[child] > order)) break;
      this.#move(child, i);
      i = child;
    }
    this.#place(i, entry);
  }

  #place(i: number, entry: Entry): void {
    this.#times[i] = entry.atMs;
    this.#orders[i] = entry.order;
    this.#entries[i] = entry;
  }

  #move(from: number, to: number): void {
    this.#times[to] = this.#times[from];
    this.#orders[to] = this.#orders[from];
    this.#entries[to] = this.#entries[from];
  }
}
