/** Why a broadcast left the queue. */
export type BroadcastEnd = "sent" | "replaced" | "dropped";

/** One message waiting to be sent to enough nodes. */
export interface Broadcast {
  readonly message: Uint8Array;
  /** A new broadcast of the same name takes this one's place. */
  readonly name: string | undefined;
  readonly onEnd: ((end: BroadcastEnd) => void) | undefined;
  readonly id: number;
  transmits: number;
}

/** Sends of each broadcast in a cluster of `nodes`. */
export function retransmitLimit(mult: number, nodes: number): number {
  return mult * Math.ceil(Math.log10(nodes + 1));
}

/**
 * Broadcasts by fewest transmissions, then longest, then newest. Each pick counts as a transmission; at the limit the
 * broadcast is done.
 */
export class BroadcastQueue {
  /** Per number of transmissions: ascending by length, then by age (newest last). */
  readonly #tiers: Broadcast[][] = [];
  readonly #byName = new Map<string, Broadcast>();
  #nextId = 1;
  #size = 0;
  readonly #limit: () => number;

  /** `limit` gives the transmissions after which a broadcast is done. */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#size;
  }

  /** Broadcasts never sent yet. */
  get fresh(): number {
    return this.#tiers[0]?.length ?? 0;
  }

  queue(message: Uint8Array, options: { name?: string; onEnd?: (end: BroadcastEnd) => void } = {}): void {
    const { name, onEnd } = options;
    if (name !== undefined) {
      const old = this.#byName.get(name);
      if (old !== undefined) this.#remove(old, "replaced");
    }
    const broadcast: Broadcast = { message, name, onEnd, id: this.#nextId++, transmits: 0 };
    if (name !== undefined) this.#byName.set(name, broadcast);
    this.#insert(broadcast);
    this.#size++;
  }

  /**
   * Adds to `into` what fits in `limit` bytes with `overhead` bytes each; returns the bytes used. With `freshOnly` only
   * what was never sent is taken.
   */
  pick(
    options: { overhead: number; limit: number; freshOnly?: boolean },
    into: Uint8Array[],
  ): number {
    if (this.#size === 0) return 0;
    const { overhead, limit } = options;
    const done = this.#limit();
    const picked: Broadcast[] = [];
    let used = 0;
    const tiers = options.freshOnly ? Math.min(1, this.#tiers.length) : this.#tiers.length;
    for (let tier = 0; tier < tiers; tier++) {
      const entries = this.#tiers[tier];
      while (entries.length > 0) {
        const index = lastFitting(entries, limit - used - overhead);
        if (index < 0) break;
        const [broadcast] = entries.splice(index, 1);
        used += broadcast.message.length + overhead;
        picked.push(broadcast);
      }
    }
    for (const broadcast of picked) {
      into.push(broadcast.message);
      broadcast.transmits++;
      if (broadcast.transmits >= done) this.#end(broadcast, "sent");
      else this.#insert(broadcast);
    }
    return used;
  }

  /** Drops broadcasts, the most transmitted first, until at most `max` are left; returns how many. */
  prune(max: number): number {
    let dropped = 0;
    for (let tier = this.#tiers.length - 1; tier >= 0; tier--) {
      while (this.#size > max && this.#tiers[tier].length > 0) {
        this.#end(this.#tiers[tier].shift()!, "dropped");
        dropped++;
      }
    }
    return dropped;
  }

  #insert(broadcast: Broadcast): void {
    while (this.#tiers.length <= broadcast.transmits) this.#tiers.push([]);
    const entries = this.#tiers[broadcast.transmits];
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (precedes(entries[middle], broadcast)) low = middle + 1;
      else high = middle;
    }
    entries.splice(low, 0, broadcast);
  }

  #remove(broadcast: Broadcast, end: BroadcastEnd): void {
    const entries = this.#tiers[broadcast.transmits];
    const index = entries.indexOf(broadcast);
    if (index >= 0) entries.splice(index, 1);
    this.#end(broadcast, end);
  }

  #end(broadcast: Broadcast, end: BroadcastEnd): void {
    this.#size--;
    if (broadcast.name !== undefined && this.#byName.get(broadcast.name) === broadcast) {
      this.#byName.delete(broadcast.name);
    }
    broadcast.onEnd?.(end);
  }
}

function precedes(a: Broadcast, b: Broadcast): boolean {
  return a.message.length < b.message.length || (a.message.length === b.message.length && a.id < b.id);
}

/** Index of the longest, and of those the newest, entry of at most `limit` bytes; −1 where none fits. */
function lastFitting(entries: readonly Broadcast[], limit: number): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle].message.length <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
