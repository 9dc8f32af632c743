import { Compressor } from "./compress.ts";
import { DecodeError } from "./error.ts";
import { encodeLabelHeader, labelHeaderLength } from "./label.ts";
import { LIMITS } from "./limits.ts";
import { decodeAck, decodePing, decodeStreamError, encodeStreamError } from "./messages.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import type { Keyring } from "./keyring.ts";
import type { WrapOptions } from "./packet.ts";
import { decodePushPull, type PushPull } from "./push_pull.ts";
import { decodeUserHeader, StreamScan } from "./stream_scan.ts";
import { concatBytes, equalBytes, NO_BYTES } from "./text.ts";
import { type Ack, MessageType, type Ping } from "./types.ts";

/** What one direction of a stream carries. */
export type StreamMessage =
  & (
    | { kind: "pushPull"; message: PushPull }
    | { kind: "ping"; message: Ping }
    | { kind: "ack"; message: Ack }
    | { kind: "user"; message: Uint8Array }
    | { kind: "err"; message: string }
  )
  & {
    /** The key that it was sealed with. */
    key?: Uint8Array;
    /** Whether that key was removed from the ring: nothing in the message may be believed. */
    retired?: boolean;
  };

const FRAME_HEAD = 5;

/** Encodes a user message of a stream: its head and the bytes as they are. */
export function encodeUserStream(message: Uint8Array): Uint8Array {
  return new MsgpackWriter().byte(MessageType.user).map(1).string("UserMsgLen").int(message.length)
    .verbatim(message).finish();
}

/** Wraps and unwraps what goes over streams (section 1.8 of the protocol notes). */
export class StreamCodec {
  readonly #options: WrapOptions;
  readonly #labelHeader: Uint8Array;
  readonly #reader: MsgpackReader;
  #lazyCompressor: Compressor | undefined;

  constructor(options: WrapOptions) {
    this.#options = options;
    this.#reader = new MsgpackReader({ strings: options.claims?.strings });
    this.#labelHeader = encodeLabelHeader(options.label ?? "");
  }

