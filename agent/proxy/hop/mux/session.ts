import { type BufferPool, LARGE_BUFFER_BYTES } from "../../buffers.ts";
import type { Conn } from "../../conn.ts";
import type { Deadlines, Watched } from "../../deadlines.ts";
import type { Source } from "../../source.ts";
import {
  Flag,
  type FrameHeader,
  FrameType,
  GOING_AWAY_NORMALLY,
  HEADER_BYTES,
  MuxProtocolError,
  readHeader,
} from "./frames.ts";
import { FrameWriter } from "./frame_writer.ts";
import { MuxStream, SessionLost, type StreamCarrier } from "./stream.ts";
import { ReceiveWindow, type WindowBudget } from "./windows.ts";

/** Streams of one session at a time. */
export const MAX_STREAMS = 256;
/** Shares of the time after which a silent peer is given up: it is asked, a new stream asks it, and none is opened any more. */
const ASK_SHARE = 4, ASK_NOW_SHARE = 20, SUSPECT_SHARE = 10;

/** What a {@linkcode MuxSession} is made of. */
export interface MuxSessionOptions {
  conn: Conn;
  buffers: BufferPool;
  /** Reads that connection; may hold what has come already. */
  source: Source;
  deadlines: Deadlines;
  /** Milliseconds, monotonic. */
  now: () => number;
  /** A peer that sends nothing for so long after it was asked is given up. */
  silenceMs: number;
  /** What the windows of all sessions of the worker may grow by. */
  budget: WindowBudget;
  /** Takes a stream that the other side opens, or refuses it by `false`; absent: it must open none. */
  onStream?: (stream: MuxStream) => boolean;
  /** There is a stream less, the other side goes away or has heard that this one does, or the session has failed. */
  onChange: () => void;
}

/**
 * Many streams on one connection, as the yamux specification (version 0) has it. One difference: the window of a stream grows while its
 * reader keeps up.
 */
export class MuxSession implements StreamCarrier, Watched {
  deadlineMs = Infinity;
  readonly buffers: BufferPool;
  /** The other side takes no more streams. */
  isGoingAway = false;
  /** The other side has heard that no more streams are taken, and has opened all that it will. */
  isAcknowledged = false;
  /** Why it is over. */
  failure?: Error;
  readonly #streams = new Map<number, MuxStream>();
  readonly #writer: FrameWriter;
  #nextId = 1;
  /** The header of the frame in hand, how much of its data is still to come, and for whom. */
  readonly #frame: FrameHeader = { type: 0, flags: 0, streamId: 0, length: 0 };
  #left = 0;
  #receiver?: MuxStream;
  /** Data has come before. */
  #isKept = false;
  #heardMs: number;
  /** When the question in flight was asked, by the clock of the deadlines and by the exact one. */
  #askedMs?: number;
  #askedAt = 0;
  #pings = 0;
  readonly #timing: { readonly now: () => number; roundTripMs: number };
  /** The ping behind the goodbye. */
  #goodbye?: number;

  constructor(private readonly options: MuxSessionOptions) {
    this.buffers = options.buffers;
    this.#timing = { now: options.now, roundTripMs: 0 };
    this.#writer = new FrameWriter(options.conn, (error) => this.fail(asError(error)));
    this.#heardMs = options.deadlines.nowMs;
    options.deadlines.add(this);
  }

  /** That are open. */
  get streams(): number {
    return this.#streams.size;
  }

  /** Nothing waits to be sent. */
  get isQuiet(): boolean {
    return this.#writer.isQuiet;
  }

  /** Whether a new stream may be opened, and is likely to be heard. */
  get isOpen(): boolean {
    return !this.failure && !this.isGoingAway && this.#streams.size < MAX_STREAMS && !this.isSuspect;
  }

  /** The other side owes an answer for longer than the network takes. */
  get isSuspect(): boolean {
    const { deadlines, silenceMs } = this.options;
    return this.#askedMs !== undefined && deadlines.nowMs - this.#askedMs >= silenceMs / SUSPECT_SHARE;
  }

  /** Opens a stream; nothing of it is sent before its first bytes. For the side that dialled, when the session {@linkcode MuxSession.isOpen}. */
  open(): MuxStream {
    this.askIfSilent();
    const stream = this.#add(this.#nextId, Flag.syn);
    this.#nextId += 2;
    return stream;
  }

