import { Claims } from "../codec/claims.ts";
import * as codec from "../codec/serf_messages.ts";
import { encodeTags, type Tags } from "../codec/tags.ts";
import type { Alive } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import type { MemberlistConfig } from "../memberlist/config.ts";
import type { PickOptions } from "../memberlist/broadcast_queue.ts";
import type { Delegate } from "../memberlist/context.ts";
import { Memberlist } from "../memberlist/memberlist.ts";
import type { Node } from "../memberlist/node.ts";
import type { WrapOptions } from "../codec/packet.ts";
import { asUser, Broadcasts } from "./broadcasts.ts";
import { MemberCoalescer, UserEventCoalescer } from "./coalesce.ts";
import type { CommonEvents } from "./common_events.ts";
import { type SerfConfig, USER_EVENT_CEILING_BYTES } from "./config.ts";
import { newSerfCounters, type SerfCounters } from "./counters.ts";
import { CoordinateClient } from "./coordinates.ts";
import type { SerfEvent } from "./events.ts";
import { Inbox } from "./inbox.ts";
import { KeyManager, type KeyMemory } from "./key_queries.ts";
import { Leaver } from "./leaver.ts";
import { Member, type MemberInfo, MemberStatus } from "./member.ts";
import { Members } from "./members.ts";
import type { QueryHandler } from "./open_queries.ts";
import { Queries, type QueryOptions, SerfError } from "./queries.ts";
import { Reconnector } from "./reconnector.ts";
import type { Address } from "./rejoin.ts";
import { SeenMessages } from "./seen.ts";
import { StateSync } from "./state_sync.ts";
import { UserEvents } from "./user_events.ts";

/** What a {@linkcode SerfCore} is made of. */
export interface SerfCoreOptions extends WrapOptions {
  serf: SerfConfig;
  memberlist: MemberlistConfig;
  advertise: Endpoint;
  /** This node's tags; its public key is added where gossip is encrypted. */
  tags?: Tags;
  keyMemory?: KeyMemory;
  events?: CommonEvents;
}

/** Result of one address of a join: the reason of a failure, or undefined. */
export type JoinDone = (error: string | undefined) => void;

/** Serf on top of memberlist, as a state machine like it: inputs go in, effects and events come out. */
export class SerfCore {
  readonly memberlist: Memberlist;
  readonly members: Members;
  readonly queries: Queries;
  readonly keys: KeyManager;
  readonly coordinates: CoordinateClient;
  readonly #config: SerfConfig;
  readonly #options: SerfCoreOptions;
  readonly #userEvents: UserEvents;
  readonly #inbox: Inbox;
  readonly #sync: StateSync;
  readonly #reconnector: Reconnector;
  readonly #broadcasts: Broadcasts;
  readonly #leaver: Leaver;
  readonly #memberCoalescer: MemberCoalescer | undefined;
  readonly #userCoalescer: UserEventCoalescer | undefined;
  #events: SerfEvent[] = [];
  #state: "alive" | "leaving" | "left" = "alive";

