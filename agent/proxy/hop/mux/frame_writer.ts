import type { Conn } from "../../conn.ts";
import { writeAll } from "../../sink.ts";
import { type FrameHeader, HEADER_BYTES, writeHeader } from "./frames.ts";

/** Data waits for the connection beyond this. What is said of streams and of the session does not; it is little. */
export const MAX_HELD_BYTES = 128 * 1024;
/** Of data and all else together: a peer that makes us hold more does not read what it asks for. */
export const MAX_UNSENT_BYTES = 1024 * 1024;
/** Promises that are let run first, so that what several streams write at a time goes out in one piece. */
const GATHERING_TURNS = 12;

/** The sending side of a session: frames are put together, and go out as fast as the connection takes them. */
export class FrameWriter {
  #buffer = new Uint8Array(MAX_HELD_BYTES);
  #view = new DataView(this.#buffer.buffer);
  #spare = new Uint8Array(MAX_HELD_BYTES);
  #filled = 0;
  #isFlushing = false;
  #hasFailed = false;
  #drained?: PromiseWithResolvers<void>;

  /** `onFailure` is told once why nothing can be sent any more. */
  constructor(private readonly conn: Conn, private readonly onFailure: (error: unknown) => void) {}

  /** Bytes of data that a frame may hold at present; none where it is 0 or below. */
  get room(): number {
    return MAX_HELD_BYTES - HEADER_BYTES - this.#filled;
  }

  /** All has been handed to the connection. */
  get isQuiet(): boolean {
    return !this.#isFlushing;
  }

  /** Resolves when there is room again, or nothing can be sent any more. */
  drained(): Promise<void> {
    this.#drained ??= Promise.withResolvers();
    return this.#drained.promise;
  }

  /** Appends a frame; `content` may be no longer than {@linkcode FrameWriter.room}. */
  frame(header: FrameHeader, content?: Uint8Array): void {
    if (this.#hasFailed) return;
    const end = this.#filled + HEADER_BYTES + (content?.length ?? 0);
    if (end > MAX_UNSENT_BYTES) return this.#fail(new Error("the node does not read what it is sent"));
    if (end > this.#buffer.length) this.#grow();
    writeHeader(this.#view, this.#filled, header);
    if (content) this.#buffer.set(content, this.#filled + HEADER_BYTES);
    this.#filled = end;
    if (!this.#isFlushing) this.#flush();
  }

  /** Never rejects. */
  async #flush(): Promise<void> {
    this.#isFlushing = true;
    for (let turn = 0; turn < GATHERING_TURNS; turn++) await undefined;
    try {
      while (this.#filled > 0) {
        const content = this.#swap();
        const written = await this.conn.write(content);
        if (written < content.length) await writeAll(this.conn, content.subarray(written));
        if (this.#spare.length > MAX_HELD_BYTES) this.#spare = new Uint8Array(MAX_HELD_BYTES);
      }
      this.#isFlushing = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** What is to be sent; the other buffer is filled meanwhile. */
  #swap(): Uint8Array {
    const content = this.#buffer.subarray(0, this.#filled);
    [this.#buffer, this.#spare] = [this.#spare, this.#buffer];
    this.#view = new DataView(this.#buffer.buffer);
    this.#filled = 0;
    this.#wake();
    return content;
  }

  #fail(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.onFailure(error);
    this.#wake();
  }

  #wake(): void {
    const drained = this.#drained;
    this.#drained = undefined;
    drained?.resolve();
  }

  #grow(): void {
    const larger = new Uint8Array(2 * this.#buffer.length);
    larger.set(this.#buffer.subarray(0, this.#filled));
    this.#buffer = larger;
    this.#view = new DataView(larger.buffer);
  }
}
