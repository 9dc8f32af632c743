import type { Keyring } from "./codec/keyring.ts";
import { encodeKeyRequest } from "./codec/serf_internal.ts";
import { NO_BYTES, utf8 } from "./codec/text.ts";
import type { QueryFilter } from "./codec/filter.ts";
import type { Endpoint } from "./endpoint.ts";
import { emptyKeyResult, type KeyResult, noteKeyResponse } from "./key_result.ts";
import { type Log, silentLog } from "./log.ts";
import type { MetricsRegistry } from "./metrics.ts";
import { Driver } from "./net/driver.ts";
import { Joiner, type JoinOptions, type RetryOptions } from "./net/joiner.ts";
import { type Resolver, systemResolver } from "./net/resolve.ts";
import type { SnapshotFile } from "./net/snapshot_file.ts";
import type { Clock, Transport } from "./net/transport.ts";
import type { Random } from "./random.ts";
import { systemRandom } from "./random.ts";
import type { ProbeOutcome, QueryEvent, SerfEvent } from "./serf/events.ts";
import type { KeyOperation } from "./serf/key_queries.ts";
import { type MemberInfo, MemberStatus } from "./serf/member.ts";
import { type PayloadLimits, payloadLimits } from "./serf/payload_limits.ts";
import { SerfError } from "./serf/queries.ts";
import type { Address } from "./serf/rejoin.ts";
import type { SerfCore } from "./serf/serf.ts";
import { registerMetrics } from "./serf_metrics.ts";

/** A query of another node (or of this one), to be answered by {@linkcode Serf.respond}. */
export type Query = QueryEvent;

/** Who is told how each probe of another member went. */
export type ProbeListener = (outcome: ProbeOutcome) => void;

/** Longest wait for a leave, whatever happens on the network. */
const LEAVE_TIMEOUT_MS = 15_000;

/** Who is told what happens. */
export type SerfListener = (event: Exclude<SerfEvent, ProbeOutcome>) => void;

/** What to ask. */
export interface AskOptions {
  payload?: Uint8Array | string;
  /** All must match; absent means everyone. */
  filters?: readonly QueryFilter[];
  requestAck?: boolean;
  relayFactor?: number;
  timeoutMs?: number;
  /** Ends the query early. */
  signal?: AbortSignal;
  onAck?(from: string): void;
  /** Called for each answer as it comes. */
  onResponse?(from: string, payload: Uint8Array): void;
}

/** What came of a query. */
export interface QueryResult {
  acks: string[];
  responses: { from: string; payload: Uint8Array }[];
}

/** Who answered a call of all members. */
export interface Reachability {
  /** Living members when it was asked, this one included. */
  members: number;
  /** Names of those that answered. */
  acks: string[];
  /** Names of living members that did not. */
  missing: string[];
}

/** Messages that wait to be sent, by kind. */
export interface QueueDepth {
  /** Of membership: who is alive, suspected, dead. */
  membership: number;
  /** Joins and leaves. */
  intents: number;
  queries: number;
  events: number;
  total: number;
}

/** Parts of a {@linkcode Serf}, put together by `createSerf`. */
export interface SerfParts {
  core: SerfCore;
  transport: Transport;
  clock: Clock;
  random?: Random;
  resolver?: Resolver;
  log?: Log;
  metrics?: MetricsRegistry;
  /** The ring that the core seals with. */
  keyring?: Keyring;
  /** Opened once the core runs. */
  snapshot?: SnapshotFile;
  /** Stores the key ring. */
  saveKeys?: () => void;
}

/** A running member of a cluster. */
export class Serf implements AsyncDisposable {
  readonly #core: SerfCore;
  readonly #driver: Driver;
  readonly #joiner: Joiner;
  readonly #clock: Clock;
  readonly #keyring: Keyring | undefined;
  readonly #transport: Transport;
  readonly #snapshot: SnapshotFile | undefined;
  readonly #log: Log;
  readonly #listeners = new Set<SerfListener>();
  readonly #probeListeners = new Set<ProbeListener>();
  readonly #saveKeys: (() => void) | undefined;
  readonly #lost = Promise.withResolvers<void>();
  readonly #stop = new AbortController();
  #leaving: Promise<void> | undefined;

