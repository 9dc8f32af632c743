import { toBinary } from "@bufbuild/protobuf";
import type { Random } from "../../gossip/random.ts";
import {
  HeartbeatSchema,
  type StateUpdate,
  StateUpdateSchema,
} from "../../proto/gen/hypercore/v1/peer_pb.ts";
import {
  DELTA_REFILL_MS,
  EVENT_OVERHEAD_BYTES,
  FOLLOW_UP_MS,
  HEARTBEAT_FULL_RATE_NODES,
  HEARTBEAT_MS,
  MAX_DELTAS,
  MAX_EVENT_BYTES,
} from "./limits.ts";
import type { OwnState } from "./own_state.ts";
import type { ClusterEffect, StateVersion } from "./ports.ts";
import { GOSSIP } from "./tags.ts";

type Event = ClusterEffect & { kind: "event" };

/** A token may be short by this much: times are sums of fractions. */
const ROUNDING = 1e-6;

/** Time between two heartbeats of one node among this many, milliseconds. */
export function heartbeatMs(nodes: number): number {
  return HEARTBEAT_MS * Math.max(1, nodes / HEARTBEAT_FULL_RATE_NODES);
}

/**
 * Tells the others of this node's state: each change at once while there are not too many of them, else what they come to;
 * and now and then that the node is there.
 */
export class Announcer {
  readonly #own: OwnState;
  readonly #random: Random;
  #told: StateVersion;
  #tokens = MAX_DELTAS;
  #tokensAtMs = 0;
  #beatMs = 0;
  /** The wait for the next heartbeat after news, before it is varied: it doubles each time. Milliseconds. */
  #followUpMs = Infinity;
  /** Times that a heartbeat went out in the place of the state, because there was nothing new, or too much. */
  skipped = 0;

  constructor(options: { own: OwnState; random: Random }) {
    this.#own = options.own;
    this.#random = options.random;
    this.#told = options.own.at;
  }

  /** The state has changed by these differences (none: by more than they can carry). */
  changed(updates: readonly StateUpdate[], options: { nowMs: number; nodes: number }): Event[] {
    const { nowMs } = options;
    this.#refill(nowMs);
    const isNext = updates.length > 0 && updates[0].baseVersion === this.#told.version;
    if (!isNext || updates.length > this.#tokens + ROUNDING) return this.tick(options);
    const events = updates.map(deltaEvent);
    if (!events.every((event) => event !== undefined)) return this.tick(options);
    this.#tokens -= events.length;
    this.#said({ ...options, isNews: true });
    return events;
  }

  /** What has been left untold, and the heartbeat when it is time. */
  tick(options: { nowMs: number; nodes: number }): Event[] {
    const { nowMs } = options;
    const { version } = this.#own.at;
    if (version === 0n) return [];
    this.#refill(nowMs);
    const isBehind = !isSame(this.#told, this.#own.at);
    if (isBehind ? this.#tokens < 1 - ROUNDING : nowMs < this.#beatMs) return [];
    const event = isBehind ? deltaEvent(this.#own.since(this.#told)) : undefined;
    if (event === undefined) this.skipped++;
    this.#tokens = Math.max(0, this.#tokens - 1);
    this.#said({ ...options, isNews: isBehind });
    return [event ?? heartbeatEvent(this.#own)];
  }

  /** When {@linkcode tick} has something to say. */
  nextMs(): number {
    if (this.#own.at.version === 0n) return Infinity;
    if (isSame(this.#told, this.#own.at)) return this.#beatMs;
    return this.#tokensAtMs + Math.max(0, 1 - this.#tokens) * DELTA_REFILL_MS;
  }

  #refill(nowMs: number): void {
    this.#tokens = Math.min(MAX_DELTAS, this.#tokens + (nowMs - this.#tokensAtMs) / DELTA_REFILL_MS);
    this.#tokensAtMs = nowMs;
  }

  #said({ nowMs, nodes, isNews }: { nowMs: number; nodes: number; isNews: boolean }): void {
    this.#told = this.#own.at;
    const beatMs = heartbeatMs(nodes) * (0.9 + 0.1 * this.#random.float());
    this.#followUpMs = isNews ? FOLLOW_UP_MS : 2 * this.#followUpMs;
    this.#beatMs = nowMs + Math.min(beatMs, this.#followUpMs * (1 + this.#random.float()));
  }
}

function isSame(a: StateVersion, b: StateVersion): boolean {
  return a.incarnation === b.incarnation && a.version === b.version;
}

/** Undefined where it does not fit. */
function deltaEvent(update: StateUpdate): Event | undefined {
  const payload = toBinary(StateUpdateSchema, update);
  const bytes = GOSSIP.stateDelta.length + payload.length + EVENT_OVERHEAD_BYTES;
  return bytes > MAX_EVENT_BYTES ? undefined : { kind: "event", name: GOSSIP.stateDelta, payload };
}

function heartbeatEvent(own: OwnState): Event {
  return { kind: "event", name: GOSSIP.heartbeat, payload: toBinary(HeartbeatSchema, own.heartbeat()) };
}
