import { NodeState } from "../codec/types.ts";
import type { Endpoint } from "../endpoint.ts";
import type { Timer } from "../timers.ts";
import { BroadcastQueue, type PickOptions, type QueueOptions, retransmitLimit } from "./broadcast_queue.ts";
import type { Context } from "./context.ts";
import type { Node } from "./node.ts";

/** Bytes a compound adds to each message, and its own head. */
const PART_OVERHEAD = 2;
const COMPOUND_HEAD = 2;
/**
 * News about members that wait to be sent. A cluster in which more happens at once learns it from push/pulls, which come
 * early then; what was sent most goes first.
 */
export const MAX_BROADCASTS = 1_024;

/** Broadcasts that may wait before gossip goes to more nodes a round than it is told to. */
export const BACKLOG = 64;
/** The most nodes that a round then goes to, and the most packets a second. */
const CATCH_UP_NODES = 32;
const CATCH_UP_PACKETS = 60;

/** Spreads broadcasts: by periodic gossip, on the back of other packets, and at once to a few nodes. */
export class Gossiper {
  readonly queue: BroadcastQueue;
  readonly #ctx: Context;
  #phaseMs: number | undefined;
  #tick: Timer | undefined;
  #flush: Timer | undefined;
  #tokens = 0;
  #tokensAtMs = 0;

  constructor(ctx: Context) {
    this.#ctx = ctx;
    this.queue = new BroadcastQueue(() => retransmitLimit(ctx.config.retransmitMult, ctx.table.size));
  }

  /** Begins to gossip, at a random point of the interval. */
  start(): void {
    const { nowMs, random, config } = this.#ctx;
    this.#phaseMs = nowMs + random.float() * config.gossipIntervalMs;
    this.#tokens = config.eager?.burst ?? 0;
    this.#tokensAtMs = nowMs;
    this.kick();
  }

  /** Queues a memberlist message, in place of an older one about the same. */
  broadcast(message: Uint8Array, options: QueueOptions): void {
    this.queue.queue(message, options);
    if (this.queue.size > MAX_BROADCASTS) {
      this.#ctx.counters.broadcastsDropped += this.queue.prune(MAX_BROADCASTS);
    }
    this.kick();
  }

  /** Sees to it that what is queued will be sent. Idle nodes have no gossip timer. */
  kick(): void {
    if (this.#phaseMs === undefined) return;
    this.#armTick();
    if (this.#ctx.config.eager !== undefined) this.#armFlush();
  }

  /** Sends one message, with as many broadcasts on its back as fit. */
  send(to: Endpoint, message: Uint8Array, options: { piggyback: boolean; extra?: Uint8Array }): void {
    const messages = options.extra ? [message, options.extra] : [message];
    if (options.piggyback) {
      const used = message.length + PART_OVERHEAD +
        (options.extra ? options.extra.length + PART_OVERHEAD : 0);
      this.#pick({ overhead: PART_OVERHEAD, limit: this.#budget() - used }, messages);
    }
    this.#packet(to, this.#ctx.packets.seal(messages));
  }

  #packet(to: Endpoint, packet: Uint8Array): void {
    this.#ctx.counters.packetsSent++;
    this.#ctx.counters.bytesSent += packet.length;
    this.#ctx.effects.push({ kind: "packet", to, packet });
  }

  #budget(): number {
    return this.#ctx.config.udpBufferBytes - COMPOUND_HEAD - this.#ctx.packets.overhead;
  }

  #pick(options: PickOptions, into: Uint8Array[]): number {
    const used = this.queue.pick(options, into);
    return used + this.#ctx.delegate.broadcasts({ ...options, limit: options.limit - used }, into);
  }

  #armTick(): void {
    if (this.#tick !== undefined || this.#phaseMs === undefined || !this.#anythingQueued()) return;
    const { nowMs, config, timers } = this.#ctx;
    const interval = config.gossipIntervalMs;
    const rounds = Math.max(0, Math.floor((nowMs - this.#phaseMs) / interval) + 1);
    this.#tick = timers.set(this.#phaseMs + rounds * interval, () => {
      this.#tick = undefined;
      this.#round();
      this.#armTick();
    });
  }

  #anythingQueued(): boolean {
    return this.queue.size > 0 || this.#ctx.delegate.queued().size > 0;
  }

  #round(): void {
    const { table } = this.#ctx;
    for (const node of table.pick(this.#fanout(), (candidate) => this.#hears(candidate))) {
      const messages: Uint8Array[] = [];
      this.#pick({ overhead: PART_OVERHEAD, limit: this.#budget() }, messages);
      if (messages.length === 0) return;
      this.#packet(node.endpoint, this.#ctx.packets.seal(messages));
    }
  }

  /** Nodes a round goes to: as many as configured, more while much is waiting. */
  #fanout(): number {
    const { gossipNodes, gossipIntervalMs } = this.#ctx.config;
    const waiting = this.queue.size + this.#ctx.delegate.queued().size;
    if (waiting <= BACKLOG) return gossipNodes;
    const most = Math.min(CATCH_UP_NODES, Math.floor(CATCH_UP_PACKETS * gossipIntervalMs / 1_000));
    return Math.max(gossipNodes, Math.min(most, Math.ceil(gossipNodes * waiting / BACKLOG)));
  }

  /** Gossip goes to the living and, for a while, to the dead, so that they can refute. */
  #hears(node: Node): boolean {
    const { self, nowMs, config } = this.#ctx;
    if (node === self || node.state === NodeState.left) return false;
    return node.state !== NodeState.dead || nowMs - node.stateChangeMs <= config.gossipToTheDeadMs;
  }

  #armFlush(): void {
    const { config, nowMs, timers } = this.#ctx;
    if (this.#flush !== undefined || config.eager === undefined || !this.#anythingFresh()) return;
    this.#refill();
    const waitMs = this.#tokens >= 1 ? 0 : (1 - this.#tokens) * config.eager.refillMs;
    this.#flush = timers.set(nowMs + waitMs, () => {
      this.#flush = undefined;
      if (this.#eagerRound()) this.#armFlush();
    });
  }

  #anythingFresh(): boolean {
    return this.queue.fresh > 0 || this.#ctx.delegate.queued().fresh;
  }

  #refill(): void {
    const { config, nowMs } = this.#ctx;
    if (config.eager === undefined) return;
    this.#tokens = Math.min(
      config.eager.burst,
      this.#tokens + (nowMs - this.#tokensAtMs) / config.eager.refillMs,
    );
    this.#tokensAtMs = nowMs;
  }

  /** What was never sent goes to a few nodes now, as one transmission. False where nothing went. */
  #eagerRound(): boolean {
    const { config, table, self } = this.#ctx;
    if (config.eager === undefined) return false;
    const targets = table.pick(config.eager.fanout, (node) => node !== self && !node.gone);
    if (targets.length === 0) return false;
    const messages: Uint8Array[] = [];
    this.#pick({ overhead: PART_OVERHEAD, limit: this.#budget(), freshOnly: true }, messages);
    if (messages.length === 0) return false;
    this.#refill();
    this.#tokens = Math.max(0, this.#tokens - 1);
    this.#ctx.counters.eagerRounds++;
    const packet = this.#ctx.packets.seal(messages);
    for (const node of targets) this.#packet(node.endpoint, packet);
    return true;
  }
}
