import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  ClusterEvent,
  type ClusterMessage,
  ClusterMessageSchema,
  ErrorResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";

/** The original's envelope around every query and answer. */
export function encodeClusterMessage<S extends DescMessage>(
  event: ClusterEvent,
  schema: S,
  message: MessageShape<S>,
): Uint8Array<ArrayBuffer> {
  return toBinary(
    ClusterMessageSchema,
    create(ClusterMessageSchema, { event, wrappedMessage: anyPack(schema, message) }),
  );
}

/** An envelope that is there already. */
export function packMessage(message: ClusterMessage): Uint8Array<ArrayBuffer> {
  return toBinary(ClusterMessageSchema, message);
}

/**
 * Bytes of an answer to a query: Serf drops what makes a packet of more than 1 KiB, in which the name of the node that answers
 * and its own fields stand, too.
 */
export const MAX_ANSWER_BYTES = 800;
/** Bytes of a refusal's text. */
export const MAX_REFUSAL_BYTES = 512;

/** The beginning of a text, as much as fits; what is left out shows as `…`. */
export function cutText(text: string, maxBytes: number): string {
  if (new TextEncoder().encode(text).length <= maxBytes) return text;
  const bytes = new Uint8Array(Math.max(0, maxBytes - 3));
  const { read } = new TextEncoder().encodeInto(text, bytes);
  return `${text.slice(0, read)}…`;
}

/** A refusal in the original's envelope, cut where it would not fit an answer. */
export function encodeRefusal(error: string, node: string): Uint8Array<ArrayBuffer> {
  return encodeClusterMessage(
    ClusterEvent.ERROR,
    ErrorResponseSchema,
    create(ErrorResponseSchema, { error: cutText(error, MAX_REFUSAL_BYTES), node }),
  );
}

/** Reads an envelope; an Error value for what is none. */
export function decodeClusterMessage(payload: Uint8Array): ClusterMessage | Error {
  try {
    return fromBinary(ClusterMessageSchema, payload);
  } catch (cause) {
    return new Error(`Cannot read a cluster message: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

/** What is in the envelope, when it is of this type. */
export function unwrap<S extends DescMessage>(
  message: ClusterMessage,
  schema: S,
): (MessageShape<S> & Message) | undefined {
  try {
    return message.wrappedMessage && anyUnpack(message.wrappedMessage, schema);
  } catch {
    return undefined; // bytes that are not what their type says
  }
}
