import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import type { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { MAX_TIME, SerfType } from "./serf_messages.ts";

/** Bytes of an X25519 key, secret or public. */
export const X25519_BYTES = 32;

/** User events of one Lamport time. */
export interface EventSlot {
  ltime: number;
  events: { name: string; payload: Uint8Array | undefined }[];
  /** As {@linkcode encodeSlot} gave it, where that is kept. */
  encoded?: Uint8Array;
}

/** Slots that this node has itself: what another's push/pull says alike need not be decoded. */
export interface KnownSlots {
  /** Moves the reader past the slot at which it stands, where that is known; else it stays. */
  skip(reader: MsgpackReader): boolean;
  /** One that was not known has been read. */
  passed(ltime: number): void;
}

/** The key ring as our own members hand it on, so that a rotation reaches who was away. Other agents skip it. */
export interface KeyringState {
  /** Counter of key operations; the higher one holds. */
  version: number;
  /** Raw keys, the primary first. */
  keys: Uint8Array[];
  /** Keys that were removed, the latest first: with one of them a latecomer knocks. */
  retired: Uint8Array[];
}

/** Serf's part of a push/pull. */
export interface SerfPushPull {
  ltime: number;
  statusLTimes: [node: string, ltime: number][];
  leftMembers: string[];
  eventLTime: number;
  events: EventSlot[];
  queryLTime: number;
  keyring?: KeyringState;
  /** Who sends this, said by our own members: someone who missed a rotation is answered by name. */
  from?: string;
  /** A key ring that only the node it is for can open. */
  sealedRing?: Uint8Array;
  /** Public keys of members that are away, for whom a ring could be sealed. */
  doors: [node: string, publicKey: Uint8Array][];
}

/** A state that says nothing. */
export function emptySerfPushPull(): SerfPushPull {
  return { ltime: 0, statusLTimes: [], leftMembers: [], eventLTime: 0, events: [], queryLTime: 0, doors: [] };
}

/** Room for all that is not counted, and for a member's name and time. */
const HEADS_BYTES = 512;
const TIME_BYTES = 24;

/** Encodes the user state of a push/pull, with its type byte. */
export function encodeSerfPushPull(message: SerfPushPull): Uint8Array {
  const { keyring, from, sealedRing, doors } = message;
  const ours = (doors.length > 0 ? 1 : 0) + (keyring ? 1 : 0) + (from === undefined ? 0 : 1) +
    (sealedRing ? 1 : 0);
  const out = new MsgpackWriter(expectedBytes(message)).byte(SerfType.pushPull).map(6 + ours);
  out.string("EventLTime").int(message.eventLTime).string("Events");
  if (message.events.length === 0) out.nil();
  else {
    out.array(message.events.length);
    for (const slot of message.events) writeSlot(out, slot);
  }
  if (doors.length > 0) {
    out.string("HypercoreDoors").map(doors.length);
    for (const [node, publicKey] of doors) out.string(node).bytes(publicKey);
  }
  if (from !== undefined) out.string("HypercoreFrom").string(from);
  if (keyring !== undefined) writeKeyring(out.string("HypercoreKeys"), keyring);
  if (sealedRing !== undefined) out.string("HypercoreRing").bytes(sealedRing);
  out.string("LTime").int(message.ltime).string("LeftMembers").array(message.leftMembers.length);
  for (const name of message.leftMembers) out.string(name);
  out.string("QueryLTime").int(message.queryLTime).string("StatusLTimes").map(message.statusLTimes.length);
  for (const [node, ltime] of message.statusLTimes) out.string(node).int(ltime);
  return out.finish();
}

/** About as many as it takes: mostly it is slots that are encoded already, and times of members. */
function expectedBytes({ events, statusLTimes }: SerfPushPull): number {
  let expected = HEADS_BYTES + statusLTimes.length * TIME_BYTES;
  for (const { encoded } of events) expected += encoded?.length ?? 0;
  return expected;
}

/** Decodes the user state of a push/pull; the reader stands after the type byte. Slots that are `known` are left out. */
export function decodeSerfPushPull(reader: MsgpackReader, known?: KnownSlots): SerfPushPull {
  const message = emptySerfPushPull();
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "LTime":
        message.ltime = readTime(reader);
        break;
      case "EventLTime":
        message.eventLTime = readTime(reader);
        break;
      case "QueryLTime":
        message.queryLTime = readTime(reader);
        break;
      case "StatusLTimes":
        for (let count = reader.map(); count > 0; count--) {
          const node = readName(reader);
          const ltime = readTime(reader);
          if (node !== undefined) message.statusLTimes.push([node, ltime]);
        }
        break;
      case "LeftMembers": {
        const count = reader.array(LIMITS.pushPullNodes) ?? 0;
        for (let i = 0; i < count; i++) {
          const node = readName(reader);
          if (node !== undefined) message.leftMembers.push(node);
        }
        break;
      }
      case "Events": {
        const count = reader.array(LIMITS.eventSlots) ?? 0;
        for (let i = 0; i < count; i++) {
          if (known?.skip(reader)) continue;
          const slot = readSlot(reader);
          known?.passed(slot.ltime);
          if (slot.events.length > 0) message.events.push(slot);
        }
        break;
      }
      case "HypercoreDoors": {
        const count = reader.map();
        for (let i = 0; i < count; i++) {
          const node = readName(reader);
          const publicKey = reader.copy(X25519_BYTES);
          if (node !== undefined && publicKey !== undefined && i < LIMITS.doors) {
            message.doors.push([node, publicKey]);
          }
        }
        break;
      }
      case "HypercoreFrom":
        message.from = reader.string();
        break;
      case "HypercoreRing":
        message.sealedRing = reader.copy(LIMITS.sealedRingBytes);
        break;
      case "HypercoreKeys":
        message.keyring = readKeyring(reader);
        break;
      default:
        reader.skip();
    }
  }
  return message;
}

