import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import { LzwDecoder, LzwEncoder } from "./lzw.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { MessageType } from "./types.ts";

/** The only algorithm there is. */
const LZW = 0;

/** Packs and unpacks the compress wrapper. Keeps the tables of the algorithm, so one serves a whole core. */
export class Compressor {
  readonly #encoder = new LzwEncoder();
  readonly #decoder = new LzwDecoder();
  readonly #reader = new MsgpackReader();

  /** `message` in a compress wrapper, with its type byte. */
  compress(message: Uint8Array): Uint8Array {
    return new MsgpackWriter().byte(MessageType.compress).map(2).string("Algo").int(LZW)
      .string("Buf").bytes(this.#encoder.encode(message)).finish();
  }

  /** The message inside a compress wrapper (with its type byte) of at most `limit` bytes. */
  decompress(wrapped: Uint8Array, limit: number): Uint8Array {
    const reader = this.#reader.reset(wrapped, 1);
    let algorithm: number = LZW;
    let buffer: Uint8Array | undefined;
    for (let entries = reader.map(); entries > 0; entries--) {
      const field = reader.string();
      if (field === "Algo") algorithm = reader.uint(255);
      else if (field === "Buf") buffer = reader.view(LIMITS.streamBytes);
      else reader.skip();
    }
    if (algorithm !== LZW) throw new DecodeError("compress", `algorithm ${algorithm} is unknown`);
    if (buffer === undefined) throw new DecodeError("compress", "there is no data");
    const message = this.#decoder.decode(buffer, limit);
    if (message.length === 0) throw new DecodeError("compress", "it holds no message");
    return message;
  }
}
