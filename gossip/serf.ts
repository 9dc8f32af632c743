import { encodeKeyRequest } from "./codec/serf_internal.ts";
import { decodeKeyResponse } from "./codec/serf_internal.ts";
import { DecodeError } from "./codec/error.ts";
import { MsgpackReader } from "./codec/msgpack_reader.ts";
import { SerfType } from "./codec/serf_messages.ts";
import { NO_BYTES, utf8 } from "./codec/text.ts";
import type { QueryFilter } from "./codec/filter.ts";
import { type Log, silentLog } from "./log.ts";
import type { MetricsRegistry } from "./metrics.ts";
import { Driver } from "./net/driver.ts";
import { resolveEndpoints } from "./net/resolve.ts";
import type { SnapshotFile } from "./net/snapshot_file.ts";
import type { Clock, Transport } from "./net/transport.ts";
import type { QueryEvent, SerfEvent } from "./serf/events.ts";
import type { KeyOperation } from "./serf/key_queries.ts";
import type { MemberInfo } from "./serf/member.ts";
import { SerfError } from "./serf/queries.ts";
import type { SerfCore } from "./serf/serf.ts";
import { registerMetrics } from "./serf_metrics.ts";

/** A query of another node (or of this one), to be answered by {@linkcode Serf.respond}. */
export type Query = QueryEvent;

/** Who is told what happens. */
export type SerfListener = (event: SerfEvent) => void;

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

/** What came of a key operation. */
export interface KeyResult {
  /** Whether every living member did it. */
  ok: boolean;
  members: number;
  answers: number;
  /** Reasons by member. */
  errors: Map<string, string>;
  /** For `listKeys`: how many members hold each key (base64). */
  keys: Map<string, number>;
  /** For `listKeys`: how many members have it as primary. */
  primaryKeys: Map<string, number>;
}

/** Parts of a {@linkcode Serf}, put together by `createSerf`. */
export interface SerfParts {
  core: SerfCore;
  transport: Transport;
  clock: Clock;
  log?: Log;
  metrics?: MetricsRegistry;
  /** Opened once the core runs. */
  snapshot?: SnapshotFile;
  /** Stores the key ring. */
  saveKeys?: (keys: Uint8Array[]) => void;
}

/** A running member of a cluster. */
export class Serf implements AsyncDisposable {
  readonly #core: SerfCore;
  readonly #driver: Driver;
  readonly #transport: Transport;
  readonly #snapshot: SnapshotFile | undefined;
  readonly #log: Log;
  readonly #listeners = new Set<SerfListener>();
  readonly #saveKeys: ((keys: Uint8Array[]) => void) | undefined;
  readonly #lost = Promise.withResolvers<void>();

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
    if (parts.metrics) registerMetrics(parts.metrics, this.#core);
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

  /** Calls `listener` for every event from now on; the result ends that. */
  listen(listener: SerfListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Joins through the addresses (`host`, `host:port`, `name/host:port`); gives how many answered. Throws
   * {@linkcode SerfError} where none did.
   */
  async join(
    addresses: readonly string[],
    options: { ignoreOld?: boolean; signal?: AbortSignal } = {},
  ): Promise<number> {
    const reasons: string[] = [];
    let joined = 0;
    for (const address of addresses) {
      options.signal?.throwIfAborted();
      try {
        for (const endpoint of await resolveEndpoints(address, this.#core.memberlist.self.endpoint.port)) {
          const error = await this.#joinOne(endpoint, options);
          if (error === undefined) joined++;
          else reasons.push(`${endpoint}: ${error}`);
        }
      } catch (error) {
        if (options.signal?.aborted) throw error;
        reasons.push(error instanceof Error ? error.message : String(error));
      }
    }
    if (joined === 0 && addresses.length > 0) {
      throw new SerfError(`Cannot join "${addresses.join(", ")}": ${reasons.join("; ")}`);
    }
    return joined;
  }

  #joinOne(
    endpoint: Awaited<ReturnType<typeof resolveEndpoints>>[number],
    options: { ignoreOld?: boolean; signal?: AbortSignal },
  ): Promise<string | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    const abort = () => reject(options.signal?.reason);
    options.signal?.addEventListener("abort", abort, { once: true });
    const ignoreOld = options.ignoreOld ?? true;
    this.#driver.run((nowMs) => this.#core.join(nowMs, endpoint, { ignoreOld }, resolve));
    return promise.finally(() => options.signal?.removeEventListener("abort", abort));
  }

  /** Leaves the cluster gracefully; afterwards the node can only be disposed of. */
  async leave(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#driver.run((nowMs) => this.#core.leave(nowMs, resolve));
    await promise;
    await this.#snapshot?.leave();
  }

  /** Makes a failed member one that left, so that no one tries to reach it; `prune` forgets it at once. */
  forceLeave(node: string, options: { prune?: boolean } = {}): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const prune = options.prune ?? false;
    this.#driver.run((nowMs) => this.#core.forceLeave(nowMs, node, { prune }, resolve));
    return promise;
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
    await this.#driver[Symbol.asyncDispose]();
    await this.#snapshot?.[Symbol.asyncDispose]();
  }

  async #keyQuery(
    operation: KeyOperation,
    key: Uint8Array,
    options: { timeoutMs?: number } = {},
  ): Promise<KeyResult> {
    const members = this.members().filter((member) => member.status === "alive").length;
    const result: KeyResult = {
      ok: false,
      members,
      answers: 0,
      errors: new Map(),
      keys: new Map(),
      primaryKeys: new Map(),
    };
    const complete = new AbortController();
    await this.query(`_serf_${operation}`, {
      payload: encodeKeyRequest(key),
      timeoutMs: options.timeoutMs,
      signal: complete.signal,
      onResponse: (from, payload) => {
        noteKeyResponse(result, from, payload);
        if (result.answers >= members) queueMicrotask(() => complete.abort());
      },
    });
    result.ok = result.errors.size === 0 && result.answers >= members;
    return result;
  }

  #onEvent(event: SerfEvent): void {
    this.#snapshot?.event(event);
    if (event.kind === "keyring") this.#saveKeys?.(event.keys);
    if (event.kind === "name-lost") this.#lost.resolve();
    for (const listener of this.#listeners) {
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

function noteKeyResponse(result: KeyResult, from: string, payload: Uint8Array): void {
  result.answers++;
  try {
    if (payload[0] !== SerfType.keyResponse) {
      throw new DecodeError("key response", `type ${payload[0]} is none`);
    }
    const response = decodeKeyResponse(new MsgpackReader().reset(payload, 1));
    if (!response.result) result.errors.set(from, response.message);
    for (const key of response.keys) result.keys.set(key, (result.keys.get(key) ?? 0) + 1);
    const { primaryKey } = response;
    if (primaryKey !== "") result.primaryKeys.set(primaryKey, (result.primaryKeys.get(primaryKey) ?? 0) + 1);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    result.errors.set(from, error.message);
  }
}

function toBytes(payload: Uint8Array | string): Uint8Array {
  return typeof payload === "string" ? utf8(payload) : payload;
}
