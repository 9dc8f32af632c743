import { Endpoint } from "../endpoint.ts";
import { type CommonFields, decodeAlive, encodeAlive } from "./messages.ts";
import { MsgpackReader, type RememberedStrings, rememberStrings } from "./msgpack_reader.ts";
import { encodeState } from "./push_pull.ts";
import { decodeTags, type Tags } from "./tags.ts";
import { equalBytes, hashBytes, NO_BYTES, sameBytes } from "./text.ts";
import { type Alive, NodeState, type PushPullNode } from "./types.ts";

/** Claims that are remembered by their bytes, in each of the two forms they come in; a power of two. */
const CLAIM_SLOTS = 2_048;

/** Claims share blocks of memory of this size. */
const BLOCK_BYTES = 4_096;

/**
 * A node's word about itself: immutable, owns its bytes, and is handed from table to table rather than copied. It is also
 * the node's entry in a push/pull, as living.
 */
export class Claim implements PushPullNode {
  readonly state: typeof NodeState.alive = NodeState.alive;
  #stateEntry: Uint8Array | undefined;
  #tags: Tags | undefined;
  #versions: readonly number[] | undefined;

  constructor(
    readonly node: string,
    readonly endpoint: Endpoint,
    readonly meta: Uint8Array,
    /** PMin, PMax, PCur, DMin, DMax, DCur; empty where the node did not say. */
    readonly vsn: Uint8Array,
    readonly incarnation: number,
    /** The alive message, with its type byte. */
    readonly encoded: Uint8Array,
  ) {}

  get addr(): Uint8Array {
    return this.endpoint.addr;
  }

  get port(): number {
    return this.endpoint.port;
  }

  /** The entry of a push/pull that says that the node lives. */
  get stateEntry(): Uint8Array {
    return this.#stateEntry ??= encodeState(this);
  }

  /** The tags that the meta data holds; decoded when asked for first. */
  get tags(): Tags {
    return this.#tags ??= decodeTags(this.meta);
  }

  /** {@linkcode vsn} as numbers. */
  get versions(): readonly number[] {
    return this.#versions ??= [...this.vsn];
  }
}

/**
 * The claims of one core, or of all that share one process: what comes again is recognised by its bytes and not decoded
 * again. Bounded: a newer claim takes the place of an older one with the same slot.
 */
export class Claims {
  /** Short strings that the readers of a core have in common. */
  readonly strings: RememberedStrings = rememberStrings();
  readonly #alive: (Claim | undefined)[];
  readonly #states: (Claim | undefined)[];
  readonly #mask: number;
  readonly #reader = new MsgpackReader({ strings: this.strings });
  /** Those of the latest claim: mostly they are those of the next one too. */
  #common: CommonFields = { meta: NO_BYTES, vsn: NO_BYTES };
  #block = NO_BYTES;
  #blockUsed = 0;

  /** `slots` is a power of two; more than the default is worth it where thousands of cores share the claims. */
  constructor(options: { slots?: number } = {}) {
    const slots = options.slots ?? CLAIM_SLOTS;
    this.#alive = new Array(slots).fill(undefined);
    this.#states = new Array(slots).fill(undefined);
    this.#mask = slots - 1;
  }

  /** The claim of an alive message, its type byte at `start`. Throws {@linkcode DecodeError}. */
  fromAlive(bytes: Uint8Array, start: number, end: number): Claim {
    const slot = hashBytes(bytes, start, end) & this.#mask;
    const known = this.#alive[slot];
    if (known !== undefined && sameBytes(known.encoded, bytes, start, end)) return known;
    const own = this.#keep(bytes, start, end);
    const message = decodeAlive(this.#reader.reset(own, 1), this.#common);
    const encoded = encodeAlive(message);
    // Kept as it came where we would write the same; anything else is written anew, so that no junk is kept or passed on.
    if (!equalBytes(encoded, own)) return this.of(message);
    return this.#alive[slot] = this.#make(message, own);
  }

  /** A copy. Claims are short and stay for long, so several share a block of memory. */
  #keep(bytes: Uint8Array, start: number, end: number): Uint8Array {
    const length = end - start;
    if (length > BLOCK_BYTES / 8) return bytes.slice(start, end);
    if (this.#blockUsed + length > this.#block.length) {
      this.#block = new Uint8Array(BLOCK_BYTES);
      this.#blockUsed = 0;
    }
    const out = this.#block.subarray(this.#blockUsed, this.#blockUsed + length);
    this.#blockUsed += length;
    for (let i = 0, at = start; i < length; i++, at++) out[i] = bytes[at];
    return out;
  }

  /** The claim known by exactly these bytes of a push/pull's entry; undefined where there is none. */
  fromState(bytes: Uint8Array, start: number, end: number): Claim | undefined {
    const known = this.#states[hashBytes(bytes, start, end) & this.#mask];
    return known !== undefined && sameBytes(known.stateEntry, bytes, start, end) ? known : undefined;
  }

  /** A claim of these fields, which are copied; remembered also as an entry of push/pulls. */
  of(message: Alive): Claim {
    if (message instanceof Claim) return message;
    const encoded = encodeAlive(message);
    const slot = hashBytes(encoded, 0, encoded.length) & this.#mask;
    let claim = this.#alive[slot];
    if (claim === undefined || !equalBytes(claim.encoded, encoded)) {
      const own = this.#keep(encoded, 0, encoded.length);
      this.#alive[slot] = claim = this.#make(decodeAlive(this.#reader.reset(own, 1), this.#common), own);
    }
    const { stateEntry } = claim;
    this.#states[hashBytes(stateEntry, 0, stateEntry.length) & this.#mask] = claim;
    return claim;
  }

  /** `message` may share memory with `encoded`. */
  #make(message: Alive, encoded: Uint8Array): Claim {
    const { node, addr, port, meta, vsn, incarnation } = message;
    this.#common.meta = meta;
    this.#common.vsn = vsn;
    return new Claim(node, new Endpoint(addr, port), meta, vsn, incarnation, encoded);
  }
}
