import type { BufferPool } from "../../buffers.ts";
import type { Conn } from "../../conn.ts";
import { ByteQueue } from "./byte_queue.ts";
import { INITIAL_WINDOW_BYTES } from "./frames.ts";
import type { ReceiveWindow } from "./windows.ts";

/** The connection below has gone. */
export class SessionLost extends Deno.errors.ConnectionReset {
  /** `wasKept`: it had been of use before the stream was opened, so it may have been stale. */
  constructor(message: string, readonly wasKept: boolean) {
    super(message);
  }
}

/** What a stream needs of its session. */
export interface StreamCarrier {
  /** What has come and is not read yet waits in these. */
  readonly buffers: BufferPool;
  /** Sends as much as there is room for, at most `most` bytes; how many. */
  sendData(stream: MuxStream, bytes: Uint8Array, most: number): number;
  /** Resolves when there may be room again. */
  drained(): Promise<void>;
  /** Content has been read; the other side is told when it is enough to be worth it. */
  consumed(stream: MuxStream, bytes: number, isEmpty: boolean): void;
  sendEnd(stream: MuxStream): void;
  sendReset(stream: MuxStream): void;
  /** It is over in both directions, and all that came has been read. May be told more than once. */
  forget(stream: MuxStream): void;
}

/** What a session keeps with each stream. */
export interface StreamState {
  readonly id: number;
  /** Sent with the next frame. */
  flags: number;
  /** The session had been of use when the stream was opened. */
  readonly isOnKept: boolean;
  readonly window: ReceiveWindow;
  readonly session: {
    /** The other side takes no more streams, and ends those that nobody uses. */
    readonly isGoingAway: boolean;
    /** The other side has not answered for too long. */
    readonly isSuspect: boolean;
    askIfSilent(): void;
  };
}

interface PendingRead {
  into: Uint8Array;
  resolve: (count: number | null) => void;
  reject: (error: unknown) => void;
}

/** One stream of a session: read and written like a connection. Errors are those of a `Deno.Conn`. */
export class MuxStream implements Conn {
  readonly #unread: ByteQueue;
  #pending?: PendingRead;
  /** The other side sends no more. */
  #isEnded = false;
  #isWriteClosed = false;
  /** What was written waits, and with it the end behind it. */
  #isWriting = false;
  #isClosed = false;
  /** Why it is over; what had come before can still be read. */
  #failure?: Error;
  /** What may be sent at present. */
  #sendWindow = INITIAL_WINDOW_BYTES;
  /** It takes more, or it is over. */
  #changed?: PromiseWithResolvers<void>;

  constructor(private readonly carrier: StreamCarrier, readonly state: StreamState) {
    this.#unread = new ByteQueue(carrier.buffers);
  }

  /** Whether it is good for another request. One whose window has grown is not: others shall have the room. */
  get isReusable(): boolean {
    const { session, window } = this.state;
    return !session.isGoingAway && !session.isSuspect && !window.hasGrown;
  }

  /** Before another request: whether somebody is there, where nothing has been heard for a while. */
  askIfSilent(): void {
    this.state.session.askIfSilent();
  }

  /** The other side has said that it sends no more. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.#unread.length > 0) return Promise.resolve(this.#take(into));
    if (this.#isEnded && !this.#isClosed) return Promise.resolve(null);
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#pending) return Promise.reject(new Deno.errors.Busy("another read is in flight"));
    return new Promise((resolve, reject) => {
      this.#pending = { into, resolve, reject };
    });
  }

  /** Takes all of it, however long that takes. One at a time. */
  write(bytes: Uint8Array): Promise<number> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#isWriteClosed) return Promise.reject(new Deno.errors.BrokenPipe("the stream has been ended"));
    if (this.#isWriting) return Promise.reject(new Deno.errors.Busy("another write is in flight"));
    const count = this.#send(bytes);
    return count === bytes.length ? Promise.resolve(count) : this.#sendRest(bytes, count);
  }

