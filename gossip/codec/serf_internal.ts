import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import type { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { SerfType } from "./serf_messages.ts";
import { NO_BYTES } from "./text.ts";

/** A member as a conflict response describes it. */
export interface MemberRecord {
  name: string;
  addr: Uint8Array;
  port: number;
  tags: ReadonlyMap<string, string>;
  status: number;
  protocolMin: number;
  protocolMax: number;
  protocolCur: number;
  delegateMin: number;
  delegateMax: number;
  delegateCur: number;
}

/** Answer to an internal key query. */
export interface KeyResponse {
  result: boolean;
  message: string;
  /** Standard base64. */
  keys: string[];
  primaryKey: string;
}

/** Head of a relayed message. */
export interface RelayHeader {
  addr: Uint8Array;
  port: number;
  zone: string;
  name: string;
}

/** Encodes a conflict response (the payload of a query response); undefined is an unknown member. */
export function encodeConflictResponse(member: MemberRecord | undefined): Uint8Array {
  const out = new MsgpackWriter().byte(SerfType.conflictResponse);
  if (member === undefined) return out.nil().finish();
  out.map(11).string("Addr").bytes(member.addr).string("DelegateCur").int(member.delegateCur)
    .string("DelegateMax").int(member.delegateMax).string("DelegateMin").int(member.delegateMin)
    .string("Name").string(member.name).string("Port").int(member.port)
    .string("ProtocolCur").int(member.protocolCur).string("ProtocolMax").int(member.protocolMax)
    .string("ProtocolMin").int(member.protocolMin).string("Status").int(member.status);
  out.string("Tags").map(member.tags.size);
  for (const [key, value] of member.tags) out.string(key).string(value);
  return out.finish();
}

/** Decodes a conflict response; the reader stands after the type byte. Undefined is "no such member". */
export function decodeConflictResponse(reader: MsgpackReader): MemberRecord | undefined {
  let entries = reader.map();
  if (entries === 0) return undefined;
  const tags = new Map<string, string>();
  const member: MemberRecord = {
    name: "",
    addr: NO_BYTES,
    port: 0,
    tags,
    status: 0,
    protocolMin: 0,
    protocolMax: 0,
    protocolCur: 0,
    delegateMin: 0,
    delegateMax: 0,
    delegateCur: 0,
  };
  for (; entries > 0; entries--) {
    switch (reader.string()) {
      case "Name":
        member.name = reader.string();
        break;
      case "Addr":
        member.addr = reader.copy(16) ?? NO_BYTES;
        break;
      case "Port":
        member.port = reader.uint(0xffff);
        break;
      case "Status":
        member.status = reader.uint(255);
        break;
      case "ProtocolMin":
        member.protocolMin = reader.uint(255);
        break;
      case "ProtocolMax":
        member.protocolMax = reader.uint(255);
        break;
      case "ProtocolCur":
        member.protocolCur = reader.uint(255);
        break;
      case "DelegateMin":
        member.delegateMin = reader.uint(255);
        break;
      case "DelegateMax":
        member.delegateMax = reader.uint(255);
        break;
      case "DelegateCur":
        member.delegateCur = reader.uint(255);
        break;
      case "Tags": {
        const count = reader.map();
        if (count > LIMITS.tags) throw new DecodeError("tags", `${count} exceed the limit of ${LIMITS.tags}`);
        for (let i = 0; i < count; i++) tags.set(reader.string(), reader.string());
        break;
      }
      default:
        reader.skip();
    }
  }
  return member;
}

/** Encodes a key request (the payload of a key query). An empty key lists the keys. */
export function encodeKeyRequest(key: Uint8Array): Uint8Array {
  return new MsgpackWriter().byte(SerfType.keyRequest).map(1).string("Key").bytes(key).finish();
}

/** Decodes a key request; the reader stands after the type byte. */
export function decodeKeyRequest(reader: MsgpackReader): Uint8Array {
  let key: Uint8Array = NO_BYTES;
  for (let entries = reader.map(); entries > 0; entries--) {
    if (reader.string() === "Key") key = reader.copy(LIMITS.nameBytes) ?? NO_BYTES;
    else reader.skip();
  }
  return key;
}

/** Encodes a key response (the payload of a query response). */
export function encodeKeyResponse(response: KeyResponse): Uint8Array {
  const out = new MsgpackWriter().byte(SerfType.keyResponse).map(4).string("Keys");
  if (response.keys.length === 0) out.nil();
  else {
    out.array(response.keys.length);
    for (const key of response.keys) out.string(key);
  }
  return out.string("Message").string(response.message).string("PrimaryKey").string(response.primaryKey)
    .string("Result").bool(response.result).finish();
}

/** Decodes a key response; the reader stands after the type byte. */
export function decodeKeyResponse(reader: MsgpackReader): KeyResponse {
  const response: KeyResponse = { result: false, message: "", keys: [], primaryKey: "" };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "Result":
        response.result = reader.bool();
        break;
      case "Message":
        response.message = reader.string(LIMITS.packetBytes);
        break;
      case "Keys": {
        const count = reader.array(LIMITS.keys) ?? 0;
        for (let i = 0; i < count; i++) response.keys.push(reader.string());
        break;
      }
      case "PrimaryKey":
        response.primaryKey = reader.string();
        break;
      default:
        reader.skip();
    }
  }
  return response;
}

/** Encodes a relay: a message that the receiver hands on to `to`. */
export function encodeRelay(to: RelayHeader, message: Uint8Array): Uint8Array {
  return new MsgpackWriter().byte(SerfType.relay).map(2)
    .string("DestAddr").map(3).string("IP").bytes(to.addr).string("Port").int(to.port).string("Zone").string(
      to.zone,
    )
    .string("DestName").string(to.name).verbatim(message).finish();
}

/** Decodes the head of a relay; the reader stands after the type byte, afterwards at the relayed message. */
export function decodeRelayHeader(reader: MsgpackReader): RelayHeader {
  const header: RelayHeader = { addr: NO_BYTES, port: 0, zone: "", name: "" };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "DestAddr":
        for (let fields = reader.map(); fields > 0; fields--) {
          switch (reader.string()) {
            case "IP":
              header.addr = reader.copy(16) ?? NO_BYTES;
              break;
            case "Port":
              header.port = reader.uint(0xffff);
              break;
            case "Zone":
              header.zone = reader.string();
              break;
            default:
              reader.skip();
          }
        }
        break;
      case "DestName":
        header.name = reader.string();
        break;
      default:
        reader.skip();
    }
  }
  if (header.addr.length !== 4 && header.addr.length !== 16) {
    throw new DecodeError("relay", `the address has ${header.addr.length} bytes`);
  }
  return header;
}
