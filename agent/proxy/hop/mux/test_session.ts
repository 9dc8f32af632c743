import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { BufferPool } from "../../buffers.ts";
import { Deadlines, type Watched } from "../../deadlines.ts";
import { Source } from "../../source.ts";
import { FrameType, HEADER_BYTES } from "./frames.ts";
import { MuxSession } from "./session.ts";
import type { MuxStream } from "./stream.ts";
import { pipe, type PipeEnd, type PipeOptions, settled } from "./test_pipe.ts";
import { MAX_GROWTH_BYTES, WindowBudget } from "./windows.ts";

/** A peer that is silent for so long is given up. */
export const SILENCE_MS = 20_000;
const SWEEP_MS = 100;

/** Knows which buffers are out, and spoils those that come back. */
export class OwnedPool extends BufferPool {
  readonly taken = new Set<Uint8Array>();

  override takeSmall(): Uint8Array<ArrayBuffer> {
    return this.#take(super.takeSmall());
  }

  override takeLarge(): Uint8Array<ArrayBuffer> {
    return this.#take(super.takeLarge());
  }

  override give(buffer: Uint8Array<ArrayBuffer>): void {
    assert.ok(this.taken.delete(buffer), "a buffer is given back by one who does not own it");
    buffer.fill(0xee);
    super.give(buffer);
  }

  #take(buffer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    this.taken.add(buffer);
    return buffer;
  }
}

/** Knows whom it watches. */
class KnownDeadlines extends Deadlines {
  readonly watched = new Set<Watched>();

  override add(watched: Watched): void {
    this.watched.add(watched);
    super.add(watched);
  }

  override remove(watched: Watched): void {
    this.watched.delete(watched);
    super.remove(watched);
  }
}

/** Time that passes when it is told to, and the deadlines in it. */
export class TestTime {
  nowMs = 0;
  readonly now = () => this.nowMs;
  readonly deadlines = new KnownDeadlines({ sweepMs: SWEEP_MS, now: this.now });

  constructor() {
    this.deadlines.stop(); // swept by hand
  }

  /** Lets it pass, with all that happens meanwhile. */
  async pass(ms: number): Promise<void> {
    for (const untilMs = this.nowMs + ms; this.nowMs < untilMs;) {
      this.nowMs += SWEEP_MS;
      this.deadlines.sweep();
      await settled();
    }
  }
}

/** What sessions of one test share. */
export class Worker {
  readonly time = new TestTime();
  readonly pool = new OwnedPool();
  readonly budget = new WindowBudget();
  readonly #ends: { conn: PipeEnd; session: MuxSession; ended: Promise<void> }[] = [];

  /** A session on `conn`, which it closes when it fails; streams that are opened by the other side go into `accepted`. */
  session(conn: PipeEnd, accepted?: MuxStream[], accepts: () => boolean = () => true): MuxSession {
    const { pool, time: { deadlines, now }, budget } = this;
    const session: MuxSession = new MuxSession({
      conn,
      buffers: pool,
      source: new Source(conn, pool),
      deadlines,
      now,
      silenceMs: SILENCE_MS,
      budget,
      onStream: accepted && ((stream) => accepts() && accepted.push(stream) > 0),
      onChange: () => {
        if (session.failure && !conn.isClosed) conn.close();
      },
    });
    this.#ends.push({ conn, session, ended: session.run() });
    return session;
  }

  /** A session that opens streams, and one that takes them. */
  pair(options?: PipeOptions) {
    const [conn, serverConn] = pipe(options);
    const accepted: MuxStream[] = [];
    const dialler = this.session(conn);
    const server = this.session(serverConn, accepted);
    /** A stream, and what the other side has of it once `first` has come and been read. */
    const open = async (first = "hello"): Promise<[MuxStream, MuxStream]> => {
      const stream = dialler.open();
      await stream.write(ascii(first));
      await settled();
      const other = accepted.at(-1)!;
      assert.equal(await readText(other, first.length), first);
      return [stream, other];
    };
    return { conn, serverConn, dialler, server, accepted, open };
  }