  constructor(parts: SerfParts) {
    this.#core = parts.core;
    this.#transport = parts.transport;
    this.#snapshot = parts.snapshot;
    this.#log = parts.log ?? silentLog;
    this.#saveKeys = parts.saveKeys;
    this.#driver = new Driver({
      core: parts.core,
      transport: parts.transport,
      clock: parts.clock,
      log: this.#log,
      onEvent: (event) => this.#onEvent(event),
    });
    this.#clock = parts.clock;
    this.#keyring = parts.keyring;
    const { self } = parts.core.memberlist;
    this.#joiner = new Joiner({
      clock: parts.clock,
      log: this.#log,
      random: parts.random ?? systemRandom(),
      resolver: parts.resolver ?? systemResolver(),
      defaultPort: () => self.endpoint.port,
      isSelf: (endpoint) => endpoint.toString() === self.endpoint.toString(),
      isAlone: () => parts.core.members.aliveCount <= 1,
      contact: (endpoint, options) => this.#contact(endpoint, options),
    });
    if (parts.metrics) registerMetrics(parts.metrics, this.#core, parts.transport);
  }

  /** Begins to listen and to probe. */
  start(): void {
    this.#driver.start();
  }

  /** This node's name. */
  get name(): string {
    return this.#core.memberlist.self.name;
  }

  /** Where this node is bound. */
  get local(): { host: string; port: number } {
    return this.#transport.local;
  }

  /** Resolves when the cluster gave this node's name to another; the owner should stop then. */
  get nameLost(): Promise<void> {
    return this.#lost.promise;
  }

  /** The state machine itself: sizes, counters and coordinates. Read only. */
  get core(): SerfCore {
    return this.#core;
  }

  /** All members, those that failed or left lately included. */
  members(): MemberInfo[] {
    return this.#core.listMembers();
  }

  /** One member, or undefined. */
  member(name: string): MemberInfo | undefined {
    return this.#core.members.get(name)?.snapshot();
  }

  /** Whether a member of this name is here: it neither failed nor left. One look-up, nothing is copied. */
  isAlive(name: string): boolean {
    return this.#core.members.get(name)?.status === MemberStatus.alive;
  }

  /** Members that are here, this one included. */
  get aliveCount(): number {
    return this.#core.members.aliveCount;
  }

  /** What still waits to be sent. */
  get queueDepth(): QueueDepth {
    const { broadcasts: membership, intentQueue: intents, queryQueue: queries, eventQueue: events } =
      this.#core.sizes;
    return { membership, intents, queries, events, total: membership + intents + queries + events };
  }

  /** How much an event, a query and an answer can carry. */
  get limits(): PayloadLimits {
    return payloadLimits(this.#core);
  }

  /** The key ring, the primary first; copies. Undefined where gossip is not encrypted. */
  keys(): Uint8Array[] | undefined {
    return this.#keyring?.keys();
  }

  /** Calls `listener` with the outcome of every probe from now on; the result ends that. */
  listenProbes(listener: ProbeListener): () => void {
    this.#probeListeners.add(listener);
    this.#core.reportProbes = true;
    return () => {
      this.#probeListeners.delete(listener);
      this.#core.reportProbes = this.#probeListeners.size > 0;
    };
  }

  /** Calls `listener` for every event from now on; the result ends that. */
  listen(listener: SerfListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Joins through the addresses: `host`, `host:port`, `name/host:port`, or `_service._proto.name` for a service in DNS.
   * Gives how many members answered; this node's own address is passed over. Throws {@linkcode SerfError} with every
   * reason where none did.
   */
  join(addresses: readonly string[], options: JoinOptions = {}): Promise<number> {
    return this.#joiner.join(addresses, { ...options, signal: this.#orStop(options.signal) });
  }

  /** Joins as {@linkcode join} does, again and again with growing, jittered pauses, until a member answers. */
  retryJoin(addresses: readonly string[], options: RetryOptions = {}): Promise<number> {
    return this.#joiner.retry(addresses, { ...options, signal: this.#orStop(options.signal) });
  }

  #orStop(signal: AbortSignal | undefined): AbortSignal {
    return signal ? AbortSignal.any([this.#stop.signal, signal]) : this.#stop.signal;
  }

  #contact(endpoint: Endpoint, options: JoinOptions): Promise<string | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    const abort = () => reject(options.signal?.reason);
    options.signal?.addEventListener("abort", abort, { once: true });
    const ignoreOld = options.ignoreOld ?? true;
    this.#driver.run((nowMs) => this.#core.join(nowMs, endpoint, { ignoreOld }, resolve));
    return promise.finally(() => options.signal?.removeEventListener("abort", abort));
  }

  /** Looks for members of an earlier life in the background, until somebody is found. */
  rejoin(former: readonly Address[]): void {
    this.#driver.run((nowMs) => this.#core.rejoin(nowMs, former));
  }

  /**
   * Leaves the cluster gracefully; afterwards the node can only be disposed of. Takes a second or two; resolves after
   * `timeoutMs` at the latest, however bad the network is.
   */
  leave(options: { timeoutMs?: number } = {}): Promise<void> {
    return this.#leaving ??= this.#leave(options.timeoutMs ?? LEAVE_TIMEOUT_MS);
  }

  async #leave(timeoutMs: number): Promise<void> {
    await this.#within(timeoutMs, (done) => this.#driver.run((nowMs) => this.#core.leave(nowMs, done)));
    await this.#snapshot?.leave();
  }

  /**
   * Makes a failed member one that left, so that no one tries to reach it; `prune` forgets it at once. Resolves once
   * enough members were told, or after a few seconds.
   */
  forceLeave(node: string, options: { prune?: boolean } = {}): Promise<void> {
    const prune = options.prune ?? false;
    return this.#within(LEAVE_TIMEOUT_MS, (done) => {
      this.#driver.run((nowMs) => this.#core.forceLeave(nowMs, node, { prune }, done));
    });
  }

  /** Resolves when `begin` says so, the time is over, or this node is disposed of. */
  #within(timeoutMs: number, begin: (done: () => void) => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { signal } = this.#stop;
    const finish = () => resolve();
    const cancel = this.#clock.after(timeoutMs, finish);
    signal.addEventListener("abort", finish, { once: true });
    if (signal.aborted) finish();
    else begin(finish);
    return promise.finally(() => {
      cancel();
      signal.removeEventListener("abort", finish);
    });
  }

  /** Changes this node's tags. Throws RangeError where they exceed 512 bytes. */
  setTags(tags: Readonly<Record<string, string>>): void {
    this.#driver.run((nowMs) => this.#core.setTags(nowMs, new Map(Object.entries(tags))));
  }

  /** Sends an event to every member. Throws {@linkcode SerfError} where it is too long. */
  userEvent(
    name: string,
    payload: Uint8Array | string = NO_BYTES,
    options: { coalesce?: boolean } = {},
  ): void {
    const coalesce = options.coalesce ?? true;
    this.#driver.run((nowMs) => this.#core.userEvent(nowMs, name, toBytes(payload), { coalesce }));
  }

  /** Asks the members; resolves when the time is over or the signal aborts. Throws {@linkcode SerfError}. */
  query(name: string, options: AskOptions = {}): Promise<QueryResult> {
    const { promise, resolve } = Promise.withResolvers<QueryResult>();
    const result: QueryResult = { acks: [], responses: [] };
    const handler = {
      onAck(from: string) {
        result.acks.push(from);
        options.onAck?.(from);
      },
      onResponse(from: string, payload: Uint8Array) {
        result.responses.push({ from, payload });
        options.onResponse?.(from, payload);
      },
      onDone: () => resolve(result),
    };
    const { filters, requestAck, relayFactor, timeoutMs, signal } = options;
    const ltime = this.#driver.run((nowMs) =>
      this.#core.query(nowMs, name, toBytes(options.payload ?? NO_BYTES), {
        filters,
        requestAck,
        relayFactor,
        timeoutMs,
        handler,
      })
    );
    if (signal === undefined) return promise;
    const close = () => this.#driver.run(() => this.#core.queries.close(ltime));
    if (signal.aborted) close();
    else signal.addEventListener("abort", close, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", close));
  }

  /** Answers a query, once and before its deadline. Throws {@linkcode SerfError} otherwise, or where it is too long. */
  respond(query: Query, payload: Uint8Array | string): void {
    this.#driver.run((nowMs) => this.#core.respond(nowMs, query, toBytes(payload)));
  }

  /** Estimated round-trip time to a member in milliseconds; undefined where unknown. */
  rttMs(name: string): number | undefined {
    return this.#core.rttMs(name);
  }

  /** Asks every living member whether it is there (`serf reachability`); ends when all answered, or after the time. */
  async reachability(options: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<Reachability> {
    const living = this.#living();
    const missing = new Set(living);
    const complete = new AbortController();
    const { acks } = await this.query("_serf_ping", {
      requestAck: true,
      timeoutMs: options.timeoutMs,
      signal: options.signal ? AbortSignal.any([complete.signal, options.signal]) : complete.signal,
      onAck: (from) => {
        missing.delete(from);
        if (missing.size === 0) queueMicrotask(() => complete.abort());
      },
    });
    return { members: living.length, acks, missing: [...missing] };
  }

  #living(): string[] {
    const living: string[] = [];
    for (const member of this.#core.members.values()) {
      if (member.status === MemberStatus.alive) living.push(member.name);
    }
    return living;
  }

  /** Adds a key to every member's ring. */
  installKey(key: Uint8Array, options?: { timeoutMs?: number }): Promise<KeyResult> {
    return this.#keyQuery("install-key", key, options);
  }

  /** Makes an installed key the primary of every member. */
  useKey(key: Uint8Array, options?: { timeoutMs?: number }): Promise<KeyResult> {
    return this.#keyQuery("use-key", key, options);
  }

  /** Removes a key from every member's ring. */
  removeKey(key: Uint8Array, options?: { timeoutMs?: number }): Promise<KeyResult> {
    return this.#keyQuery("remove-key", key, options);
  }

  /** Asks every member for its keys. */
  listKeys(options?: { timeoutMs?: number }): Promise<KeyResult> {
    return this.#keyQuery("list-keys", NO_BYTES, options);
  }

  /** Stops without a goodbye: others will see this node fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new SerfError("Cannot go on: this node is stopping"));
    await this.#driver[Symbol.asyncDispose]();
    await this.#snapshot?.[Symbol.asyncDispose]();
  }

  async #keyQuery(
    operation: KeyOperation,
    key: Uint8Array,
    options: { timeoutMs?: number } = {},
  ): Promise<KeyResult> {
    const result = emptyKeyResult(this.#living());
    const complete = new AbortController();
    await this.query(`_serf_${operation}`, {
      payload: encodeKeyRequest(key),
      timeoutMs: options.timeoutMs,
      signal: complete.signal,
      onResponse: (from, payload) => {
        noteKeyResponse(result, from, payload);
        if (result.missing.length === 0) queueMicrotask(() => complete.abort());
      },
    });
    return result;
  }

  #onEvent(event: SerfEvent): void {
    if (event.kind === "probe") return this.#tell(this.#probeListeners, event);
    this.#snapshot?.event(event);
    if (event.kind === "keyring") this.#saveKeys?.();
    if (event.kind === "name-lost") this.#lost.resolve();
    this.#tell(this.#listeners, event);
  }

  #tell<E extends SerfEvent>(listeners: ReadonlySet<(event: E) => void>, event: E): void {
    for (const listener of listeners) {
      try {
        listener(event);
      } catch (error) {
        this.#log.error("gossip listener failed", {
          event: event.kind,
          reason: error instanceof Error ? error.message : String(error),
        });
      }
    }
  }
}

function toBytes(payload: Uint8Array | string): Uint8Array {
  return typeof payload === "string" ? utf8(payload) : payload;
}
