import { DecodeError } from "../codec/error.ts";
import { encodeFilter, type QueryFilter } from "../codec/filter.ts";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { decodeConflictResponse, decodeRelayHeader, encodeConflictResponse } from "../codec/serf_internal.ts";
import { encodeRelay } from "../codec/serf_internal.ts";
import * as codec from "../codec/serf_messages.ts";
import { fromUtf8, NO_BYTES, utf8 } from "../codec/text.ts";
import { Endpoint } from "../endpoint.ts";
import type { Memberlist } from "../memberlist/memberlist.ts";
import type { Random } from "../random.ts";
import type { SerfConfig } from "./config.ts";
import type { SerfCounters } from "./counters.ts";
import type { QueryEvent, SerfEvent } from "./events.ts";
import { filterFault, filtersMatch } from "./filters.ts";
import type { KeyManager, KeyOperation } from "./key_queries.ts";
import type { Member } from "./member.ts";
import type { Members } from "./members.ts";
import { asUser } from "./broadcasts.ts";
import { OpenQueries, type QueryHandler } from "./open_queries.ts";
import { QueryLog } from "./query_log.ts";
import type { SeenMessages } from "./seen.ts";

/** Queries of others that await this node's answer; more are not delivered. */
export const MAX_UNANSWERED = 4_096;
/** Named nodes of a filter that get a query straight from its author. */
const DIRECT_TARGETS = 16;
/** Queries among the agents themselves; applications never see them. */
const INTERNAL_PREFIX = "_serf_";

/** What a query may be told besides its name and payload. */
export interface QueryOptions {
  filters?: readonly QueryFilter[];
  /** Whether everyone who gets the query shall say so at once. */
  requestAck?: boolean;
  /** Other members that carry each answer as well. */
  relayFactor?: number;
  /** Absent means the default for the size of the cluster. */
  timeoutMs?: number;
}

/** A command that this node refuses; the message says what and why. */
export class SerfError extends Error {
  override readonly name = "SerfError";
}

interface Unanswered {
  message: codec.QueryMessage;
  deadlineMs: number;
}

/** What the queries need of the rest of Serf. */
export interface QueriesOptions {
  config: SerfConfig;
  memberlist: Memberlist;
  members: Members;
  keys: KeyManager;
  random: Random;
  counters: SerfCounters;
  emit(event: SerfEvent): void;
  seen: SeenMessages;
  /** Queues a query, with memberlist's type byte, for everyone. */
  broadcast(message: Uint8Array): void;
}

/** Asks and answers queries (sections 5.6 to 5.8 of the protocol notes). */
export class Queries {
  readonly log: QueryLog;
  readonly #options: QueriesOptions;
  readonly #open: OpenQueries;
  readonly #unanswered = new Map<string, Unanswered>();
  #voting = false;

  constructor(options: QueriesOptions) {
    this.#options = options;
    this.log = new QueryLog(options.config.queryBuffer);
    this.#open = new OpenQueries(options.memberlist.timers);
  }

  /** Queries of this node that are open. */
  get open(): number {
    return this.#open.size;
  }

  /** Queries of others that await this node's answer. */
  get unanswered(): number {
    return this.#unanswered.size;
  }

  /** How long a query stays open by default. */
  defaultTimeoutMs(): number {
    const { memberlist, config, members } = this.#options;
    const scale = Math.ceil(Math.log10(members.aliveCount + 1));
    return memberlist.config.gossipIntervalMs * config.queryTimeoutMult * Math.max(1, scale);
  }

  /**
   * Asks; gives the query's Lamport time, by which it can be closed. Throws {@linkcode SerfError} where it is too long, or
   * has a filter that would take nobody.
   */
  ask(name: string, payload: Uint8Array, options: QueryOptions & { handler: QueryHandler }): number {
    const { memberlist, config, members, random } = this.#options;
    const fault = options.filters?.map(filterFault).find((each) => each !== undefined);
    if (fault !== undefined) throw new SerfError(`Cannot send query "${name}": ${fault}`);
    const ltime = this.log.clock.time;
    const timeoutMs = options.timeoutMs ?? this.defaultTimeoutMs();
    const message: codec.QueryMessage = {
      ltime,
      id: random.int(0x7fff_ffff),
      addr: memberlist.self.endpoint.addr,
      port: memberlist.self.endpoint.port,
      sourceNode: memberlist.self.name,
      filters: (options.filters ?? []).map(encodeFilter),
      flags: options.requestAck ? codec.QueryFlag.ack : 0,
      relayFactor: options.relayFactor ?? 0,
      timeoutNs: Math.round(timeoutMs * 1e6),
      name,
      payload: payload.length === 0 ? undefined : payload,
    };
    const encoded = codec.encodeQuery(message);
    if (encoded.length > config.querySizeLimit) {
      throw new SerfError(
        `Cannot send query "${name}": ${encoded.length} bytes exceed the limit of ${config.querySizeLimit}`,
      );
    }
    const deadlineMs = memberlist.nowMs + timeoutMs;
    if (
      !this.#open.open(ltime, message.id, { handler: options.handler, deadlineMs, members: members.size })
    ) {
      this.#options.counters.limited++;
      throw new SerfError(`Cannot send query "${name}": too many queries are open`);
    }
    this.#take(message, asUser(encoded));
    this.#sendToNamed(options.filters ?? [], encoded);
    return ltime;
  }

