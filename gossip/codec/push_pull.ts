import type { Claims } from "./claims.ts";
import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import { orNil, readAliveField } from "./messages.ts";
import type { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { NO_BYTES } from "./text.ts";
import { type Draft, MessageType, NodeState, type PushPullNode } from "./types.ts";

/** A node's whole view: every node it knows and the opaque state of the layer above. */
export interface PushPull {
  /** First contact or reconnect, as opposed to periodic anti-entropy. */
  join: boolean;
  nodes: PushPullNode[];
  /** Shares memory with the input when decoded. Empty means none. */
  userState: Uint8Array;
}

/** Head of a push/pull. */
export interface PushPullHeader {
  join: boolean;
  nodes: number;
  userStateBytes: number;
}

/** Room for a header, and for an entry whose length is not known. */
const HEADER_BYTES = 64;
const ENTRY_BYTES = 160;

/** Encodes a push/pull, with its type byte. */
export function encodePushPull(message: PushPull): Uint8Array {
  let expected = HEADER_BYTES + message.userState.length;
  for (const node of message.nodes) expected += node.stateEntry?.length ?? ENTRY_BYTES;
  const out = new MsgpackWriter(expected).byte(MessageType.pushPull).map(3).string("Join").bool(message.join)
    .string("Nodes").int(message.nodes.length).string("UserStateLen").int(message.userState.length);
  for (const node of message.nodes) {
    if (node.stateEntry !== undefined) out.verbatim(node.stateEntry);
    else writeState(out, node);
  }
  return out.verbatim(message.userState).finish();
}

/** Encodes one node of a push/pull. */
export function encodeState(node: PushPullNode): Uint8Array {
  const out = new MsgpackWriter();
  writeState(out, node);
  return out.finish();
}

function writeState(out: MsgpackWriter, node: PushPullNode): void {
  out.map(7).string("Addr").bytes(node.addr).string("Incarnation").int(node.incarnation)
    .string("Meta").bytes(orNil(node.meta)).string("Name").string(node.node).string("Port").int(node.port)
    .string("State").int(node.state).string("Vsn").bytes(node.vsn);
}

/** Decodes the head of a push/pull; the reader stands after the type byte. */
export function decodePushPullHeader(reader: MsgpackReader): PushPullHeader {
  const header: PushPullHeader = { join: false, nodes: 0, userStateBytes: 0 };
  for (let entries = reader.map(); entries > 0; entries--) {
    switch (reader.string()) {
      case "Join":
        header.join = reader.bool();
        break;
      case "Nodes":
        header.nodes = reader.uint(LIMITS.pushPullNodes);
        break;
      case "UserStateLen":
        header.userStateBytes = reader.uint(LIMITS.userStateBytes);
        break;
      default:
        reader.skip();
    }
  }
  return header;
}

/**
 * Decodes a push/pull; the reader stands after the type byte. An entry that makes no sense (a name that is not text,
 * tags beyond the limit) is left out: it must not cost the others. Given `claims`, the living nodes come as such.
 */
export function decodePushPull(reader: MsgpackReader, claims?: Claims): PushPull {
  const header = decodePushPullHeader(reader);
  // A node's map takes at least one byte.
  if (header.nodes > reader.end - reader.at) throw new DecodeError("push/pull", "the input ends inside it");
  const nodes: PushPullNode[] = [];
  for (let i = 0; i < header.nodes; i++) {
    const start = reader.at;
    reader.skip();
    const node = decodeEntry(reader, { start, claims });
    if (node !== undefined) nodes.push(node);
  }
  if (header.userStateBytes > reader.end - reader.at) {
    throw new DecodeError("push/pull", "the input ends inside the user state");
  }
  const userState = reader.bytes.subarray(reader.at, reader.at + header.userStateBytes);
  reader.at += header.userStateBytes;
  return { join: header.join, nodes, userState };
}

/** The entry from `start` to where the reader stands, which it does again afterwards; undefined where it makes no sense. */
function decodeEntry(
  reader: MsgpackReader,
  options: { start: number; claims: Claims | undefined },
): PushPullNode | undefined {
  const { start, claims } = options;
  const end = reader.at;
  const known = claims?.fromState(reader.bytes, start, end);
  if (known !== undefined) return known;
  reader.at = start;
  try {
    const node = decodeNode(reader);
    return claims && node?.state === NodeState.alive ? claims.of(node) : node;
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return undefined;
  } finally {
    reader.at = end;
  }
}

function decodeNode(reader: MsgpackReader): PushPullNode | undefined {
  const node: Draft<PushPullNode> = {
    incarnation: 0,
    node: "",
    addr: NO_BYTES,
    port: 0,
    meta: NO_BYTES,
    vsn: NO_BYTES,
    state: NodeState.alive,
  };
  for (let entries = reader.map(); entries > 0; entries--) {
    const field = reader.string();
    if (field === "Name") {
      node.node = reader.string();
    } else if (field === "State") {
      node.state = reader.uint(NodeState.left) as NodeState;
    } else if (!readAliveField(reader, node, { field })) {
      reader.skip();
    }
  }
  return node.node === "" ? undefined : node;
}
