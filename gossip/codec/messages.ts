import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import type { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { NO_BYTES } from "./text.ts";
import {
  type Ack,
  type Alive,
  type Dead,
  type Draft,
  type IndirectPing,
  MessageType,
  type Nack,
  type Ping,
} from "./types.ts";
import type { Suspect } from "./types.ts";

const U32 = 0xffff_ffff;
const U16 = 0xffff;

/** Encodes a ping, with its type byte. */
export function encodePing(message: Ping): Uint8Array {
  const out = new MsgpackWriter().byte(MessageType.ping).map(2 + sourceFields(message));
  out.string("Node").string(message.node).string("SeqNo").int(message.seqNo);
  writeSource(out, message);
  return out.finish();
}

/** Encodes an indirect ping, with its type byte. */
export function encodeIndirectPing(message: IndirectPing): Uint8Array {
  const out = new MsgpackWriter().byte(MessageType.indirectPing).map(5 + sourceFields(message));
  out.string("Nack").bool(message.nack).string("Node").string(message.node);
  out.string("Port").int(message.port).string("SeqNo").int(message.seqNo);
  writeSource(out, message);
  return out.string("Target").bytes(message.target).finish();
}

/** Encodes an ack, with its type byte. */
export function encodeAck(message: Ack): Uint8Array {
  return new MsgpackWriter().byte(MessageType.ack).map(2).string("Payload").bytes(message.payload).string(
    "SeqNo",
  )
    .int(message.seqNo).finish();
}

/** Encodes a nack, with its type byte. */
export function encodeNack(message: Nack): Uint8Array {
  return new MsgpackWriter().byte(MessageType.nack).map(1).string("SeqNo").int(message.seqNo).finish();
}

/** Encodes a suspicion, with its type byte. */
export function encodeSuspect(message: Suspect): Uint8Array {
  return encodeAccusation(MessageType.suspect, message);
}

/** Encodes a death or a leave, with its type byte. */
export function encodeDead(message: Dead): Uint8Array {
  return encodeAccusation(MessageType.dead, message);
}

/** Encodes a node's word about itself, with its type byte. */
export function encodeAlive(message: Alive): Uint8Array {
  return new MsgpackWriter().byte(MessageType.alive).map(6)
    .string("Addr").bytes(message.addr).string("Incarnation").int(message.incarnation)
    .string("Meta").bytes(orNil(message.meta)).string("Node").string(message.node)
    .string("Port").int(message.port).string("Vsn").bytes(message.vsn).finish();
}

/** Encodes the error answer of a stream, with its type byte. */
export function encodeStreamError(reason: string): Uint8Array {
  return new MsgpackWriter().byte(MessageType.err).map(1).string("Error").string(reason).finish();
}

/** Decodes a ping; the reader stands after the type byte. */
export function decodePing(reader: MsgpackReader): Ping {
  const message: Ping = { seqNo: 0, node: "" };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "SeqNo":
        message.seqNo = reader.uint(U32);
        break;
      case "Node":
        message.node = reader.string();
        break;
      case "SourceAddr":
        message.sourceAddr = readAddress(reader);
        break;
      case "SourcePort":
        message.sourcePort = reader.uint(U16);
        break;
      case "SourceNode":
        message.sourceNode = reader.string();
        break;
      default:
        reader.skip();
    }
  }
  return message;
}

/** Decodes an indirect ping; the reader stands after the type byte. */
export function decodeIndirectPing(reader: MsgpackReader): IndirectPing {
  const message: IndirectPing = { seqNo: 0, node: "", target: NO_BYTES, port: 0, nack: false };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "SeqNo":
        message.seqNo = reader.uint(U32);
        break;
      case "Node":
        message.node = reader.string();
        break;
      case "Target":
        message.target = readAddress(reader) ?? NO_BYTES;
        break;
      case "Port":
        message.port = reader.uint(U16);
        break;
      case "Nack":
        message.nack = reader.bool();
        break;
      case "SourceAddr":
        message.sourceAddr = readAddress(reader);
        break;
      case "SourcePort":
        message.sourcePort = reader.uint(U16);
        break;
      case "SourceNode":
        message.sourceNode = reader.string();
        break;
      default:
        reader.skip();
    }
  }
  if (message.target.length === 0) throw new DecodeError("indirect ping", "the target has no address");
  return message;
}