  /** A session against bytes that the test makes, dialled by the test unless `accepts` is false. */
  raw({ accepts = true, piece }: { accepts?: boolean; piece?: () => number } = {}) {
    const [conn, peerConn] = pipe({ piece });
    const accepted: MuxStream[] = [];
    return {
      peer: new RawPeer(peerConn),
      session: this.session(conn, accepts ? accepted : undefined),
      accepted,
    };
  }

  /** Ends all sessions, and requires that nothing of them is left. */
  async end(): Promise<void> {
    for (const { session } of this.#ends) session.fail(new Error("the test is over"));
    for (const { conn, ended } of this.#ends) {
      if (!conn.isClosed) conn.close();
      await ended;
    }
    await settled();
    assert.equal(this.pool.taken.size, 0, "buffers that nobody has given back");
    assert.equal(this.budget.leftBytes, MAX_GROWTH_BYTES, "the budget is whole");
    assert.equal(this.time.deadlines.watched.size, 0, "sessions that are watched yet");
  }
}

/** A frame as a peer sends it. */
export interface RawFrame {
  version?: number;
  type: number;
  flags?: number;
  id?: number;
  length?: number;
  content?: string;
}

/** The bytes of a frame, by the specification alone: version, type, flags (16 bits), stream (32), length (32). */
export function rawFrame(frame: RawFrame): Uint8Array {
  const { version = 0, type, flags = 0, id = 0, content = "" } = frame;
  const { length = content.length } = frame;
  const number = (value: number) => [value >>> 24, value >>> 16 & 0xff, value >>> 8 & 0xff, value & 0xff];
  return Uint8Array.from([
    version,
    type,
    flags >> 8,
    flags & 0xff,
    ...number(id),
    ...number(length),
    ...ascii(content),
  ]);
}

/** The other side, by hand. */
export class RawPeer {
  /** Until this end is closed. */
  readonly ended: Promise<void>;
  readonly #pieces: Uint8Array[] = [];

  constructor(readonly conn: PipeEnd) {
    this.ended = this.#read();
  }

  /** Sends, and lets it be taken in. */
  async send(...frames: RawFrame[]): Promise<void> {
    await this.sendBytes(Uint8Array.from(frames.flatMap((frame) => [...rawFrame(frame)])));
    await settled();
  }

  async sendBytes(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && !this.conn.isClosed;) {
      at += await this.conn.write(bytes.subarray(at)).catch(() => bytes.length);
    }
  }

  /** The frames that have come since it was asked last, but for pings. */
  async frames(): Promise<Required<RawFrame>[]> {
    return (await this.allFrames()).filter(({ type }) => type !== FrameType.ping);
  }

  async allFrames(): Promise<Required<RawFrame>[]> {
    await settled();
    const bytes = Buffer.concat(this.#pieces);
    const frames: Required<RawFrame>[] = [];
    let at = 0;
    while (at + HEADER_BYTES <= bytes.length) {
      const [version, type, flags] = [bytes[at], bytes[at + 1], bytes.readUInt16BE(at + 2)];
      const [id, length] = [bytes.readUInt32BE(at + 4), bytes.readUInt32BE(at + 8)];
      const end = at + HEADER_BYTES + (type === FrameType.data ? length : 0);
      if (end > bytes.length) break;
      frames.push({
        version,
        type,
        flags,
        id,
        length,
        content: bytes.toString("latin1", at + HEADER_BYTES, end),
      });
      at = end;
    }
    this.#pieces.splice(0, Infinity, bytes.subarray(at));
    return frames;
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const into = new Uint8Array(65_536);
        const count = await this.conn.read(into);
        if (count === null) return;
        this.#pieces.push(into.subarray(0, count));
      }
    } catch {
      // Closed.
    }
  }
}

export function ascii(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

/** Reads so many bytes, or to the end. */
export async function readText(stream: MuxStream, bytes = Infinity): Promise<string> {
  let text = "";
  while (text.length < bytes) {
    const into = new Uint8Array(Math.min(bytes - text.length, 65_536));
    const count = await stream.read(into);
    if (count === null) break;
    text += String.fromCharCode(...into.subarray(0, count));
  }
  return text;
}

/** Whether a promise is still pending when all that can go on has gone on. */
export async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let isDone = false;
  const done = () => void (isDone = true);
  promise.then(done, done);
  await settled();
  return !isDone;
}
