import { INITIAL_WINDOW_BYTES } from "./frames.ts";

/** Of one stream: what may be on its way, or unread, at a time. */
export const MAX_WINDOW_BYTES = 4 * 1024 * 1024;
/** By how much all windows of a worker together may be larger than they are at first. */
export const MAX_GROWTH_BYTES = 64 * 1024 * 1024;
/** A window of which half is used up in fewer round trips than this is what slows the stream down. */
const TIGHT_ROUND_TRIPS = 2;

/** What the windows of all streams of a worker may still grow by. */
export class WindowBudget {
  leftBytes = MAX_GROWTH_BYTES;
}

/** What the other side may send on one stream: as much as the reader takes, and the network holds. */
export class ReceiveWindow {
  /** What the other side may send at present. */
  #credit = INITIAL_WINDOW_BYTES;
  /** What has been read since the other side was told. */
  #consumed = 0;
  #bytes = INITIAL_WINDOW_BYTES;
  #toldMs: number;

  constructor(private readonly budget: WindowBudget, nowMs: number) {
    this.#toldMs = nowMs;
  }

  /** It is larger than at first. */
  get hasGrown(): boolean {
    return this.#bytes > INITIAL_WINDOW_BYTES;
  }

  /** Content has come; false where it is more than was allowed. */
  take(bytes: number): boolean {
    this.#credit -= bytes;
    return this.#credit >= 0;
  }

  /**
   * The reader has taken so much; returns by how much the other side's allowance is to be raised, 0 for not yet. `isEmpty`: there is
   * nothing left to read.
   */
  consume(bytes: number, isEmpty: boolean, timing: { now: () => number; roundTripMs: number }): number {
    this.#consumed += bytes;
    if (this.#consumed < this.#bytes / 2) return 0;
    const nowMs = timing.now();
    const isTight = isEmpty && nowMs - this.#toldMs < TIGHT_ROUND_TRIPS * timing.roundTripMs;
    this.#toldMs = nowMs;
    const raise = this.#consumed + (isTight ? this.#grow() : 0);
    this.#consumed = 0;
    this.#credit += raise;
    return raise;
  }

  /** The stream is over. */
  close(): void {
    this.budget.leftBytes += this.#bytes - INITIAL_WINDOW_BYTES;
    this.#bytes = INITIAL_WINDOW_BYTES;
  }

  #grow(): number {
    const growth = Math.min(this.#bytes, MAX_WINDOW_BYTES - this.#bytes, this.budget.leftBytes);
    this.budget.leftBytes -= growth;
    this.#bytes += growth;
    return growth;
  }
}