  /** Ends the sending direction behind all that was written. */
  closeWrite(): Promise<void> {
    if (!this.#isWriteClosed && !this.#failure) {
      this.#isWriteClosed = true;
      if (!this.#isWriting) this.#sendEnd();
    }
    return Promise.resolve();
  }

  /** Ends it behind all that was written; what still comes is dropped. Breaks it off while a write is in flight. */
  end(): void {
    if (this.#isWriting) return this.close();
    this.closeWrite();
    this.#close();
  }

  /** Breaks it off, unless both sides have ended it. */
  close(): void {
    if (!this.#failure && !this.#isOver) this.carrier.sendReset(this);
    this.#close();
  }

  /** Content has come. */
  receive(bytes: Uint8Array): void {
    const pending = this.#pending;
    if (!pending) return this.#unread.push(bytes);
    this.#pending = undefined;
    const { into } = pending;
    const count = Math.min(bytes.length, into.length);
    if (count === bytes.length) {
      into.set(bytes);
    } else {
      into.set(bytes.subarray(0, count));
      this.#unread.push(bytes.subarray(count));
    }
    this.carrier.consumed(this, count, count === bytes.length);
    pending.resolve(count);
  }

  /** The other side sends no more. */
  receiveEnd(): void {
    this.#isEnded = true;
    this.#pending?.resolve(null);
    this.#pending = undefined;
    this.#letGoWhenOver();
  }

  /** The other side takes so many bytes more. */
  widen(bytes: number): void {
    this.#sendWindow += bytes;
    this.#wake();
  }

  /** The other side has broken it off, or the session has ended. */
  break(error: Error): void {
    this.#fail(error);
  }

  /** Both sides have said that they send no more. */
  get #isOver(): boolean {
    return this.#isEnded && this.#isWriteClosed && !this.#isWriting;
  }

  #close(): void {
    this.#isClosed = true;
    this.#unread.clear();
    this.#fail(new Deno.errors.BadResource("the stream has been closed"));
  }

  /** The first reason stays. */
  #fail(error: Error): void {
    this.#failure ??= error;
    this.#pending?.reject(this.#failure);
    this.#pending = undefined;
    this.#wake();
    this.#letGoWhenOver();
  }

  /** Until then it is one of the session's, and what it may hold is counted. */
  #letGoWhenOver(): void {
    if (this.#unread.length > 0 || !(this.#failure || this.#isOver)) return;
    this.state.window.close();
    this.carrier.forget(this);
  }

  #wake(): void {
    this.#changed?.resolve();
    this.#changed = undefined;
  }

  #send(bytes: Uint8Array): number {
    const count = this.#sendWindow > 0 ? this.carrier.sendData(this, bytes, this.#sendWindow) : 0;
    this.#sendWindow -= count;
    return count;
  }

  async #sendRest(bytes: Uint8Array, sent: number): Promise<number> {
    this.#isWriting = true;
    for (let at = sent; at < bytes.length;) {
      const count = this.#send(bytes.subarray(at));
      at += count;
      // Whoever waits as well comes first.
      if (at < bytes.length) await (count > 0 ? undefined : this.#changedOrDrained());
      if (this.#failure) throw this.#failure;
    }
    this.#isWriting = false;
    if (this.#isWriteClosed) this.#sendEnd();
    return bytes.length;
  }

  #changedOrDrained(): Promise<void> {
    const { promise } = this.#changed ??= Promise.withResolvers();
    return this.#sendWindow === 0 ? promise : Promise.race([promise, this.carrier.drained()]);
  }

  #sendEnd(): void {
    this.carrier.sendEnd(this);
    this.#letGoWhenOver();
  }

  #take(into: Uint8Array): number {
    const count = this.#unread.shift(into);
    if (this.#isEnded || this.#failure) this.#letGoWhenOver();
    else this.carrier.consumed(this, count, this.#unread.length === 0);
    return count;
  }
}