  constructor(given: SerfCoreOptions) {
    const claims = given.claims ?? new Claims();
    const options = this.#options = { ...given, claims };
    this.#config = options.serf;
    const emit = (event: SerfEvent) => this.#emit(event);
    this.coordinates = new CoordinateClient(options.random);
    this.#userEvents = new UserEvents(this.#config.eventBuffer, options.events);
    const { name } = options.memberlist;
    const keys = this.keys = new KeyManager({
      keyring: options.keyring,
      memory: options.keyMemory,
      random: options.random,
      remembered: this.#config.rememberedPeers,
      failed: () => this.members.failed,
      changed: (keys) => emit({ kind: "keyring", keys }),
    });
    this.members = new Members({
      selfName: name,
      table: () => this.memberlist.table,
      emit,
      contradict: () => this.#announce(),
      arrived: (name) => keys.arrived(name),
      pruned: (name) => keys.shut(name),
      later: (run) => {
        const delayMs = this.#config.broadcastTimeoutMs + this.#config.leavePropagateDelayMs;
        this.memberlist.timers.set(this.memberlist.nowMs + delayMs, run);
      },
    });
    const meta = options.tags ? encodeTags(keys.withPublicKey(options.tags)) : options.memberlist.meta;
    const config = { ...options.memberlist, meta };
    this.memberlist = new Memberlist({ ...options, config, delegate: this.#delegate() });
    this.#reconnector = new Reconnector({
      remembered: this.#config.rememberedPeers,
      members: this.members,
      random: options.random,
      later: (delayMs, run) => this.memberlist.timers.set(this.memberlist.nowMs + delayMs, run),
      contact: (to, options, done) => this.#contact(to, options, done),
    });
    const coalescing = {
      timers: this.memberlist.timers,
      nowMs: () => this.memberlist.nowMs,
      emit: (event: SerfEvent) => void this.#events.push(event),
    };
    const { coalesceMembers, coalesceUserEvents } = this.#config;
    this.#memberCoalescer = coalesceMembers &&
      new MemberCoalescer({ ...coalescing, window: coalesceMembers });
    this.#userCoalescer = coalesceUserEvents &&
      new UserEventCoalescer({ ...coalescing, window: coalesceUserEvents });
    this.#broadcasts = new Broadcasts({
      config: this.#config,
      memberlist: this.memberlist,
      members: this.members,
      random: options.random,
    });
    this.#leaver = new Leaver({
      config: this.#config,
      memberlist: this.memberlist,
      members: this.members,
      broadcasts: this.#broadcasts,
    });
    const seen = new SeenMessages();
    this.queries = new Queries({
      config: this.#config,
      memberlist: this.memberlist,
      members: this.members,
      keys,
      random: options.random,
      emit,
      seen,
      counters: this.counters,
      broadcast: (message) => this.#broadcasts.query(message),
    });
    this.#inbox = new Inbox({
      members: this.members,
      queries: this.queries,
      userEvents: this.#userEvents,
      broadcasts: this.#broadcasts,
      seen,
      counters: this.counters,
      events: options.events,
      strings: claims.strings,
      nowMs: () => this.memberlist.nowMs,
      emit,
    });
    this.#sync = new StateSync({
      members: this.members,
      userEvents: this.#userEvents,
      queryLog: this.queries.log,
      keys,
      sendKeys: options.verifyOutgoing !== false,
      selfName: name,
      strings: claims.strings,
      takeUserEvent: (event) =>
        this.#inbox.takeUserEvent({ message: options.events?.shared(event) ?? event }),
    });
  }

  readonly counters: SerfCounters = newSerfCounters();
  /** Whether each probe's outcome is an event. */
  reportProbes = false;

  get config(): Readonly<SerfConfig> {
    return this.#config;
  }

  /** Largest encoded Serf message that goes by packet. */
  get packetMessageBytes(): number {
    return this.#broadcasts.packetMessageBytes;
  }

  /** Whether this node is there, says goodbye, or has left. */
  get state(): "alive" | "leaving" | "left" {
    return this.#state;
  }

  /** Next Lamport times: of members, user events and queries. */
  get clocks(): { member: number; event: number; query: number } {
    return {
      member: this.members.clock.time,
      event: this.#userEvents.clock.time,
      query: this.queries.log.clock.time,
    };
  }

  /** Lamport times that were not believed. */
  get timesRefused(): number {
    return this.members.clock.refused + this.#userEvents.clock.refused + this.queries.log.clock.refused;
  }

  /** Sizes of everything that could grow. */
  get sizes() {
    return {
      ...this.memberlist.sizes,
      members: this.members.size,
      intents: this.members.intents,
      failed: this.members.failed.size,
      left: this.members.left.size,
      ...this.#broadcasts.sizes,
      openQueries: this.queries.open,
      unansweredQueries: this.queries.unanswered,
      coordinates: this.coordinates.size,
      rememberedPeers: this.#reconnector.remembered,
      rememberedKeys: this.keys.remembered,
    };
  }

  /** What happened since the last call; taken, not copied. */
  takeEvents(): SerfEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  /** Takes up the clocks of an earlier life, so that nothing of then is delivered again. Before {@linkcode start}. */
  resume(clocks: { member: number; event: number; query: number }): void {
    this.members.clock.adopt(clocks.member);
    if (this.#userEvents.clock.adopt(clocks.event)) this.#userEvents.minTime = clocks.event + 1;
    if (this.queries.log.clock.adopt(clocks.query)) this.queries.log.minTime = clocks.query + 1;
  }

  #emit(event: SerfEvent): void {
    switch (event.kind) {
      case "member-join":
      case "member-leave":
      case "member-failed":
      case "member-update":
      case "member-reap":
        if (this.#memberCoalescer) return this.#memberCoalescer.take(event);
        break;
      case "user":
        if (this.#userCoalescer && event.coalesce) return this.#userCoalescer.take(event);
        break;
    }
    this.#events.push(event);
  }

  /** Begins. */
  start(nowMs: number): void {
    this.memberlist.start(nowMs);
    this.#repeat(this.#config.reapIntervalMs, () => this.#reap());
    this.#repeat(this.#config.reconnectIntervalMs, () => this.#reconnector.tryOne());
    this.#repeat(this.#config.queueCheckIntervalMs, () => this.#broadcasts.prune());
  }

  /** Runs `task` about every `intervalMs`; the jitter keeps a cluster that started at once from acting as one. */
  #repeat(intervalMs: number, task: () => void): void {
    const { timers } = this.memberlist;
    const jittered = intervalMs * (0.9 + 0.2 * this.#options.random.float());
    timers.set(this.memberlist.nowMs + jittered, () => {
      if (this.#state === "left") return;
      task();
      this.#repeat(intervalMs, task);
    });
  }

  /** Joins through one address. `ignoreOld`: whether user events from before are not delivered. */
  join(nowMs: number, to: Endpoint, options: { ignoreOld: boolean }, done: JoinDone): void {
    this.memberlist.tick(nowMs);
    this.#reconnector.addSeed(to);
    if (options.ignoreOld) this.#sync.ignoreOld();
    this.memberlist.pushPull(to, { join: true }, (error) => {
      if (options.ignoreOld) this.#sync.deliverOld();
      if (error === undefined) this.#announce();
      done(error);
    });
  }

  /** Looks for the members of an earlier life, of which one is enough; goes on until somebody is found. */
  rejoin(nowMs: number, former: readonly Address[]): void {
    this.memberlist.tick(nowMs);
    this.#reconnector.rejoin(former);
  }

  /** Changes this node's tags. Throws RangeError where they are too large. */
  setTags(nowMs: number, tags: Tags): void {
    this.memberlist.tick(nowMs);
    this.memberlist.updateMeta(encodeTags(this.keys.withPublicKey(tags)));
  }

  /** Sends a user event to everyone, this node included. Throws {@linkcode SerfError} where it is too long. */
  userEvent(nowMs: number, name: string, payload: Uint8Array, options: { coalesce: boolean }): void {
    this.memberlist.tick(nowMs);
    const limit = Math.min(this.#config.userEventSizeLimit, USER_EVENT_CEILING_BYTES);
    const refuse = (bytes: number) =>
      new SerfError(`Cannot send event "${name}": ${bytes} bytes exceed the limit of ${limit}`);
    if (name.length + payload.length > limit) throw refuse(name.length + payload.length);
    const message: codec.UserEventMessage = {
      ltime: this.#userEvents.clock.time,
      name,
      payload: payload.length === 0 ? undefined : payload,
      coalesce: options.coalesce,
    };
    const encoded = codec.encodeUserEvent(message);
    if (encoded.length > limit) throw refuse(encoded.length);
    this.#userEvents.clock.tick();
    this.#inbox.takeUserEvent({ message, queued: asUser(encoded) });
  }

  /** Asks everyone, or whom the filters take. See {@linkcode Queries.ask}. */
  query(
    nowMs: number,
    name: string,
    payload: Uint8Array,
    options: QueryOptions & { handler: QueryHandler },
  ): number {
    this.memberlist.tick(nowMs);
    return this.queries.ask(name, payload, options);
  }

  /** Answers a query that was delivered as an event. */
  respond(nowMs: number, query: { ltime: number; id: number }, payload: Uint8Array): void {
    this.memberlist.tick(nowMs);
    this.queries.respond(query, payload);
  }

  /** Makes a failed member one that left; `prune` erases it. `done` follows once enough members were told. */
  forceLeave(nowMs: number, node: string, options: { prune: boolean }, done: () => void): void {
    this.memberlist.tick(nowMs);
    this.#leaver.force({ node, prune: options.prune }, done);
  }

  /** Leaves: says so, lets it spread, says goodbye to memberlist, stays a little. `done` is the end of it. */
  leave(nowMs: number, done: () => void): void {
    this.memberlist.tick(nowMs);
    if (this.#state !== "alive") return done();
    this.#state = "leaving";
    this.members.leaving = true;
    this.#leaver.leave(() => {
      this.#state = "left";
      done();
    });
  }

  /** Estimated round-trip time to a member, in milliseconds; undefined where unknown. */
  rttMs(name: string): number | undefined {
    return this.coordinates.rttMs(name);
  }

  /** All members, or one. */
  listMembers(): MemberInfo[] {
    return Array.from(this.members.values(), (member) => member.snapshot());
  }

  /** Says that this node is here, above any leave intent about it. */
  #announce(): void {
    if (this.#state !== "alive") return;
    const intent = { ltime: this.members.clock.time, node: this.memberlist.self.name };
    this.members.announced(intent.ltime);
    this.#broadcasts.intent(asUser(codec.encodeJoin(intent)));
  }

  #reap(): void {
    this.members.reap(this.memberlist.nowMs, {
      reconnectTimeoutMs: this.#config.reconnectTimeoutMs,
      tombstoneTimeoutMs: this.#config.tombstoneTimeoutMs,
      intentTimeoutMs: this.#config.recentIntentTimeoutMs,
      forgotten: (member) => {
        this.#reconnector.remember(member);
        this.keys.remember(member);
      },
    });
  }

  #contact(to: Endpoint, options: { announce: boolean }, done: JoinDone): void {
    if (this.#state !== "alive") return;
    this.memberlist.pushPull(to, { join: true }, (error) => {
      if (error === undefined && options.announce) this.#announce();
      done(error);
    });
  }

  #delegate(): Delegate {
    return {
      createNode: (claim, nowMs) => new Member(claim, nowMs),
      wantsNode: (node) => (node as Member).status !== MemberStatus.none,
      isLeaving: (node) => (node as Member).status === MemberStatus.leaving,
      nodeJoined: (node) => this.members.nodeJoined(node),
      nodeLeft: (node) => {
        this.members.nodeLeft(node, this.memberlist.nowMs);
        this.coordinates.forget(node.name);
      },
      nodeUpdated: (node) => this.members.nodeUpdated(node),
      nameConflict: (node, other) => this.#nameConflict(node, other),
      userMessage: (bytes, start, end) => this.#inbox.receive(bytes, start, end),
      localState: () => this.#sync.local(),
      mergeRemoteState: (state, merging) =>
        this.#sync.merge(state, { ...merging, nowMs: this.memberlist.nowMs }),
      knock: () => this.#sync.knock(),
      answerKnock: (state) => this.#sync.answerKnock(state, this.memberlist.nowMs),
      broadcasts: (options: PickOptions, into: Uint8Array[]) => this.#broadcasts.pick(options, into),
      queued: () => this.#broadcasts.queued(),
      ackPayload: () => this.#config.coordinates ? this.coordinates.payload() : undefined,
      pingCompleted: (node, rttMs, payload) => {
        if (this.#config.coordinates && payload?.length) this.coordinates.learn(node.name, rttMs, payload);
      },
      probed: (node, via, rttMs) => {
        if (this.reportProbes) this.#events.push({ kind: "probe", node: node.name, via, rttMs });
      },
    };
  }

  #nameConflict(node: Node, other: Alive): void {
    this.#emit({
      kind: "name-conflict",
      name: node.name,
      other: new Endpoint(other.addr, other.port).toString(),
    });
    if (node === this.memberlist.self && this.#config.nameConflictResolution) this.queries.voteOnName();
  }
}