  /** Asks the other side whether it is there, where nothing has been heard of it for a while. */
  askIfSilent(): void {
    const { deadlines, silenceMs } = this.options;
    if (deadlines.nowMs - this.#heardMs > silenceMs / ASK_NOW_SHARE) this.#ask();
  }

  /** Serves until the connection ends or is closed. Never rejects. */
  async run(): Promise<void> {
    const { source, deadlines, silenceMs } = this.options;
    this.deadlineMs = deadlines.nowMs + silenceMs / ASK_SHARE;
    this.#ask(); // how long a round trip takes
    source.resize(LARGE_BUFFER_BYTES);
    try {
      while (!this.failure) {
        this.#consume(source);
        const added = await source.fill();
        if (added === 0 && source.ended) throw new Error("the node closed the connection");
        await source.fillReady();
        this.#heardMs = deadlines.nowMs;
        this.#askedMs = undefined;
      }
    } catch (error) {
      this.fail(asError(error));
    }
    source.release();
  }

  /** Says that no more streams are taken; `onChange` is called when the other side {@linkcode MuxSession.isAcknowledged} it. */
  goAway(): void {
    this.#writer.frame({ type: FrameType.goAway, flags: 0, streamId: 0, length: GOING_AWAY_NORMALLY });
    this.#askedMs = undefined;
    this.#ask();
    this.#goodbye = this.#pings;
  }

  /** Ends it, and with it all streams; the connection is left to `onChange`. */
  fail(error: Error): void {
    if (this.failure) return;
    this.failure = error;
    this.options.deadlines.remove(this);
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.break(new SessionLost(error.message, stream.state.isOnKept));
    this.options.onChange();
  }

  /** Asks a peer that has been silent for long, and gives up one that does not answer. */
  onDeadline(): void {
    const { deadlines: { nowMs }, silenceMs } = this.options;
    if (this.#askedMs !== undefined && nowMs - this.#askedMs >= silenceMs) {
      return this.fail(new Deno.errors.TimedOut("the node is silent"));
    }
    if (nowMs - this.#heardMs >= silenceMs / ASK_SHARE) this.#ask();
    this.deadlineMs = Math.min(nowMs + silenceMs / ASK_SHARE, (this.#askedMs ?? Infinity) + silenceMs);
  }

  sendData(stream: MuxStream, bytes: Uint8Array, most: number): number {
    const count = Math.min(bytes.length, most, this.#writer.room);
    if (count <= 0) return 0;
    this.#sendOf(stream, FrameType.data, count, count === bytes.length ? bytes : bytes.subarray(0, count));
    return count;
  }

  drained(): Promise<void> {
    return this.#writer.drained();
  }

  consumed({ state }: MuxStream, bytes: number, isEmpty: boolean): void {
    const raise = state.window.consume(bytes, isEmpty, this.#timing);
    if (raise === 0) return;
    this.#writer.frame({
      type: FrameType.windowUpdate,
      flags: takeFlags(state),
      streamId: state.id,
      length: raise,
    });
  }

  sendEnd(stream: MuxStream): void {
    stream.state.flags |= Flag.fin;
    this.#sendOf(stream, FrameType.data, 0);
  }

  sendReset(stream: MuxStream): void {
    if (stream.state.flags & Flag.syn) return; // the other side has not heard of it
    stream.state.flags |= Flag.rst;
    this.#sendOf(stream, FrameType.windowUpdate, 0);
  }

  forget(stream: MuxStream): void {
    const { id } = stream.state;
    if (this.#streams.get(id) !== stream) return;
    this.#streams.delete(id);
    this.options.onChange();
  }

  #add(id: number, flags: number): MuxStream {
    const { budget, now } = this.options;
    const window = new ReceiveWindow(budget, now());
    const stream = new MuxStream(this, { id, flags, isOnKept: this.#isKept, window, session: this });
    this.#streams.set(id, stream);
    return stream;
  }

  #sendOf({ state }: MuxStream, type: number, length: number, content?: Uint8Array): void {
    this.#writer.frame({ type, flags: takeFlags(state), streamId: state.id, length }, content);
  }

  #ask(): void {
    if (this.#askedMs !== undefined) return;
    this.#askedMs = this.options.deadlines.nowMs;
    this.#askedAt = this.options.now();
    this.#writer.frame({ type: FrameType.ping, flags: Flag.syn, streamId: 0, length: ++this.#pings });
    this.deadlineMs = Math.min(this.deadlineMs, this.#askedMs + this.options.silenceMs);
  }

  /** Takes in all that has been read. */
  #consume(source: Source): void {
    const { buffer } = source;
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    while (source.buffered > 0 && !this.failure) {
      if (this.#left > 0) {
        this.#takeData(source);
      } else {
        if (source.buffered < HEADER_BYTES) return;
        readHeader(view, source.start, this.#frame);
        source.start += HEADER_BYTES;
        this.#takeFrame(this.#frame);
      }
    }
  }

  #takeFrame(frame: FrameHeader): void {
    switch (frame.type) {
      case FrameType.data:
      case FrameType.windowUpdate:
        return this.#takeStreamFrame(frame);
      case FrameType.ping:
        if (frame.flags & Flag.syn) this.#writer.frame({ ...frame, flags: Flag.ack });
        else this.#takeAnswer(frame.length);
        return;
      case FrameType.goAway:
        this.isGoingAway = true;
        // The answer to the ping behind it says that all have been opened: also those that had nothing to send yet.
        for (const stream of this.#streams.values()) {
          if (stream.state.flags & Flag.syn) this.#sendOf(stream, FrameType.windowUpdate, 0);
        }
        return this.options.onChange();
    }
  }

  #takeAnswer(ping: number): void {
    if (ping === this.#pings) this.#timing.roundTripMs = this.options.now() - this.#askedAt;
    if (this.#goodbye === undefined || ping < this.#goodbye) return;
    this.isAcknowledged = true;
    this.options.onChange();
  }

  #takeStreamFrame({ type, flags, streamId, length }: FrameHeader): void {
    const stream = flags & Flag.syn ? this.#accept(streamId) : this.#streams.get(streamId);
    const isData = type === FrameType.data;
    if (flags & Flag.rst) {
      this.#left = isData ? length : 0;
      this.#receiver = undefined;
      if (!stream) return;
      this.forget(stream);
      return stream.break(new Deno.errors.ConnectionReset("the node broke the stream off"));
    }
    if (!stream && (flags & Flag.syn || (isData && length > 0))) this.#refuse(streamId);
    if (!isData) stream?.widen(length);
    if (isData && length > 0) {
      if (stream?.isEnded) throw new MuxProtocolError(`stream ${streamId} sends more after its end`);
      if (stream && !stream.state.window.take(length)) {
        throw new MuxProtocolError(`stream ${streamId} sends more than it may`);
      }
      this.#receiver = stream;
      this.#left = length;
      this.#isKept = true;
    } else if (flags & Flag.fin) {
      stream?.receiveEnd();
    }
  }

  #takeData(source: Source): void {
    const count = Math.min(this.#left, source.buffered);
    const bytes = source.buffer.subarray(source.start, source.start + count);
    source.start += count;
    this.#left -= count;
    // It may have been closed within the frame.
    const receiver = this.#receiver && this.#streams.get(this.#receiver.state.id);
    receiver?.receive(bytes);
    if (this.#left > 0) return;
    if (this.#frame.flags & Flag.fin) receiver?.receiveEnd();
    this.#receiver = undefined;
  }

  #accept(id: number): MuxStream | undefined {
    const { onStream } = this.options;
    if (!onStream || id % 2 !== 1 || this.#streams.has(id)) {
      throw new MuxProtocolError(`stream ${id} must not be opened`);
    }
    if (this.#streams.size >= MAX_STREAMS) return undefined;
    const stream = this.#add(id, Flag.ack);
    if (onStream(stream)) return stream;
    this.forget(stream);
    return undefined;
  }

  #refuse(id: number): void {
    this.#writer.frame({ type: FrameType.windowUpdate, flags: Flag.rst, streamId: id, length: 0 });
  }
}

function takeFlags(state: MuxStream["state"]): number {
  const { flags } = state;
  state.flags = 0;
  return flags;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
