/** A timer that was set. */
export interface Timer {
  readonly atMs: number;
  cancelled: boolean;
}

interface Entry extends Timer {
  readonly run: () => void;
}

/** Timers of a core as a heap: the driver asks when to wake and then runs what is due. Equal times run in order. */
export class TimerHeap {
  // Three arrays side by side: what is compared on the way up and down stands in a row, not behind a pointer each.
  readonly #times: number[] = [];
  readonly #orders: number[] = [];
  readonly #entries: Entry[] = [];
  #order = 0;

  /** When the next timer is due; undefined where none is set. */
  get nextMs(): number | undefined {
    const entries = this.#entries;
    while (entries.length > 0 && entries[0].cancelled) this.#pop();
    return entries.length > 0 ? this.#times[0] : undefined;
  }

  /** Timers set and not due yet, cancelled ones that have not surfaced included. */
  get size(): number {
    return this.#entries.length;
  }

  /** Runs `run` at `atMs`. */
  set(atMs: number, run: () => void): Timer {
    const entry: Entry = { atMs, run, cancelled: false };
    const order = this.#order++;
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
    times[i] = atMs;
    this.#orders[i] = order;
    this.#entries[i] = entry;
    return entry;
  }

  /** Runs every timer that is due at `nowMs`, those that others set meanwhile included. */
  run(nowMs: number): void {
    while (this.#entries.length > 0 && this.#times[0] <= nowMs) {
      const first = this.#entries[0];
      this.#pop();
      if (!first.cancelled) first.run();
    }
  }

  #pop(): void {
    const times = this.#times;
    const orders = this.#orders;
    const atMs = times.pop();
    const order = orders.pop();
    const last = this.#entries.pop();
    const size = times.length;
    if (atMs === undefined || order === undefined || last === undefined || size === 0) return;
    let i = 0;
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
    times[i] = atMs;
    orders[i] = order;
    this.#entries[i] = last;
  }

  #move(from: number, to: number): void {
    this.#times[to] = this.#times[from];
    this.#orders[to] = this.#orders[from];
    this.#entries[to] = this.#entries[from];
  }
}