  /** Ends a query of this node early. */
  close(ltime: number): void {
    this.#open.close(ltime);
  }

  /** Ends all queries of this node. */
  closeAll(): void {
    this.#open.closeAll();
  }

  /** Whom a filter names gets the query at once, however large the cluster. */
  #sendToNamed(filters: readonly QueryFilter[], encoded: Uint8Array): void {
    const { memberlist, members } = this.#options;
    for (const filter of filters) {
      if (filter.kind !== "nodes") continue;
      for (const name of filter.nodes.slice(0, DIRECT_TARGETS)) {
        const member = members.get(name);
        if (member !== undefined && name !== memberlist.self.name) {
          memberlist.sendUser(member.endpoint, encoded);
        }
      }
    }
  }

  /** Takes a query from the network; `queued` is the whole message, as others are told. */
  receive(reader: MsgpackReader, queued: Uint8Array): void {
    const message = codec.decodeQuery(reader);
    if (message.addr.length !== 4 && message.addr.length !== 16) {
      throw new DecodeError("query", `the address of its author has ${message.addr.length} bytes`);
    }
    this.#take(message, queued);
  }

  #take(message: codec.QueryMessage, queued: Uint8Array): void {
    const { memberlist, members, broadcast, seen } = this.#options;
    seen.add(queued);
    const verdict = this.log.accept(message.ltime, message.id);
    if (verdict === "too-many") this.#options.counters.limited++;
    if (verdict !== "new") return;
    this.#options.counters.queries++;
    if ((message.flags & codec.QueryFlag.noBroadcast) === 0) broadcast(queued);
    const self = members.get(memberlist.self.name);
    if (self === undefined || !filtersMatch(message.filters, self)) return;
    if ((message.flags & codec.QueryFlag.ack) !== 0) {
      this.#send(message, { flags: codec.QueryFlag.ack, payload: undefined });
    }
    if (message.name.startsWith(INTERNAL_PREFIX)) return this.#internal(message);
    this.#deliver(message);
  }

  #deliver(message: codec.QueryMessage): void {
    const { memberlist, emit } = this.#options;
    if (this.#unanswered.size >= MAX_UNANSWERED) return void this.#options.counters.limited++;
    const key = `${message.ltime}/${message.id}`;
    const timeoutMs = Math.min(message.timeoutNs / 1e6, MAX_QUERY_MS);
    const deadlineMs = memberlist.nowMs + timeoutMs;
    this.#unanswered.set(key, { message, deadlineMs });
    memberlist.timers.set(deadlineMs, () => this.#unanswered.delete(key));
    const event: QueryEvent = {
      kind: "query",
      ltime: message.ltime,
      id: message.id,
      name: message.name,
      payload: message.payload ?? NO_BYTES,
      sourceNode: message.sourceNode,
      deadlineMs,
    };
    emit(event);
  }

  /** Answers a delivered query, once. Throws {@linkcode SerfError} where it is answered, over, or the answer too long. */
  respond(query: { ltime: number; id: number }, payload: Uint8Array): void {
    const key = `${query.ltime}/${query.id}`;
    const unanswered = this.#unanswered.get(key);
    if (unanswered === undefined) {
      throw new SerfError(`Cannot answer query ${key}: it is answered already, or its time is over`);
    }
    const { name } = unanswered.message;
    if (!this.#send(unanswered.message, { flags: 0, payload })) {
      const limit = this.#options.config.queryResponseSizeLimit;
      throw new SerfError(
        `Cannot answer query "${name}": ${payload.length} bytes do not fit the limit of ${limit}`,
      );
    }
    this.#unanswered.delete(key);
  }

  /** False where the answer is too long. */
  #send(query: codec.QueryMessage, answer: { flags: number; payload: Uint8Array | undefined }): boolean {
    const { memberlist, config } = this.#options;
    const response: codec.QueryResponseMessage = {
      ltime: query.ltime,
      id: query.id,
      from: memberlist.self.name,
      flags: answer.flags,
      payload: answer.payload,
    };
    const encoded = codec.encodeQueryResponse(response);
    if (encoded.length > config.queryResponseSizeLimit) return false;
    if (
      memberlist.self.endpoint.equals(query.addr, query.port) && query.sourceNode === memberlist.self.name
    ) {
      this.#open.respond(response);
      return true;
    }
    const to = new Endpoint(query.addr, query.port);
    memberlist.sendUser(to, encoded);
    this.#relay(query, to, encoded);
    return true;
  }

  #relay(query: codec.QueryMessage, to: Endpoint, encoded: Uint8Array): void {
    const { memberlist, config, members } = this.#options;
    if (query.relayFactor === 0 || members.size < query.relayFactor + 1) return;
    const relayed = encodeRelay({ addr: to.addr, port: to.port, zone: "", name: query.sourceNode }, encoded);
    if (relayed.length > config.queryResponseSizeLimit) return;
    for (const node of memberlist.pick(query.relayFactor, (candidate) => candidate.protocolMax >= 5)) {
      memberlist.sendUser(node.endpoint, relayed);
    }
  }

  /** Takes an answer; the reader stands after the type byte. */
  receiveResponse(reader: MsgpackReader): void {
    const response = codec.decodeQueryResponse(reader);
    this.#options.counters.queryAnswers++;
    this.#open.respond(response);
  }

  /** Hands a relayed message on; the reader stands after the type byte. */
  receiveRelay(reader: MsgpackReader): void {
    const header = decodeRelayHeader(reader);
    this.#options.counters.relays++;
    const message = reader.bytes.slice(reader.at, reader.end);
    if (message.length === 0) throw new DecodeError("relay", "it holds no message");
    this.#options.memberlist.sendUser(new Endpoint(header.addr, header.port), message);
  }

  #internal(query: codec.QueryMessage): void {
    const operation = query.name.slice(INTERNAL_PREFIX.length);
    switch (operation) {
      case "conflict":
        return this.#answerConflict(query);
      case "install-key":
      case "use-key":
      case "remove-key":
      case "list-keys":
        return this.#answerKeys(query, operation);
    }
  }

  #answerConflict(query: codec.QueryMessage): void {
    const { members, memberlist } = this.#options;
    const name = fromUtf8(query.payload ?? NO_BYTES);
    if (name === undefined || name === memberlist.self.name) return;
    this.#send(query, { flags: 0, payload: encodeConflictResponse(describe(members.get(name))) });
  }

  #answerKeys(query: codec.QueryMessage, operation: KeyOperation): void {
    const { config, keys } = this.#options;
    // Room for the frame of the response, whose names are bounded.
    const limit = config.queryResponseSizeLimit - 64 - this.#options.memberlist.self.name.length;
    const payload = keys.handle(operation, { payload: query.payload ?? NO_BYTES, ltime: query.ltime, limit });
    this.#send(query, { flags: 0, payload });
  }

  /** Asks everyone whose this node's name is, and says so where the majority gives it to another. */
  voteOnName(): void {
    const { memberlist, emit } = this.#options;
    if (this.#voting || this.#open.isFull) return;
    this.#voting = true;
    const { self } = memberlist;
    let answers = 0;
    let votes = 0;
    this.ask(`${INTERNAL_PREFIX}conflict`, utf8(self.name), {
      handler: {
        onResponse: (_from, payload) => {
          if (payload[0] !== codec.SerfType.conflictResponse) return;
          const member = decodeConflictResponse(new MsgpackReader().reset(payload, 1));
          answers++;
          if (member !== undefined && self.endpoint.equals(member.addr, member.port)) votes++;
        },
        onDone: () => {
          this.#voting = false;
          // Serf's agents give up their name where nobody answers; a lost packet shall not stop a node of ours.
          if (answers > 0 && votes < Math.floor(answers / 2) + 1) emit({ kind: "name-lost", votes, answers });
        },
      },
    });
  }
}

/** Longest time that a query of another node is kept open. */
const MAX_QUERY_MS = 3_600_000;

function describe(member: Member | undefined) {
  if (member === undefined) return undefined;
  const [
    protocolMin = 0,
    protocolMax = 0,
    protocolCur = 0,
    delegateMin = 0,
    delegateMax = 0,
    delegateCur = 0,
  ] = member.vsn;
  return {
    name: member.name,
    addr: member.endpoint.addr,
    port: member.endpoint.port,
    tags: member.tags,
    status: member.status,
    protocolMin,
    protocolMax,
    protocolCur,
    delegateMin,
    delegateMax,
    delegateCur,
  };
}
