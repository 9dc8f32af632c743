/** A timer that was set. */
export interface Timer {
  readonly atMs: number;
  cancelled: boolean;
}

interface Entry extends Timer {
  readonly order: number;
  readonly run: () => void;
}

/** Timers of a core as a heap: the driver asks when to wake and then runs what is due. Equal times run in order. */
export class TimerHeap {
  readonly #heap: Entry[] = [];
  #order = 0;

  /** When the next timer is due; undefined where none is set. */
  get nextMs(): number | undefined {
    this.#dropCancelled();
    return this.#heap[0]?.atMs;
  }

  /** Timers set and not due yet, cancelled ones that have not surfaced included. */
  get size(): number {
    return this.#heap.length;
  }

  /** Runs `run` at `atMs`. */
  set(atMs: number, run: () => void): Timer {
    const entry: Entry = { atMs, run, order: this.#order++, cancelled: false };
    const heap = this.#heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = entry;
    return entry;
  }

  /** Runs every timer that is due at `nowMs`, those that others set meanwhile included. */
  run(nowMs: number): void {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.atMs > nowMs) return;
      this.#pop();
      if (!first.cancelled) first.run();
    }
  }

  #dropCancelled(): void {
    while (this.#heap.length > 0 && this.#heap[0].cancelled) this.#pop();
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], last)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
