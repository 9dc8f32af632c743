import { crc32 } from "../codec/crc32.ts";
import type { MsgpackReader } from "../codec/msgpack_reader.ts";
import { encodeSlot, type EventSlot, type KnownSlots } from "../codec/serf_push_pull.ts";
import type { UserEventMessage } from "../codec/serf_messages.ts";
import { equalBytes, hashBytes, NO_BYTES, sameBytes, utf8 } from "../codec/text.ts";
import type { CommonEvents } from "./common_events.ts";
import { LamportClock } from "./lamport.ts";
import type { Verdict } from "./query_log.ts";

/** Events of one Lamport time that are remembered whole, and told in push/pulls; of more a digest is remembered. */
export const MAX_EVENTS_PER_TIME = 256;
/** Digests, of all times together; events beyond them are dropped. Where thousands of nodes start at once, this holds theirs. */
export const MAX_EVENT_DIGESTS = 16_384;

/** What is remembered of one Lamport time. */
interface Slot extends EventSlot {
  /** Of each event's payload: where hundreds of nodes start at once, hundreds of their first events share a time. */
  hashes: number[];
  /** Of those beyond {@linkcode MAX_EVENTS_PER_TIME}. */
  digests?: Set<number>;
}

/** Recent user events by Lamport time: delivers each once. */
export class UserEvents {
  readonly clock = new LamportClock();
  /** Events before this are too old to be delivered. */
  minTime = 0;
  readonly #slots: (Slot | undefined)[];
  readonly #common: Pick<CommonEvents, "bytes"> | undefined;
  #digests = 0;

  /** `common`: what is remembered alike by many cores of one process is kept once. */
  constructor(slots: number, common?: Pick<CommonEvents, "bytes">) {
    this.#common = common;
    this.#slots = new Array(slots).fill(undefined);
  }

  /** Whether the event is new; it is remembered then. */
  accept(message: UserEventMessage): Verdict {
    if (!this.clock.witness(message.ltime) || message.ltime < this.minTime) return "known";
    const size = this.#slots.length;
    if (this.clock.time > size && message.ltime < this.clock.time - size) return "known";
    const index = message.ltime % size;
    let slot = this.#slots[index];
    if (slot === undefined || slot.ltime !== message.ltime) {
      if (slot !== undefined && slot.ltime > message.ltime) return "known";
      this.#digests -= slot?.digests?.size ?? 0;
      slot = { ltime: message.ltime, events: [], hashes: [] };
      this.#slots[index] = slot;
    }
    const payload = message.payload ?? NO_BYTES;
    const hash = hashBytes(payload, 0, payload.length);
    const { events, hashes } = slot;
    for (let at = hashes.indexOf(hash); at >= 0; at = hashes.indexOf(hash, at + 1)) {
      const known = events[at];
      if (known.name === message.name && equalBytes(known.payload ?? NO_BYTES, payload)) return "known";
    }
    if (events.length >= MAX_EVENTS_PER_TIME) {
      return this.#acceptDigest(slot, digestOf(message.name, payload));
    }
    slot.encoded = undefined;
    hashes.push(hash);
    events.push({ name: message.name, payload: message.payload });
    return "new";
  }

  #acceptDigest(slot: Slot, digest: number): Verdict {
    slot.digests ??= new Set();
    if (slot.digests.has(digest)) return "known";
    if (this.#digests >= MAX_EVENT_DIGESTS) return "too-many";
    slot.digests.add(digest);
    this.#digests++;
    return "new";
  }

  /** What is remembered, for a push/pull. Most of it is the same from one to the next: it is encoded once. */
  slots(): EventSlot[] {
    const slots = this.#slots.filter((slot) => slot !== undefined);
    for (const slot of slots) {
      if (slot.encoded !== undefined) continue;
      const encoded = encodeSlot(inOrder(slot)).slice();
      slot.encoded = this.#common?.bytes(encoded) ?? encoded;
    }
    return slots;
  }

  /** What is remembered, to be compared with what another node remembers: it tells its slots in the same order. */
  known(): KnownSlots {
    const slots = this.#slots;
    let at = 0;
    return {
      skip(reader: MsgpackReader): boolean {
        while (at < slots.length && slots[at] === undefined) at++;
        const encoded = slots[at]?.encoded;
        if (encoded === undefined || reader.at + encoded.length > reader.end) return false;
        if (!sameBytes(encoded, reader.bytes, reader.at, reader.at + encoded.length)) return false;
        reader.at += encoded.length;
        at++;
        return true;
      },
      passed: (ltime) => at = ltime % slots.length + 1,
    };
  }
}

/** 53 bits that tell an event from thousands of others; no defence against a member that picks the bytes. */
function digestOf(name: string, payload: Uint8Array): number {
  const text = utf8(name);
  const hash = hashBytes(text, 0, text.length) ^ hashBytes(payload, 0, payload.length);
  return crc32(payload) * 0x20_0000 + (hash & 0x1f_ffff);
}

/** A slot whose events stand in an order that does not depend on how they came: who knows the same says the same. */
function inOrder({ ltime, events, hashes }: Slot): EventSlot {
  if (events.length < 2) return { ltime, events };
  const order = [...events.keys()].sort((a, b) =>
    hashes[a] - hashes[b] || (events[a].name < events[b].name ? -1 : 1)
  );
  return { ltime, events: order.map((at) => events[at]) };
}
