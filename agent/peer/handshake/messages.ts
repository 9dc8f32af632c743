import type { Refusal } from "./refusal.ts";
import { refusalCode, refusalOf } from "./refusal.ts";

/** Version of the handshake that is spoken here. */
export const HANDSHAKE_VERSION = 1;
/** Bytes before each message's body: its type, and the body's length (big-endian). */
export const HEADER_BYTES = 3;
/** Longest body, bytes. */
export const MAX_BODY_BYTES = 256;
/** Random bytes from each end. */
export const NONCE_BYTES = 32;
/** Bytes of an HMAC-SHA-256. */
export const PROOF_BYTES = 32;
/** Longest node id, bytes. */
export const MAX_NODE_ID_BYTES = 128;

/** What is printed and is no space; an id is put into logs and metrics as it is. */
const NODE_ID = /^[\x21-\x7e]{1,128}$/;

const TYPES = { hello: 1, challenge: 2, proof: 3, accept: 4, refuse: 5 } as const;

/** What an end says of itself. */
export interface Introduction {
  /** Whether it holds a cluster key, and wants a proof. */
  keyed: boolean;
  nonce: Uint8Array;
  nodeId: string;
}

/** A message of the handshake, in the order of their use; the client begins. */
export type Message =
  | { type: "hello"; version: number; introduction: Introduction }
  | { type: "challenge"; version: number; introduction: Introduction }
  /** Empty between nodes without a key. */
  | { type: "proof"; mac: Uint8Array }
  | { type: "accept"; mac: Uint8Array }
  /** Instead of a challenge or of an accept; the server closes after it. */
  | { type: "refuse"; refusal: Refusal };

/** Whether a text may be the id of a node. */
export function isNodeId(text: string): boolean {
  return NODE_ID.test(text);
}

/** A message as it goes over the wire. */
export function encodeMessage(message: Message): Uint8Array {
  const body = encodeBody(message);
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  bytes[0] = TYPES[message.type];
  new DataView(bytes.buffer).setUint16(1, body.length);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/** The length of the body behind a header; undefined where no message begins so. */
export function bodyLength(header: Uint8Array): number | undefined {
  if (header.length !== HEADER_BYTES || header[0] < TYPES.hello || header[0] > TYPES.refuse) return undefined;
  const length = header[1] << 8 | header[2];
  return length > MAX_BODY_BYTES ? undefined : length;
}

/** The message in a header and body; undefined where it is none. */
export function decodeMessage(bytes: Uint8Array): Message | undefined {
  if (bodyLength(bytes.subarray(0, HEADER_BYTES)) !== bytes.length - HEADER_BYTES) return undefined;
  const body = bytes.subarray(HEADER_BYTES);
  switch (bytes[0]) {
    case TYPES.hello:
    case TYPES.challenge: {
      const type = bytes[0] === TYPES.hello ? "hello" : "challenge";
      if (body.length < 1) return undefined;
      // What follows in other versions is theirs; who reads it looks at the version first.
      if (body[0] !== HANDSHAKE_VERSION) return { type, version: body[0], introduction: UNKNOWN };
      const introduction = decodeIntroduction(body.subarray(1));
      return introduction && { type, version: body[0], introduction };
    }
    case TYPES.proof:
    case TYPES.accept:
      if (body.length !== 0 && body.length !== PROOF_BYTES) return undefined;
      return { type: bytes[0] === TYPES.proof ? "proof" : "accept", mac: body };
    default:
      return body.length === 1 ? { type: "refuse", refusal: refusalOf(body[0]) } : undefined;
  }
}

const UNKNOWN: Introduction = { keyed: false, nonce: new Uint8Array(), nodeId: "" };

function encodeBody(message: Message): Uint8Array {
  switch (message.type) {
    case "hello":
    case "challenge": {
      const { keyed, nonce, nodeId } = message.introduction;
      if (!isNodeId(nodeId) || nonce.length !== NONCE_BYTES) {
        throw new Error(`Cannot introduce node "${nodeId}": the id or the nonce is not valid`);
      }
      return Uint8Array.of(message.version, keyed ? 1 : 0, ...nonce, ...new TextEncoder().encode(nodeId));
    }
    case "proof":
    case "accept":
      return message.mac;
    case "refuse":
      return Uint8Array.of(refusalCode(message.refusal));
  }
}

function decodeIntroduction(bytes: Uint8Array): Introduction | undefined {
  if (bytes.length < 1 + NONCE_BYTES || bytes[0] > 1) return undefined;
  const nodeId = String.fromCharCode(...bytes.subarray(1 + NONCE_BYTES));
  if (!isNodeId(nodeId)) return undefined;
  return { keyed: bytes[0] === 1, nonce: bytes.subarray(1, 1 + NONCE_BYTES), nodeId };
}