/** Decodes an ack; the reader stands after the type byte. The payload shares memory with the input. */
export function decodeAck(reader: MsgpackReader): Ack {
  const message: Ack = { seqNo: 0 };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "SeqNo":
        message.seqNo = reader.uint(U32);
        break;
      case "Payload":
        message.payload = reader.view(LIMITS.packetBytes);
        break;
      default:
        reader.skip();
    }
  }
  return message;
}

/** Decodes a nack; the reader stands after the type byte. */
export function decodeNack(reader: MsgpackReader): Nack {
  const message: Nack = { seqNo: 0 };
  for (let entries = reader.map(); entries > 0; entries--) {
    if (reader.string() === "SeqNo") message.seqNo = reader.uint(U32);
    else reader.skip();
  }
  return message;
}

/** Decodes a suspicion, a death or a leave; the reader stands after the type byte. */
export function decodeAccusation(reader: MsgpackReader): Suspect {
  const message: Suspect = { incarnation: 0, node: "", from: "" };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "Incarnation":
        message.incarnation = reader.uint(U32);
        break;
      case "Node":
        message.node = reader.string();
        break;
      case "From":
        message.from = reader.string();
        break;
      default:
        reader.skip();
    }
  }
  return message;
}

/** What most nodes have in common. */
export interface CommonFields {
  meta: Uint8Array;
  vsn: Uint8Array;
}

const NOTHING_COMMON: CommonFields = { meta: NO_BYTES, vsn: NO_BYTES };

/**
 * Decodes a node's word about itself; the reader stands after the type byte. Byte fields share the input's memory, or
 * are those of `common` where they are equal.
 */
export function decodeAlive(reader: MsgpackReader, common = NOTHING_COMMON): Alive {
  const message: Draft<Alive> = {
    incarnation: 0,
    node: "",
    addr: NO_BYTES,
    port: 0,
    meta: NO_BYTES,
    vsn: NO_BYTES,
  };
  for (let entries = reader.map(); entries > 0; entries--) {
    const field = reader.string();
    if (field === "Node") message.node = reader.string();
    else if (!readAliveField(reader, message, { field, common })) reader.skip();
  }
  if (message.node === "") throw new DecodeError("alive", "the node has no name");
  return message;
}

/** Reads a field that alive messages and push/pull nodes share; false where `field` is none of them. */
export function readAliveField(
  reader: MsgpackReader,
  message: Draft<Alive>,
  of: { field: string; common?: CommonFields },
): boolean {
  const { field, common = NOTHING_COMMON } = of;
  switch (field) {
    case "Incarnation":
      message.incarnation = reader.uint(U32);
      return true;
    case "Addr":
      message.addr = readAddress(reader) ?? NO_BYTES;
      return true;
    case "Port":
      message.port = reader.uint(U16);
      return true;
    case "Meta":
      message.meta = reader.viewOr(common.meta, LIMITS.metaBytes) ?? NO_BYTES;
      return true;
    case "Vsn":
      message.vsn = reader.viewOr(common.vsn, 6) ?? NO_BYTES;
      return true;
    default:
      return false;
  }
}

/** Decodes the error answer of a stream; the reader stands after the type byte. */
export function decodeStreamError(reader: MsgpackReader): string {
  let reason = "";
  for (let entries = reader.map(); entries > 0; entries--) {
    if (reader.string() === "Error") reason = reader.string(LIMITS.streamMapBytes);
    else reader.skip();
  }
  return reason;
}

function readAddress(reader: MsgpackReader): Uint8Array | undefined {
  const addr = reader.view(16);
  if (addr === undefined || addr.length === 0) return undefined;
  if (addr.length !== 4 && addr.length !== 16) {
    throw new DecodeError("address", `it has ${addr.length} bytes`);
  }
  return addr;
}

function encodeAccusation(type: number, message: Suspect): Uint8Array {
  return new MsgpackWriter().byte(type).map(3).string("From").string(message.from)
    .string("Incarnation").int(message.incarnation).string("Node").string(message.node).finish();
}

function sourceFields(message: Ping): number {
  return (message.sourceAddr ? 1 : 0) + (message.sourcePort ? 1 : 0) + (message.sourceNode ? 1 : 0);
}

function writeSource(out: MsgpackWriter, message: Ping): void {
  if (message.sourceAddr) out.string("SourceAddr").bytes(message.sourceAddr);
  if (message.sourceNode) out.string("SourceNode").string(message.sourceNode);
  if (message.sourcePort) out.string("SourcePort").int(message.sourcePort);
}

/** Empty meta data goes as nil, as Go writes it. */
export function orNil(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.length === 0 ? undefined : bytes;
}
