/** Why a broadcast left the queue. */
export type BroadcastEnd = "sent" | "replaced" | "dropped";

/** Entries without use that a stack may hold besides as many living ones before they are cleared away. */
const SPARE_REMOVED = 16;

/** What broadcasts are about: the latest takes the place of one that still waits. */
export interface Subject {
  queued: Broadcast | undefined;
}

/** One message waiting to be sent to enough nodes. */
export class Broadcast {
  transmits = 0;
  /** Whether it left the queue. */
  ended = false;

  constructor(
    readonly message: Uint8Array,
    readonly subject: Subject | undefined,
    /** Transmissions after which it is done, where that is less than the queue's limit. */
    readonly sends: number,
    readonly onEnd: ((end: BroadcastEnd) => void) | undefined,
  ) {}
}

/** How a message is queued. */
export interface QueueOptions {
  subject?: Subject;
  /** Transmissions that are enough; the queue's limit by default. */
  sends?: number;
  /** Told why the broadcast left the queue. */
  onEnd?(end: BroadcastEnd): void;
}

/** How broadcasts are picked from a queue. */
export interface PickOptions {
  /** Bytes that each message takes besides its own. */
  overhead: number;
  /** Bytes there are. */
  limit: number;
  /** Only what was never sent. */
  freshOnly?: boolean;
}

const NO_OPTIONS: QueueOptions = {};

/** Sends of each broadcast in a cluster of `nodes`. */
export function retransmitLimit(mult: number, nodes: number): number {
  return mult * Math.ceil(Math.log10(nodes + 1));
}

/** Broadcasts of one length, oldest first. Those that ended are cleared away when they surface, or with others. */
class Stack {
  #items: Broadcast[] = [];
  /** Where the oldest stands. */
  #head = 0;
  #removed = 0;

  constructor(readonly length: number) {}

  get isEmpty(): boolean {
    return this.#items.length - this.#head === this.#removed;
  }

  push(broadcast: Broadcast): void {
    this.#items.push(broadcast);
  }

  /** Takes the newest of a stack that is not empty. */
  pop(): Broadcast {
    for (;;) {
      const top = this.#items.pop()!;
      if (!top.ended) return top;
      this.#removed--;
    }
  }

  /** Takes the oldest of a stack that is not empty. */
  shift(): Broadcast {
    for (;;) {
      const first = this.#items[this.#head++];
      if (this.#head > SPARE_REMOVED && this.#head * 2 > this.#items.length) {
        this.#items = this.#items.slice(this.#head);
        this.#head = 0;
      }
      if (!first.ended) return first;
      this.#removed--;
    }
  }

  /** One of the stack has ended. */
  remove(): void {
    if (++this.#removed <= (this.#items.length - this.#head) / 2 + SPARE_REMOVED) return;
    this.#items = this.#items.slice(this.#head).filter((broadcast) => !broadcast.ended);
    this.#head = this.#removed = 0;
  }
}

/** Broadcasts of one number of transmissions. */
class Tier {
  /** By length, ascending; none is empty. */
  readonly #stacks: Stack[] = [];
  size = 0;

  push(broadcast: Broadcast): void {
    const { length } = broadcast.message;
    const at = this.#at(length);
    let stack = this.#stacks[at];
    if (stack?.length !== length) this.#stacks.splice(at, 0, stack = new Stack(length));
    stack.push(broadcast);
    this.size++;
  }

  /** Takes the longest, and of those the newest, of at most `limit` bytes; undefined where none fits. */
  pop(limit: number): Broadcast | undefined {
    const at = this.#at(limit + 1) - 1;
    return at < 0 ? undefined : this.#took(at, this.#stacks[at].pop());
  }

  /** Takes the shortest, and of those the oldest. */
  shift(): Broadcast | undefined {
    return this.#stacks.length === 0 ? undefined : this.#took(0, this.#stacks[0].shift());
  }

  /** One of that length has ended. */
  remove(length: number): void {
    const at = this.#at(length);
    const stack = this.#stacks[at];
    stack.remove();
    this.size--;
    if (stack.isEmpty) this.#stacks.splice(at, 1);
  }

  #took(at: number, broadcast: Broadcast): Broadcast {
    this.size--;
    if (this.#stacks[at].isEmpty) this.#stacks.splice(at, 1);
    return broadcast;
  }

  /** Where the stack of `length` stands or would stand. */
  #at(length: number): number {
    const stacks = this.#stacks;
    let low = 0;
    let high = stacks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (stacks[middle].length < length) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/**
 * Broadcasts by fewest transmissions, then longest, then newest. Each pick counts as a transmission; at the limit the
 * broadcast is done.
 */
export class BroadcastQueue {
  readonly #tiers: Tier[] = [];
  readonly #picked: Broadcast[] = [];
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
    return this.#tiers[0]?.size ?? 0;
  }

  queue(message: Uint8Array, options: QueueOptions = NO_OPTIONS): void {
    const { subject, sends = Infinity, onEnd } = options;
    if (subject?.queued !== undefined) this.#replace(subject.queued);
    const broadcast = new Broadcast(message, subject, sends, onEnd);
    if (subject !== undefined) subject.queued = broadcast;
    this.#insert(broadcast);
    this.#size++;
  }

  /** Adds to `into` what fits; returns the bytes used. */
  pick(options: PickOptions, into: Uint8Array[]): number {
    if (this.#size === 0) return 0;
    const { overhead, limit } = options;
    const done = this.#limit();
    const picked = this.#picked;
    let used = 0;
    const tiers = options.freshOnly ? Math.min(1, this.#tiers.length) : this.#tiers.length;
    for (let tier = 0; tier < tiers; tier++) {
      const entries = this.#tiers[tier];
      while (entries.size > 0) {
        const broadcast = entries.pop(limit - used - overhead);
        if (broadcast === undefined) break;
        used += broadcast.message.length + overhead;
        picked.push(broadcast);
      }
    }
    let ended = 0;
    for (let i = 0; i < picked.length; i++) {
      const broadcast = picked[i];
      into.push(broadcast.message);
      broadcast.transmits++;
      if (broadcast.transmits < Math.min(done, broadcast.sends)) this.#insert(broadcast);
      else {
        this.#retire(broadcast);
        picked[ended++] = broadcast;
      }
    }
    // Last, for who is told may queue more.
    for (let i = 0; i < ended; i++) picked[i].onEnd?.("sent");
    picked.length = 0;
    return used;
  }

  /** Drops broadcasts, the most transmitted first, until at most `max` are left; returns how many. */
  prune(max: number): number {
    let dropped = 0;
    for (let tier = this.#tiers.length - 1; tier >= 0 && this.#size > max; tier--) {
      const entries = this.#tiers[tier];
      while (this.#size > max) {
        const broadcast = entries.shift();
        if (broadcast === undefined) break;
        this.#retire(broadcast);
        broadcast.onEnd?.("dropped");
        dropped++;
      }
    }
    return dropped;
  }

  #insert(broadcast: Broadcast): void {
    while (this.#tiers.length <= broadcast.transmits) this.#tiers.push(new Tier());
    this.#tiers[broadcast.transmits].push(broadcast);
  }

  #replace(broadcast: Broadcast): void {
    this.#retire(broadcast);
    this.#tiers[broadcast.transmits].remove(broadcast.message.length);
    broadcast.onEnd?.("replaced");
  }

  #retire(broadcast: Broadcast): void {
    this.#size--;
    broadcast.ended = true;
    const { subject } = broadcast;
    if (subject?.queued === broadcast) subject.queued = undefined;
  }
}
