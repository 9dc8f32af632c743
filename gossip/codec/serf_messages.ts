import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import type { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { NO_BYTES } from "./text.ts";

/** First byte of every Serf message. */
export const SerfType = {
  leave: 0,
  join: 1,
  pushPull: 2,
  userEvent: 3,
  query: 4,
  queryResponse: 5,
  conflictResponse: 6,
  keyRequest: 7,
  keyResponse: 8,
  relay: 9,
} as const;

/** Largest number that is an exact integer; Lamport times and time-outs are read up to it. */
export const MAX_TIME = Number.MAX_SAFE_INTEGER;
const U32 = 0xffff_ffff;

/** "That member leaves": said by itself, or forced by another. */
export interface LeaveIntent {
  ltime: number;
  node: string;
  prune: boolean;
}

/** "That member is here." */
export interface JoinIntent {
  ltime: number;
  node: string;
}

/** An application's event. */
export interface UserEventMessage {
  ltime: number;
  name: string;
  payload: Uint8Array | undefined;
  /** Whether events of that name may be coalesced. */
  coalesce: boolean;
}

/** Flag bits of queries and their responses. */
export const QueryFlag = { ack: 1, noBroadcast: 2 } as const;

/** An application's question. */
export interface QueryMessage {
  ltime: number;
  id: number;
  /** Where answers go. */
  addr: Uint8Array;
  port: number;
  sourceNode: string;
  filters: Uint8Array[];
  flags: number;
  relayFactor: number;
  timeoutNs: number;
  name: string;
  payload: Uint8Array | undefined;
}

/** The answer, or the ack, to a query. */
export interface QueryResponseMessage {
  ltime: number;
  id: number;
  from: string;
  flags: number;
  payload: Uint8Array | undefined;
}

/** Encodes a leave intent, with its type byte. */
export function encodeLeave(message: LeaveIntent): Uint8Array {
  return new MsgpackWriter().byte(SerfType.leave).map(3).string("LTime").int(message.ltime)
    .string("Node").string(message.node).string("Prune").bool(message.prune).finish();
}

/** Encodes a join intent, with its type byte. */
export function encodeJoin(message: JoinIntent): Uint8Array {
  return new MsgpackWriter().byte(SerfType.join).map(2).string("LTime").int(message.ltime)
    .string("Node").string(message.node).finish();
}

/** Decodes a join or leave intent; the reader stands after the type byte. */
export function decodeIntent(reader: MsgpackReader): LeaveIntent {
  const message: LeaveIntent = { ltime: 0, node: "", prune: false };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "LTime":
        message.ltime = reader.uint(MAX_TIME);
        break;
      case "Node":
        message.node = reader.string();
        break;
      case "Prune":
        message.prune = reader.bool();
        break;
      default:
        reader.skip();
    }
  }
  return message;
}

/** Encodes a user event, with its type byte. */
export function encodeUserEvent(message: UserEventMessage): Uint8Array {
  return new MsgpackWriter().byte(SerfType.userEvent).map(4).string("CC").bool(message.coalesce)
    .string("LTime").int(message.ltime).string("Name").string(message.name)
    .string("Payload").bytes(message.payload).finish();
}

/** Decodes a user event; the reader stands after the type byte. */
export function decodeUserEvent(reader: MsgpackReader): UserEventMessage {
  const message: UserEventMessage = { ltime: 0, name: "", payload: undefined, coalesce: false };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "LTime":
        message.ltime = reader.uint(MAX_TIME);
        break;
      case "Name":
        message.name = reader.string(LIMITS.packetBytes);
        break;
      case "Payload":
        message.payload = reader.copy(LIMITS.packetBytes);
        break;
      case "CC":
        message.coalesce = reader.bool();
        break;
      default:
        reader.skip();
    }
  }
  return message;
}

/** Encodes a query, with its type byte. */
export function encodeQuery(message: QueryMessage): Uint8Array {
  const out = new MsgpackWriter().byte(SerfType.query).map(11).string("Addr").bytes(message.addr).string(
    "Filters",
  );
  if (message.filters.length === 0) out.nil();
  else {
    out.array(message.filters.length);
    for (const filter of message.filters) out.bytes(filter);
  }
  return out.string("Flags").int(message.flags).string("ID").int(message.id).string("LTime").int(
    message.ltime,
  )
    .string("Name").string(message.name).string("Payload").bytes(message.payload).string("Port").int(
      message.port,
    )
    .string("RelayFactor").int(message.relayFactor).string("SourceNode").string(message.sourceNode)
    .string("Timeout").int(message.timeoutNs).finish();
}

/** Decodes a query; the reader stands after the type byte. */
export function decodeQuery(reader: MsgpackReader): QueryMessage {
  const message: QueryMessage = {
    ltime: 0,
    id: 0,
    addr: NO_BYTES,
    port: 0,
    sourceNode: "",
    filters: [],
    flags: 0,
    relayFactor: 0,
    timeoutNs: 0,
    name: "",
    payload: undefined,
  };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "LTime":
        message.ltime = reader.uint(MAX_TIME);
        break;
      case "ID":
        message.id = reader.uint(U32);
        break;
      case "Addr":
        message.addr = reader.copy(16) ?? NO_BYTES;
        break;
      case "Port":
        message.port = reader.uint(0xffff);
        break;
      case "SourceNode":
        message.sourceNode = reader.string();
        break;
      case "Filters": {
        const count = reader.array(LIMITS.filters) ?? 0;
        for (let i = 0; i < count; i++) message.filters.push(reader.copy(LIMITS.packetBytes) ?? NO_BYTES);
        break;
      }
      case "Flags":
        message.flags = reader.uint(U32);
        break;
      case "RelayFactor":
        message.relayFactor = reader.uint(255);
        break;
      case "Timeout":
        message.timeoutNs = Math.min(Math.max(reader.number(), 0), MAX_TIME);
        break;
      case "Name":
        message.name = reader.string(LIMITS.packetBytes);
        break;
      case "Payload":
        message.payload = reader.copy(LIMITS.packetBytes);
        break;
      default:
        reader.skip();
    }
  }
  if (Number.isNaN(message.timeoutNs)) throw new DecodeError("query", "the time-out is not a number");
  return message;
}

/** Encodes a query response, with its type byte. */
export function encodeQueryResponse(message: QueryResponseMessage): Uint8Array {
  return new MsgpackWriter().byte(SerfType.queryResponse).map(5).string("Flags").int(message.flags)
    .string("From").string(message.from).string("ID").int(message.id).string("LTime").int(message.ltime)
    .string("Payload").bytes(message.payload).finish();
}

/** Decodes a query response; the reader stands after the type byte. */
export function decodeQueryResponse(reader: MsgpackReader): QueryResponseMessage {
  const message: QueryResponseMessage = { ltime: 0, id: 0, from: "", flags: 0, payload: undefined };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "LTime":
        message.ltime = reader.uint(MAX_TIME);
        break;
      case "ID":
        message.id = reader.uint(U32);
        break;
      case "From":
        message.from = reader.string();
        break;
      case "Flags":
        message.flags = reader.uint(U32);
        break;
      case "Payload":
        message.payload = reader.copy(LIMITS.packetBytes);
        break;
      default:
        reader.skip();
    }
  }
  return message;
}
