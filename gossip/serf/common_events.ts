import type { MsgpackReader } from "../codec/msgpack_reader.ts";
import { decodeUserEvent, type UserEventMessage } from "../codec/serf_messages.ts";
import { equalBytes, hashBytes } from "../codec/text.ts";
import { asUser } from "./broadcasts.ts";
import { isQueued, messageHash } from "./seen.ts";

/** Events that are remembered; a power of two, and several times what is on its way at once in a busy cluster. */
const COMMON_SLOTS = 8_192;

/** A user event that this node was told of. */
export interface TakenEvent {
  readonly message: UserEventMessage;
  /** The Serf message as memberlist's user message: what is sent on. Absent where it came with a whole state. */
  readonly queued?: Uint8Array;
}

/** One that came by itself: never changed. */
export type ReceivedEvent = Required<TakenEvent>;

/**
 * User events that the cores of one process have in common: the bytes are kept once and decoded once, however many of the
 * cores receive them. Bounded: a newer one takes the place of an older one with the same slot.
 */
export class CommonEvents {
  readonly #slots: (ReceivedEvent | undefined)[] = new Array(COMMON_SLOTS).fill(undefined);
  readonly #bytes: (Uint8Array | undefined)[] = new Array(COMMON_SLOTS).fill(undefined);

  /** The event in `bytes` from `start`, its Serf type byte, to `end`; undefined where no core had it lately. */
  get(bytes: Uint8Array, start: number, end: number): ReceivedEvent | undefined {
    const known = this.#slots[messageHash(bytes, start, end) & (COMMON_SLOTS - 1)];
    return known !== undefined && isQueued(known.queued, bytes, start, end) ? known : undefined;
  }

  add(event: ReceivedEvent): void {
    const { queued, message: { payload } } = event;
    this.#slots[messageHash(queued, 1, queued.length) & (COMMON_SLOTS - 1)] = event;
    if (payload !== undefined) this.#bytes[slotOf(payload)] = payload;
  }

  /** An event that came with a whole state: its payload is that of the same event by itself. */
  shared(message: UserEventMessage): UserEventMessage {
    const { payload } = message;
    return payload === undefined ? message : { ...message, payload: this.bytes(payload) };
  }

  /** The bytes that some core had lately and that are the same, else these. They must not be changed. */
  bytes(bytes: Uint8Array): Uint8Array {
    const slot = slotOf(bytes);
    const known = this.#bytes[slot];
    return known !== undefined && equalBytes(known, bytes) ? known : this.#bytes[slot] = bytes;
  }
}

/**
 * The user event in `bytes` from `start`, its Serf type byte, to `end`; the reader stands after that byte. Throws
 * `DecodeError`.
 */
export function receivedEvent(
  common: CommonEvents | undefined,
  reader: MsgpackReader,
  { bytes, start, end }: { bytes: Uint8Array; start: number; end: number },
): ReceivedEvent {
  const known = common?.get(bytes, start, end);
  if (known !== undefined) return known;
  const event = { message: decodeUserEvent(reader), queued: asUser(bytes, start, end) };
  common?.add(event);
  return event;
}

function slotOf(bytes: Uint8Array): number {
  return hashBytes(bytes, 0, bytes.length) & (COMMON_SLOTS - 1);
}