  /** Its tables are large, and few cores that share a process need them. */
  get #compressor(): Compressor {
    return this.#lazyCompressor ??= new Compressor();
  }

  /**
   * The bytes of one message. Only the side that dials writes the label. `key` seals with an installed key other
   * than the primary: an answer uses the one that the request came with, so that who missed a rotation can read it.
   */
  seal(message: Uint8Array, options: { dialing: boolean; key?: Uint8Array }): Uint8Array {
    const { keyring, compression, verifyOutgoing, random } = this.#options;
    let out = compression ? this.#compressor.compress(message) : message;
    if (keyring && verifyOutgoing !== false) {
      const length = 1 + 12 + out.length + 16;
      const head = frameHead(length);
      const aad = concatBytes([head, this.#labelHeader.subarray(2)]);
      out = concatBytes([head, keyring.seal(out, { nonce: random.bytes(12), aad, key: options.key })]);
    }
    return options.dialing && this.#labelHeader.length > 0 ? concatBytes([this.#labelHeader, out]) : out;
  }

  /** The keys that seal, where anything is sealed. */
  get keyring(): Keyring | undefined {
    return this.#options.verifyOutgoing === false ? undefined : this.#options.keyring;
  }

  /** The answer to a stream that could not be read. */
  sealError(reason: string): Uint8Array {
    return this.seal(encodeStreamError(reason), { dialing: false });
  }

  /** A reader of one message. `accepted`: whether the peer dialled, so that it must have written our label. */
  reader(options: { accepted: boolean }): StreamReader {
    const scan = new StreamScan();
    return new StreamReader((bytes) => this.#tryOpen(bytes, options.accepted, scan));
  }

  /** The message in `bytes`, or undefined where more must come first. */
  #tryOpen(bytes: Uint8Array, accepted: boolean, scan: StreamScan): StreamMessage | undefined {
    let at = 0;
    if (accepted) {
      const header = labelHeaderLength(bytes);
      if (header === undefined) return undefined;
      if (!equalBytes(bytes.subarray(0, header), this.#labelHeader)) {
        throw new DecodeError("stream", "its label is another cluster's");
      }
      at = header;
    }
    if (at >= bytes.length) return undefined;
    const { keyring, verifyIncoming } = this.#options;
    if (bytes[at] === MessageType.encrypt) return this.#openFrame(bytes.subarray(at));
    if (keyring && verifyIncoming !== false) {
      throw new DecodeError("stream", "encryption is configured but remote state is not encrypted");
    }
    const plain = bytes.subarray(at);
    return scan.isComplete(plain) ? this.#decode(plain) : undefined;
  }

  #openFrame(bytes: Uint8Array): StreamMessage | undefined {
    const { keyring } = this.#options;
    if (!keyring) {
      throw new DecodeError("stream", "remote state is encrypted and encryption is not configured");
    }
    if (bytes.length < FRAME_HEAD) return undefined;
    const length = ((bytes[1] << 24) | (bytes[2] << 16) | (bytes[3] << 8) | bytes[4]) >>> 0;
    if (length > LIMITS.frameBytes) {
      throw new DecodeError(
        "stream",
        `the frame of ${length} bytes exceeds the limit of ${LIMITS.frameBytes}`,
      );
    }
    if (bytes.length < FRAME_HEAD + length) return undefined;
    const aad = concatBytes([bytes.subarray(0, FRAME_HEAD), this.#labelHeader.subarray(2)]);
    const opened = keyring.open(bytes.subarray(FRAME_HEAD, FRAME_HEAD + length), { aad, retired: true });
    if (opened === undefined) {
      throw new DecodeError("stream", "no key of the ring opens it", { sealed: true });
    }
    if (opened.plaintext.length === 0) throw new DecodeError("stream", "it holds no message");
    const { key, retired } = opened;
    return { ...this.#decode(opened.plaintext), key, ...(retired ? { retired } : {}) };
  }

  #decode(message: Uint8Array): StreamMessage {
    if (message[0] === MessageType.compress) {
      message = this.#compressor.decompress(message, LIMITS.streamBytes);
    }
    const reader = this.#reader.reset(message, 1);
    switch (message[0]) {
      case MessageType.pushPull:
        return { kind: "pushPull", message: decodePushPull(reader, this.#options.claims) };
      case MessageType.ping:
        return { kind: "ping", message: decodePing(reader) };
      case MessageType.ack:
        return { kind: "ack", message: decodeAck(reader) };
      case MessageType.user: {
        const length = decodeUserHeader(reader);
        if (length > reader.end - reader.at) {
          throw new DecodeError("user message", "the input ends inside it");
        }
        return { kind: "user", message: message.slice(reader.at, reader.at + length) };
      }
      case MessageType.err:
        return { kind: "err", message: decodeStreamError(reader) };
      default:
        throw new DecodeError("stream", `message type ${message[0]} is not one of streams`);
    }
  }
}

/** Collects the bytes of one stream until they are a message. Bounded by {@linkcode LIMITS}. */
export class StreamReader {
  #bytes: Uint8Array = NO_BYTES;
  #length = 0;
  readonly #tryOpen: (bytes: Uint8Array) => StreamMessage | undefined;

  constructor(tryOpen: (bytes: Uint8Array) => StreamMessage | undefined) {
    this.#tryOpen = tryOpen;
  }

  /** Takes the next bytes, whose memory the message may share; gives it once it is complete. Throws {@linkcode DecodeError}. */
  push(chunk: Uint8Array): StreamMessage | undefined {
    const limit = LIMITS.streamBytes;
    if (this.#length + chunk.length > limit) throw new DecodeError("stream", `it exceeds ${limit} bytes`);
    if (this.#length === 0) {
      // Most messages come in one piece, which need not be copied.
      const message = this.#tryOpen(chunk);
      if (message !== undefined) return message;
    }
    if (this.#length + chunk.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length + chunk.length, this.#bytes.length * 2, 4096));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(chunk, this.#length);
    this.#length += chunk.length;
    return this.#tryOpen(this.#bytes.subarray(0, this.#length));
  }
}

function frameHead(length: number): Uint8Array {
  const head = new Uint8Array(FRAME_HEAD);
  head[0] = MessageType.encrypt;
  new DataView(head.buffer).setUint32(1, length);
  return head;
}
