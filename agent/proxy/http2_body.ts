import type { ContentSink } from "./sink.ts";

/**
 * Content on its way into a Response. Each write waits until the client's flow control window has room, so that nothing
 * piles up here.
 */
export class ResponseBody implements ContentSink {
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  #controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  #wanted = Promise.withResolvers<void>();
  #ended = false;

  /** `onCancel` is called when the client has reset the stream or is gone. */
  constructor(onCancel: () => void) {
    // A write may not be waiting when the body fails.
    this.#wanted.promise.catch(() => {});
    this.stream = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#wanted.resolve(),
      cancel: () => {
        this.abandon();
        onCancel();
      },
    }, { highWaterMark: 0 });
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#wanted.promise;
    if (this.#ended) throw new DOMException("The client is gone", "AbortError");
    this.#wanted = Promise.withResolvers();
    this.#wanted.promise.catch(() => {});
    // A copy: the buffer is read into again while the frames wait for the client's window.
    this.#controller.enqueue(bytes.slice());
  }

  flush(): undefined {}

  /** The content is complete. */
  end(): void {
    if (this.#ended) return;
    this.#end(new Error("the body has ended"));
    this.#controller.close();
  }

  /** Nobody is left to read: a pending write rejects, and nothing more is said to the client. */
  abandon(): void {
    if (!this.#ended) this.#end(new DOMException("The client is gone", "AbortError"));
  }

  /** The content will never be complete: resets the stream, so that it does not look as if it were. */
  fail(reason: string): void {
    if (this.#ended) return;
    const error = new BrokenBody(reason);
    this.#end(error);
    this.#controller.error(error);
  }

  #end(error: Error): void {
    this.#ended = true;
    this.#wanted.reject(error);
  }
}

/** Why a response was cut. Deno's server prints what breaks a body on standard error; this keeps it to a line. */
class BrokenBody extends Error {
  [Symbol.for("Deno.customInspect")](): string {
    return `proxy: an HTTP/2 response was cut: ${this.message}`;
  }
}

/** Turns of the event loop within which what has arrived is read. */
const TURNS_TO_READ = 2;

/** The content of an HTTP/2 request. */
export class RequestBody {
  /** All of it has been read, or there is no more to come. */
  ended = false;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #first?: Promise<Uint8Array | undefined>;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /**
   * Whether there is no content at all; one that takes longer than `waitMs` to show its first byte counts as some, but not
   * where this thread was held up: its timers come before what has arrived meanwhile.
   */
  async isEmpty(waitMs: number): Promise<boolean> {
    this.#first = this.#next();
    this.#first.catch(() => {}); // read() will tell
    const waited = Promise.withResolvers<false>();
    let turns = TURNS_TO_READ;
    const next = () => turns-- > 0 ? timer = setTimeout(next, 0) : waited.resolve(false);
    let timer = setTimeout(next, waitMs);
    try {
      return await Promise.race([this.#first.then((chunk) => chunk === undefined), waited.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The next piece, undefined at the end. Rejects when the client has reset the stream or is gone. */
  read(): Promise<Uint8Array | undefined> {
    const first = this.#first;
    this.#first = undefined;
    return first ?? this.#next();
  }

  /** Reads what is left, `maxBytes` at most, and forgets it. */
  async discard(maxBytes: number): Promise<void> {
    let left = maxBytes;
    while (!this.ended && left > 0) left -= (await this.read())?.length ?? 0;
  }

  async #next(): Promise<Uint8Array | undefined> {
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (done) this.ended = true;
        if (done || value.length > 0) return value;
      }
    } catch (error) {
      this.ended = true;
      throw error;
    }
  }
}
