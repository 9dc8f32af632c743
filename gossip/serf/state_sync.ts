import { DecodeError } from "../codec/error.ts";
import { MsgpackReader, type RememberedStrings } from "../codec/msgpack_reader.ts";
import { SerfType, type UserEventMessage } from "../codec/serf_messages.ts";
import {
  decodeSerfPushPull,
  emptySerfPushPull,
  encodeSerfPushPull,
  type KnownSlots,
  type SerfPushPull,
} from "../codec/serf_push_pull.ts";
import type { KeyManager } from "./key_queries.ts";
import { MemberStatus } from "./member.ts";
import type { Members } from "./members.ts";
import type { QueryLog } from "./query_log.ts";
import type { UserEvents } from "./user_events.ts";

/** What a {@linkcode StateSync} is made of. */
export interface StateSyncOptions {
  members: Members;
  userEvents: UserEvents;
  queryLog: QueryLog;
  keys: KeyManager;
  selfName: string;
  /** Where short strings are kept for reuse. */
  strings: RememberedStrings;
  /** Whether the key ring is handed out: not where packets leave in the open. */
  sendKeys: boolean;
  /** Takes an event that the other side remembers. */
  takeUserEvent(event: UserEventMessage): void;
}

/** Serf's half of a push/pull: what this node says of itself, and what it takes over from the other. */
export class StateSync {
  readonly #options: StateSyncOptions;
  readonly #reader: MsgpackReader;
  #ignoringOld = 0;

  constructor(options: StateSyncOptions) {
    this.#options = options;
    this.#reader = new MsgpackReader({ strings: options.strings });
  }

  /** From here to {@linkcode deliverOld}, events from before a join are not delivered. Calls nest. */
  ignoreOld(): void {
    this.#ignoringOld++;
  }

  /** The end of one {@linkcode ignoreOld}. */
  deliverOld(): void {
    this.#ignoringOld--;
  }

  /** This node's state, encoded. */
  local(): Uint8Array {
    const { members, userEvents, queryLog, keys, sendKeys } = this.#options;
    const statusLTimes: [string, number][] = [];
    for (const member of members.values()) {
      // Time 0 changes nothing, wherever it is merged: it is left out, unless it says when a member left.
      const { name, statusLTime, status } = member;
      if (statusLTime > 0 || status === MemberStatus.left) statusLTimes.push([name, statusLTime]);
    }
    return encodeSerfPushPull({
      ltime: members.clock.time,
      statusLTimes,
      leftMembers: Array.from(members.left, (member) => member.name),
      eventLTime: userEvents.clock.time,
      events: userEvents.slots(),
      queryLTime: queryLog.clock.time,
      keyring: sendKeys ? keys.state() : undefined,
      from: keys.encrypted ? this.#options.selfName : undefined,
      doors: sendKeys && keys.encrypted ? [...keys.doors()] : [],
    });
  }

  /** What this node says where only a removed key may fit: who it is. */
  knock(): Uint8Array {
    return encodeSerfPushPull({ ...emptySerfPushPull(), from: this.#options.selfName });
  }

  /** The answer to a state under a removed key: the ring, sealed for the node that its name belongs to. */
  answerKnock(bytes: Uint8Array, nowMs: number): Uint8Array | undefined {
    const { members, keys, selfName } = this.#options;
    const { from } = this.#decode(bytes);
    const sealedRing = from === undefined
      ? undefined
      : keys.sealFor(from, { member: members.get(from), nowMs });
    return sealedRing && encodeSerfPushPull({ ...emptySerfPushPull(), from: selfName, sealedRing });
  }

  /**
   * Takes over another node's state; `join` marks an exchange that joins two clusters, `knocked` one under a removed
   * key, of which nothing but a sealed ring counts. True where a ring came that was sealed for this node.
   */
  merge(bytes: Uint8Array, options: { join: boolean; knocked: boolean; nowMs: number }): boolean {
    const { members, userEvents, queryLog, keys } = this.#options;
    const state = this.#decode(bytes, userEvents.known());
    const { sealedRing, from = "" } = state;
    if (sealedRing !== undefined) {
      return keys.open(sealedRing, { name: from, member: members.get(from), knocked: options.knocked });
    }
    if (options.knocked) return false;
    if (state.ltime > 0) members.clock.adopt(state.ltime - 1);
    const believed = state.eventLTime > 0 && userEvents.clock.adopt(state.eventLTime - 1);
    if (state.queryLTime > 0) queryLog.clock.adopt(state.queryLTime - 1);
    const left = new Set(state.leftMembers);
    for (const [node, ltime] of state.statusLTimes) {
      if (!left.has(node)) members.joinIntent({ ltime, node }, options.nowMs);
      // Who left before this node came is none of its business, and may be back.
      else if (members.get(node) !== undefined) {
        members.leaveIntent({ ltime: ltime + 1, node, prune: false }, options.nowMs);
      }
    }
    if (options.join && believed && this.#ignoringOld > 0) {
      userEvents.minTime = Math.max(userEvents.minTime, state.eventLTime);
    }
    for (const slot of state.events) {
      for (const event of slot.events) {
        this.#options.takeUserEvent({ ltime: slot.ltime, ...event, coalesce: false });
      }
    }
    if (state.keyring !== undefined) keys.merge(state.keyring);
    for (const [name, door] of state.doors) if (members.get(name) === undefined) keys.learn(name, door);
    return false;
  }

  #decode(bytes: Uint8Array, known?: KnownSlots): SerfPushPull {
    if (bytes[0] !== SerfType.pushPull) {
      throw new DecodeError("Serf state", `type ${bytes[0]} is no push/pull`);
    }
    return decodeSerfPushPull(this.#reader.reset(bytes, 1), known);
  }
}