/** A slot as it stands in a push/pull. */
export function encodeSlot(slot: EventSlot): Uint8Array {
  const out = new MsgpackWriter();
  writeSlot(out, slot);
  return out.finish();
}

function writeSlot(out: MsgpackWriter, slot: EventSlot): void {
  if (slot.encoded !== undefined) return void out.verbatim(slot.encoded);
  out.map(2).string("Events").array(slot.events.length);
  for (const event of slot.events) {
    out.map(2).string("Name").string(event.name).string("Payload").bytes(event.payload);
  }
  out.string("LTime").int(slot.ltime);
}

/** A Lamport time; one beyond all counting is 0, as if nothing were said: it must not cost the rest of the state. */
function readTime(reader: MsgpackReader): number {
  const time = reader.number();
  return Number.isSafeInteger(time) && time >= 0 ? time : 0;
}

/** A name; undefined where it is none that an agent can have. */
function readName(reader: MsgpackReader): string | undefined {
  const start = reader.at;
  try {
    return reader.string();
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    reader.at = start;
    reader.skip();
    return undefined;
  }
}

function readSlot(reader: MsgpackReader): EventSlot {
  const slot: EventSlot = { ltime: 0, events: [] };
  for (let entries = reader.map(); entries > 0; entries--) {
    const field = reader.string();
    if (field === "LTime") slot.ltime = readTime(reader);
    else if (field === "Events") {
      const count = reader.array(LIMITS.eventsPerSlot) ?? 0;
      for (let i = 0; i < count; i++) slot.events.push(readEvent(reader));
    } else reader.skip();
  }
  return slot;
}

function readEvent(reader: MsgpackReader): { name: string; payload: Uint8Array | undefined } {
  const event: { name: string; payload: Uint8Array | undefined } = { name: "", payload: undefined };
  for (let entries = reader.map(); entries > 0; entries--) {
    const field = reader.string();
    if (field === "Name") event.name = reader.string(LIMITS.packetBytes);
    else if (field === "Payload") event.payload = reader.copy(LIMITS.packetBytes);
    else reader.skip();
  }
  return event;
}

/** Writes a key ring. */
export function writeKeyring(out: MsgpackWriter, keyring: KeyringState): void {
  out.map(3).string("Keys").array(keyring.keys.length);
  for (const key of keyring.keys) out.bytes(key);
  out.string("Retired").array(keyring.retired.length);
  for (const key of keyring.retired) out.bytes(key);
  out.string("Version").int(keyring.version);
}

/** Reads a key ring. Throws {@linkcode DecodeError}. */
export function readKeyring(reader: MsgpackReader): KeyringState {
  const keyring: KeyringState = { version: 0, keys: [], retired: [] };
  for (let entries = reader.map(); entries > 0; entries--) {
    const field = reader.string();
    if (field === "Version") keyring.version = reader.uint(MAX_TIME);
    else if (field === "Keys") readKeys(reader, keyring.keys);
    else if (field === "Retired") readKeys(reader, keyring.retired);
    else reader.skip();
  }
  return keyring;
}

function readKeys(reader: MsgpackReader, into: Uint8Array[]): void {
  const count = reader.array(LIMITS.keys) ?? 0;
  for (let i = 0; i < count; i++) {
    const key = reader.copy(32);
    if (key !== undefined) into.push(key);
  }
}
