import { decodeCompound, encodeCompound, MAX_COMPOUND_PARTS } from "./compound.ts";
import type { Claims } from "./claims.ts";
import { Compressor } from "./compress.ts";
import { crc32 } from "./crc32.ts";
import { DecodeError } from "./error.ts";
import { ENCRYPTION_OVERHEAD, type Keyring } from "./keyring.ts";
import { encodeLabelHeader, labelHeaderLength } from "./label.ts";
import { LIMITS } from "./limits.ts";
import { concatBytes, sameBytes } from "./text.ts";
import { MessageType } from "./types.ts";
import type { Random } from "../random.ts";

/** How packets and streams are wrapped. */
export interface WrapOptions {
  random: Random;
  /** Absent means no encryption. */
  keyring?: Keyring;
  /** Keeps clusters apart; empty means none. */
  label?: string;
  /** Whether to compress what gets smaller. */
  compression?: boolean;
  /** Whether input that no key opens is refused (it is processed as plaintext otherwise). */
  verifyIncoming?: boolean;
  /** Whether output is sealed. */
  verifyOutgoing?: boolean;
  /** What the cores of one process have in common; absent means that each core keeps its own. */
  claims?: Claims;
}

const CRC_HEAD = 5;

/** Takes one message: the bytes of `packet` from `start`, its type byte, to `end`. */
export type MessageVisitor = (packet: Uint8Array, start: number, end: number) => void;

/** Wraps messages into packets and takes packets apart, in memberlist's order (section 1.2 of the protocol notes). */
export class PacketCodec {
  readonly #options: WrapOptions;
  readonly #labelHeader: Uint8Array;
  readonly #aad: Uint8Array | undefined;
  #lazyCompressor: Compressor | undefined;

  constructor(options: WrapOptions) {
    this.#options = options;
    this.#labelHeader = encodeLabelHeader(options.label ?? "");
    this.#aad = this.#labelHeader.length > 0 ? this.#labelHeader.subarray(2) : undefined;
  }

  /** Its tables are large, and few cores that share a process need them. */
  get #compressor(): Compressor {
    return this.#lazyCompressor ??= new Compressor();
  }

  /** Bytes that wrapping adds to a packet besides compound heads. */
  get overhead(): number {
    const sealed = this.#options.keyring && this.#options.verifyOutgoing !== false;
    return this.#labelHeader.length + (sealed ? ENCRYPTION_OVERHEAD : 0);
  }

  /** One packet of the messages. More than 255 go into nested compounds. */
  seal(messages: readonly Uint8Array[]): Uint8Array {
    let packet = join(messages);
    const { keyring, compression, verifyOutgoing, random } = this.#options;
    if (compression) {
      const smaller = this.#compressor.compress(packet);
      if (smaller.length < packet.length) packet = smaller;
    }
    if (keyring && verifyOutgoing !== false) {
      packet = keyring.seal(packet, { nonce: random.bytes(12), aad: this.#aad });
    }
    return this.#labelHeader.length > 0 ? concatBytes([this.#labelHeader, packet]) : packet;
  }

  /**
   * Calls `visit` with each message inside a packet, where it stands in that or in what was unwrapped from it. Throws
   * {@linkcode DecodeError}; messages before the damage have been visited then.
   */
  open(packet: Uint8Array, visit: MessageVisitor): void {
    if (packet.length === 0) throw new DecodeError("packet", "it is empty");
    let message = this.#takeLabel(packet);
    const { keyring, verifyIncoming } = this.#options;
    if (keyring) {
      const opened = keyring.open(message, { aad: this.#aad });
      if (opened !== undefined) message = opened.plaintext;
      else if (verifyIncoming !== false) throw new DecodeError("packet", "no key of the ring opens it");
    }
    let start = 0;
    if (message.length >= CRC_HEAD && message[0] === MessageType.hasCrc) {
      const stated = ((message[1] << 24) | (message[2] << 16) | (message[3] << 8) | message[4]) >>> 0;
      if (crc32(message, CRC_HEAD) !== stated) throw new DecodeError("packet", "the checksum is wrong");
      start = CRC_HEAD;
    }
    this.#dispatch(message, start, message.length, {
      visit,
      depth: LIMITS.nesting,
      room: { bytes: LIMITS.decompressedPacketBytes },
    });
  }

  #takeLabel(packet: Uint8Array): Uint8Array {
    const header = labelHeaderLength(packet);
    if (header === undefined) throw new DecodeError("packet", "it ends inside its label");
    if (!sameBytes(this.#labelHeader, packet, 0, header)) {
      throw new DecodeError("packet", "its label is another cluster's");
    }
    return header === 0 ? packet : packet.subarray(header);
  }

  #dispatch(
    bytes: Uint8Array,
    start: number,
    end: number,
    inside: { visit: MessageVisitor; depth: number; room: { bytes: number } },
  ): void {
    if (start >= end) throw new DecodeError("packet", "it holds no message");
    const { visit, depth, room } = inside;
    const type = bytes[start];
    if (type !== MessageType.compound && type !== MessageType.compress) return visit(bytes, start, end);
    if (depth === 0) throw new DecodeError("packet", "its wrappers are nested too deep");
    const deeper = { visit, depth: depth - 1, room };
    if (type === MessageType.compress) {
      // One bound for all that a packet unpacks to: a compound may hold hundreds of them.
      const inner = this.#compressor.decompress(bytes.subarray(start, end), room.bytes);
      room.bytes -= inner.length;
      return this.#dispatch(inner, 0, inner.length, deeper);
    }
    decodeCompound(bytes, start, end, (part, from, to) => {
      const inner = part[from];
      if (inner === MessageType.compound || inner === MessageType.compress) {
        this.#dispatch(part, from, to, deeper);
      } else visit(part, from, to);
    });
  }
}

function join(messages: readonly Uint8Array[]): Uint8Array {
  if (messages.length === 1) return messages[0];
  if (messages.length <= MAX_COMPOUND_PARTS) return encodeCompound(messages);
  const compounds: Uint8Array[] = [];
  for (let i = 0; i < messages.length; i += MAX_COMPOUND_PARTS) {
    compounds.push(encodeCompound(messages.slice(i, i + MAX_COMPOUND_PARTS)));
  }
  return encodeCompound(compounds);
}
