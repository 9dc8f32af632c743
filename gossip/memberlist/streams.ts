import type { DecodeError } from "../codec/error.ts";
import { encodeAck, encodePing } from "../codec/messages.ts";
import type { StreamMessage } from "../codec/stream.ts";
import { encodeUserStream } from "../codec/stream.ts";
import type { Endpoint } from "../endpoint.ts";
import type { Context } from "./context.ts";
import type { Node } from "./node.ts";

/** Streams dialled and not finished; more fail at once. */
export const MAX_DIALS = 128;

/** How a dialled stream ended. */
export type DialResult =
  | { message: StreamMessage | undefined }
  /** `refused`: the keys do not fit, or the peer says that it does not want this. */
  | { error: string; refused?: boolean };

/** The streams of one core: what it dials and how each ended. */
export class Streams {
  readonly #ctx: Context;
  readonly #open = new Map<number, (result: DialResult) => void>();
  #lastId = 0;

  constructor(ctx: Context) {
    this.#ctx = ctx;
  }

  /** Streams dialled and not finished. */
  get open(): number {
    return this.#open.size;
  }

  /** Sends `message` over a stream of its own; `done` gets the answer where one is wanted. */
  dial(
    to: Endpoint,
    message: Uint8Array,
    options: { reply: boolean; timeoutMs: number; key?: Uint8Array },
    done: (result: DialResult) => void,
  ): void {
    const { streams, effects, counters } = this.#ctx;
    if (this.#open.size >= MAX_DIALS) {
      counters.limited++;
      return done({ error: `${MAX_DIALS} streams are open already` });
    }
    const id = ++this.#lastId;
    this.#open.set(id, done);
    counters.streamsDialed++;
    const request = streams.seal(message, { dialing: true, key: options.key });
    effects.push({ kind: "dial", id, to, request, reply: options.reply, timeoutMs: options.timeoutMs });
  }

  /** The driver's word on a stream that the core dialled. */
  dialed(id: number, result: DialResult): void {
    const done = this.#open.get(id);
    if (done === undefined) return;
    this.#open.delete(id);
    if ("error" in result) this.#ctx.counters.streamsFailed++;
    if ("message" in result && result.message?.kind === "err") {
      return done({ error: `the peer says: ${result.message.message}`, refused: true });
    }
    done(result);
  }

  /** Pings a node by stream, as the last resort of a probe. */
  ping(node: Node, options: { seqNo: number; endMs: number }, answered: () => void): void {
    const { self, config, nowMs } = this.#ctx;
    const ping = encodePing({
      seqNo: options.seqNo,
      node: node.name,
      sourceAddr: self.endpoint.addr,
      sourcePort: self.endpoint.port,
      sourceNode: config.name,
    });
    this.dial(
      node.endpoint,
      ping,
      { reply: true, timeoutMs: Math.max(1, options.endMs - nowMs) },
      (result) => {
        if (!("message" in result) || result.message?.kind !== "ack") return;
        if (result.message.message.seqNo === options.seqNo) answered();
      },
    );
  }

  /** Sends a Serf message by stream, for what does not fit a packet. */
  sendUser(to: Endpoint, message: Uint8Array, done: (error: string | undefined) => void): void {
    const options = { reply: false, timeoutMs: this.#ctx.config.tcpTimeoutMs };
    this.dial(
      to,
      encodeUserStream(message),
      options,
      (result) => done("error" in result ? result.error : undefined),
    );
  }

  /** Answers an accepted stream; without a message just closes it. `key` is the one that the request came with. */
  answer(id: number, message?: Uint8Array, key?: Uint8Array): void {
    const bytes = message && this.#ctx.streams.seal(message, { dialing: false, key });
    this.#ctx.effects.push({ kind: "answer", id, bytes });
  }

  /** Answers a ping that came by stream. */
  answerPing(id: number, request: StreamMessage & { kind: "ping" }): void {
    const { node, seqNo } = request.message;
    if (node !== "" && node !== this.#ctx.config.name) return this.answer(id);
    this.answer(id, encodeAck({ seqNo }), request.key);
  }

  /** Answers a stream that could not be read. */
  answerBad(id: number, error: DecodeError): void {
    this.#ctx.counters.streamsFailed++;
    this.#ctx.effects.push({ kind: "answer", id, bytes: this.#ctx.streams.sealError(error.message) });
  }
}
