import { QueryFlag, type QueryResponseMessage } from "../codec/serf_messages.ts";
import { NO_BYTES } from "../codec/text.ts";
import type { Timer, TimerHeap } from "../timers.ts";

/** Queries of this node that are open at once; more are refused. */
export const MAX_OPEN_QUERIES = 1_024;
/** Acks or answers of one query beyond the members known when it was asked. */
const SPARE_ANSWERS = 64;

/** Who is told of the answers to a query. */
export interface QueryHandler {
  onAck?(from: string): void;
  onResponse?(from: string, payload: Uint8Array): void;
  /** The time is over; nothing follows. */
  onDone(): void;
}

interface Open {
  id: number;
  handler: QueryHandler;
  acks: Set<string>;
  responses: Set<string>;
  limit: number;
  timer: Timer;
}

/** The queries that this node asked, until their time is over. */
export class OpenQueries {
  readonly #open = new Map<number, Open>();
  readonly #timers: TimerHeap;

  constructor(timers: TimerHeap) {
    this.#timers = timers;
  }

  get size(): number {
    return this.#open.size;
  }

  get isFull(): boolean {
    return this.#open.size >= MAX_OPEN_QUERIES;
  }

  /** Opens a query; false where too many are open. */
  open(
    ltime: number,
    id: number,
    options: { handler: QueryHandler; deadlineMs: number; members: number },
  ): boolean {
    if (this.isFull || this.#open.has(ltime)) return false;
    const timer = this.#timers.set(options.deadlineMs, () => this.close(ltime));
    const limit = options.members + SPARE_ANSWERS;
    this.#open.set(ltime, {
      id,
      handler: options.handler,
      acks: new Set(),
      responses: new Set(),
      limit,
      timer,
    });
    return true;
  }

  /** Ends a query before or at its deadline. */
  close(ltime: number): void {
    const open = this.#open.get(ltime);
    if (open === undefined) return;
    open.timer.cancel();
    this.#open.delete(ltime);
    open.handler.onDone();
  }

  closeAll(): void {
    for (const ltime of [...this.#open.keys()]) this.close(ltime);
  }

  /** Takes an ack or an answer; one each of everybody counts. */
  respond(response: QueryResponseMessage): void {
    const open = this.#open.get(response.ltime);
    if (open === undefined || open.id !== response.id) return;
    const isAck = (response.flags & QueryFlag.ack) !== 0;
    const seen = isAck ? open.acks : open.responses;
    if (seen.has(response.from) || seen.size >= open.limit) return;
    seen.add(response.from);
    if (isAck) open.handler.onAck?.(response.from);
    else open.handler.onResponse?.(response.from, response.payload ?? NO_BYTES);
  }
}
