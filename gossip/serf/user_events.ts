import type { MsgpackReader } from "../codec/msgpack_reader.ts";
import { encodeSlot, type EventSlot, type KnownSlots } from "../codec/serf_push_pull.ts";
import type { UserEventMessage } from "../codec/serf_messages.ts";
import { equalBytes, hashBytes, NO_BYTES, sameBytes } from "../codec/text.ts";
import type { CommonEvents } from "./common_events.ts";
import { LamportClock } from "./lamport.ts";
import type { Verdict } from "./query_log.ts";

/** Events of one Lamport time that are told apart; more are dropped. */
export const MAX_EVENTS_PER_TIME = 256;

/** What is remembered of one Lamport time. */
interface Slot extends EventSlot {
  /** Of each event's payload: where hundreds of nodes start at once, hundreds of their first events share a time. */
  hashes: number[];
}

/** Recent user events by Lamport time: delivers each once. */
export class UserEvents {
  readonly clock = new LamportClock();
  /** Events before this are too old to be delivered. */
  minTime = 0;
  readonly #slots: (Slot | undefined)[];
  readonly #common: Pick<CommonEvents, "bytes"> | undefined;

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
    if (events.length >= MAX_EVENTS_PER_TIME) return "too-many";
    slot.encoded = undefined;
    hashes.push(hash);
    events.push({ name: message.name, payload: message.payload });
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

/** A slot whose events stand in an order that does not depend on how they came: who knows the same says the same. */
function inOrder({ ltime, events, hashes }: Slot): EventSlot {
  if (events.length < 2) return { ltime, events };
  const order = [...events.keys()].sort((a, b) =>
    hashes[a] - hashes[b] || (events[a].name < events[b].name ? -1 : 1)
  );
  return { ltime, events: order.map((at) => events[at]) };
}
