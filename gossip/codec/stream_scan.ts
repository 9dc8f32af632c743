import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { decodePushPullHeader } from "./push_pull.ts";
import { MessageType } from "./types.ts";

/**
 * Tells whether a growing plaintext stream holds its whole message yet. Remembers how far it got, so the work stays
 * linear however small the pieces come.
 */
export class StreamScan {
  readonly #reader = new MsgpackReader();
  /** Bytes known to be complete. */
  #at = 1;
  #nodesLeft: number | undefined;
  /** Length of the whole message once it is known. */
  #total: number | undefined;

  /** `bytes` is everything so far, the type byte first. Throws {@linkcode DecodeError} on what cannot get valid. */
  isComplete(bytes: Uint8Array): boolean {
    if (this.#total === undefined) {
      try {
        this.#advance(bytes);
      } catch (error) {
        if (!(error instanceof DecodeError) || !error.incomplete) throw error;
        const limit = bytes[0] === MessageType.compress ? LIMITS.streamBytes : LIMITS.streamMapBytes;
        if (bytes.length - this.#at > limit) throw new DecodeError("stream", "one of its maps is too large");
        return false;
      }
    }
    return this.#total !== undefined && bytes.length >= this.#total;
  }

  #advance(bytes: Uint8Array): void {
    const reader = this.#reader.reset(bytes, this.#at);
    switch (bytes[0]) {
      case MessageType.pushPull:
        return this.#advancePushPull(reader);
      case MessageType.user: {
        const length = decodeUserHeader(reader);
        this.#total = reader.at + length;
        return;
      }
      case MessageType.compress:
      case MessageType.ping:
      case MessageType.ack:
      case MessageType.err:
        reader.skip();
        this.#total = reader.at;
        return;
      default:
        throw new DecodeError("stream", `message type ${bytes[0]} is not one of streams`);
    }
  }

  #userBytes = 0;

  #advancePushPull(reader: MsgpackReader): void {
    if (this.#nodesLeft === undefined) {
      const header = decodePushPullHeader(reader);
      this.#nodesLeft = header.nodes;
      this.#userBytes = header.userStateBytes;
      this.#at = reader.at;
    }
    while (this.#nodesLeft > 0) {
      reader.skip();
      this.#at = reader.at;
      this.#nodesLeft--;
    }
    this.#total = this.#at + this.#userBytes;
  }
}

/** Decodes the head of a user message of a stream: the length of what follows. */
export function decodeUserHeader(reader: MsgpackReader): number {
  let length = 0;
  for (let entries = reader.map(); entries > 0; entries--) {
    if (reader.string() === "UserMsgLen") length = reader.uint(LIMITS.userStateBytes);
    else reader.skip();
  }
  return length;
}
