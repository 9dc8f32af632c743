import type { EventSlot } from "../codec/serf_push_pull.ts";
import type { UserEventMessage } from "../codec/serf_messages.ts";
import { equalBytes, NO_BYTES } from "../codec/text.ts";
import { LamportClock } from "./lamport.ts";
import type { Verdict } from "./query_log.ts";

/** Events of one Lamport time that are told apart; more are dropped. */
export const MAX_EVENTS_PER_TIME = 256;

/** Recent user events by Lamport time: delivers each once. */
export class UserEvents {
  readonly clock = new LamportClock();
  /** Events before this are too old to be delivered. */
  minTime = 0;
  readonly #slots: (EventSlot | undefined)[];

  constructor(slots: number) {
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
      slot = { ltime: message.ltime, events: [] };
      this.#slots[index] = slot;
    }
    const payload = message.payload ?? NO_BYTES;
    for (const known of slot.events) {
      if (known.name === message.name && equalBytes(known.payload ?? NO_BYTES, payload)) return "known";
    }
    if (slot.events.length >= MAX_EVENTS_PER_TIME) return "too-many";
    slot.events.push({ name: message.name, payload: message.payload });
    return "new";
  }

  /** What is remembered, for a push/pull. */
  slots(): EventSlot[] {
    return this.#slots.filter((slot) => slot !== undefined);
  }
}
