import type { UserEventMessage } from "../codec/serf_messages.ts";
import { NO_BYTES } from "../codec/text.ts";
import { MessageType } from "../codec/types.ts";
import {
  BroadcastQueue,
  type PickOptions,
  retransmitLimit,
  type Subject,
} from "../memberlist/broadcast_queue.ts";
import type { Memberlist } from "../memberlist/memberlist.ts";
import type { Random } from "../random.ts";
import type { SerfConfig } from "./config.ts";
import { EventSubjects } from "./event_subjects.ts";
import type { Members } from "./members.ts";

/** Heads of a compound and of its only part. */
const COMPOUND_HEADS = 4;
/** Transmissions of an event that a later one replaces: whoever misses it hears the next. */
const SUBJECT_SENDS = 2;
/** Nodes that get a message by stream where it does not fit a packet. */
const STREAM_FANOUT = 4;

/**
 * Messages that a node which knows no other keeps of each kind: whoever joins gets the newest events by push/pull anyway,
 * and a lone node is none the bigger for what it has said.
 */
export const LONE_QUEUE_DEPTH = 64;

/** A Serf message (`bytes` from `start`, its type byte, to `end`) as memberlist's user message: a copy. */
export function asUser(bytes: Uint8Array, start = 0, end = bytes.length): Uint8Array {
  const out = new Uint8Array(end - start + 1);
  out[0] = MessageType.user;
  for (let i = start, at = 1; i < end; i++, at++) out[at] = bytes[i];
  return out;
}

/** Serf's three queues, of messages as {@linkcode asUser} makes them: intents before queries before user events. */
export class Broadcasts {
  readonly #config: SerfConfig;
  readonly #memberlist: Memberlist;
  readonly #members: Members;
  readonly #intents: BroadcastQueue;
  readonly #queries: BroadcastQueue;
  readonly #events: BroadcastQueue;
  readonly #subjects: EventSubjects;
  #dropped = 0;

  constructor(options: { config: SerfConfig; memberlist: Memberlist; members: Members; random: Random }) {
    this.#config = options.config;
    this.#memberlist = options.memberlist;
    this.#members = options.members;
    const limit = () => retransmitLimit(options.memberlist.config.retransmitMult, options.members.size);
    this.#intents = new BroadcastQueue(limit);
    this.#queries = new BroadcastQueue(limit);
    this.#events = new BroadcastQueue(limit);
    this.#subjects = new EventSubjects(options.config.eventSubject);
  }

  /** Lengths of the queues, and how much was dropped because they were full. */
  get sizes(): { intentQueue: number; queryQueue: number; eventQueue: number; dropped: number } {
    return {
      intentQueue: this.#intents.size,
      queryQueue: this.#queries.size,
      eventQueue: this.#events.size,
      dropped: this.#dropped,
    };
  }

  /** Queues an intent; `onEnd` is told when it was sent often enough, or dropped. */
  intent(message: Uint8Array, onEnd?: () => void): void {
    this.#queue(this.#intents, message, onEnd);
  }

  query(message: Uint8Array): void {
    this.#queue(this.#queries, message);
  }

  /** Sends an event on, unless a newer one about the same is on its way. */
  userEvent(message: Uint8Array, { ltime, name, payload = NO_BYTES }: UserEventMessage): void {
    const subject = this.#subjects.take({ ltime, name, payload });
    if (subject !== false) this.#queue(this.#events, message, undefined, subject);
  }

  /** Largest Serf message that goes by packet. */
  get packetMessageBytes(): number {
    return this.#memberlist.packetRoom - COMPOUND_HEADS - 1;
  }

  #queue(queue: BroadcastQueue, message: Uint8Array, onEnd?: () => void, subject?: Subject): void {
    if (message.length - 1 > this.packetMessageBytes) {
      return this.#byStream(message.subarray(1), onEnd);
    }
    queue.queue(message, { onEnd, subject, sends: subject && SUBJECT_SENDS });
    this.#prune(queue);
    this.#memberlist.kick();
  }

  /** What no packet holds goes by stream to a few nodes, which do the same; push/pull reaches the rest. */
  #byStream(message: Uint8Array, onEnd?: () => void): void {
    const nodes = this.#memberlist.pick(STREAM_FANOUT);
    for (const node of nodes) this.#memberlist.sendUserStream(node.endpoint, message, () => {});
    onEnd?.();
  }

  /** Adds what fits to `into`; returns the bytes used. */
  pick(options: PickOptions, into: Uint8Array[]): number {
    let used = 0;
    for (const queue of [this.#intents, this.#queries, this.#events]) {
      if (queue.size === 0) continue;
      used += queue.pick({ ...options, limit: options.limit - used }, into);
    }
    return used;
  }

  queued(): { size: number; fresh: boolean } {
    const size = this.#intents.size + this.#queries.size + this.#events.size;
    return { size, fresh: size > 0 && this.#intents.fresh + this.#queries.fresh + this.#events.fresh > 0 };
  }

  /** Cuts the queues to their limit. */
  prune(): void {
    for (const queue of [this.#intents, this.#queries, this.#events]) this.#prune(queue);
  }

  #prune(queue: BroadcastQueue): void {
    // Nobody misses what is dropped here.
    if (this.#members.size <= 1 && queue.size > LONE_QUEUE_DEPTH) queue.prune(LONE_QUEUE_DEPTH);
    if (queue.size > this.#config.maxQueueDepth) this.#dropped += queue.prune(this.#config.maxQueueDepth);
  }
}
