import { DecodeError } from "../codec/error.ts";
import { LIMITS } from "../codec/limits.ts";
import { MsgpackReader, type RememberedStrings } from "../codec/msgpack_reader.ts";
import * as codec from "../codec/serf_messages.ts";
import { NO_BYTES } from "../codec/text.ts";
import { asUser, type Broadcasts } from "./broadcasts.ts";
import { type CommonEvents, receivedEvent, type TakenEvent } from "./common_events.ts";
import type { SerfCounters } from "./counters.ts";
import type { UserEvent } from "./events.ts";
import type { Members } from "./members.ts";
import type { Queries } from "./queries.ts";
import type { SeenMessages } from "./seen.ts";
import type { UserEvents } from "./user_events.ts";

/** What an {@linkcode Inbox} is made of. */
export interface InboxOptions {
  members: Members;
  queries: Queries;
  userEvents: UserEvents;
  broadcasts: Broadcasts;
  seen: SeenMessages;
  counters: SerfCounters;
  /** Events that the cores of one process have in common. */
  events?: CommonEvents;
  /** Where short strings are kept for reuse. */
  strings: RememberedStrings;
  nowMs(): number;
  emit(event: UserEvent): void;
}

/** Where Serf's messages come in: each to the part that it is for, and on to others where it is news. */
export class Inbox {
  readonly #options: InboxOptions;
  readonly #reader: MsgpackReader;

  constructor(options: InboxOptions) {
    this.#options = options;
    this.#reader = new MsgpackReader({ strings: options.strings });
  }

  /** Takes the Serf message in `bytes` from `start`, its type byte, to `end`. Throws {@linkcode DecodeError}. */
  receive(bytes: Uint8Array, start: number, end: number): void {
    if (start >= end) throw new DecodeError("Serf message", "it is empty");
    if (end - start > LIMITS.serfMessageBytes) {
      throw new DecodeError("Serf message", "it is too long to be passed on");
    }
    const { members, queries, broadcasts, seen, events } = this.#options;
    const reader = this.#reader.reset(bytes, start + 1, end);
    const nowMs = this.#options.nowMs();
    switch (bytes[start]) {
      case codec.SerfType.leave: {
        const intent = codec.decodeIntent(reader);
        if (members.leaveIntent(intent, nowMs)) broadcasts.intent(asUser(bytes, start, end));
        return;
      }
      case codec.SerfType.join: {
        const intent = codec.decodeIntent(reader);
        if (members.joinIntent(intent, nowMs)) broadcasts.intent(asUser(bytes, start, end));
        return;
      }
      case codec.SerfType.userEvent:
        if (seen.has(bytes, start, end)) return;
        return this.takeUserEvent(receivedEvent(events, reader, { bytes, start, end }));
      case codec.SerfType.query:
        if (seen.has(bytes, start, end)) return;
        return queries.receive(reader, asUser(bytes, start, end));
      case codec.SerfType.queryResponse:
        return queries.receiveResponse(reader);
      case codec.SerfType.relay:
        return queries.receiveRelay(reader);
      default:
        throw new DecodeError("Serf message", `type ${bytes[start]} is unknown`);
    }
  }

  /** Delivers a user event that is new, and passes it on where it came by itself or is this node's own. */
  takeUserEvent({ message, queued }: TakenEvent): void {
    const { userEvents, broadcasts, seen, counters } = this.#options;
    const verdict = userEvents.accept(message);
    if (verdict === "too-many") counters.limited++;
    // One from the far future may be taken later, once this node has caught up.
    if (queued !== undefined && message.ltime < userEvents.clock.time) seen.add(queued);
    if (verdict !== "new") return;
    counters.userEvents++;
    if (queued !== undefined) broadcasts.userEvent(queued, message);
    const { ltime, name, coalesce } = message;
    this.#options.emit({ kind: "user", ltime, name, payload: message.payload ?? NO_BYTES, coalesce });
  }
}
