import {
  decodeAck,
  decodeIndirectPing,
  decodeNack,
  decodePing,
  encodeAck,
  encodeIndirectPing,
} from "../codec/messages.ts";
import { encodeNack, encodePing, encodeSuspect } from "../codec/messages.ts";
import type { MsgpackReader } from "../codec/msgpack_reader.ts";
import type { Claim } from "../codec/claims.ts";
import { NodeState, type Ping } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import type { Timer } from "../timers.ts";
import type { Context } from "./context.ts";
import type { Gossiper } from "./gossip.ts";
import type { Node } from "./node.ts";
import type { Streams } from "./streams.ts";

/** Pings awaiting an answer at once; more are not sent. */
export const MAX_PENDING = 4_096;
/** Claims of a name at another address that are checked at once. */
export const MAX_CHECKS = 64;
/** Times that a node is asked for at two addresses where neither answers: of either answer the packets may be lost. */
const CHECK_ROUNDS = 4;
/** Pings of a last call. */
const LAST_CALL_PINGS = 3;
const U32 = 0xffff_ffff;

interface Pending {
  onAck(payload: Uint8Array | undefined): void;
  onNack(): void;
}

/** Failure detection: probes one node per interval, asks others to help, answers everyone's pings. */
export class Prober {
  readonly #ctx: Context;
  readonly #gossiper: Gossiper;
  readonly #streams: Streams;
  readonly #suspect: (node: Node) => void;
  readonly #pending = new Map<number, Pending>();
  /** The newest claim of each name that is being checked. */
  readonly #checks = new Map<string, Claim>();
  #lastSeqNo = 0;
  #position = 0;
  #probing = false;
  #tick: Timer | undefined;

  /** `suspect` is told of a node that could not be reached. */
  constructor(ctx: Context, parts: { gossiper: Gossiper; streams: Streams; suspect: (node: Node) => void }) {
    this.#ctx = ctx;
    this.#gossiper = parts.gossiper;
    this.#streams = parts.streams;
    this.#suspect = parts.suspect;
  }

  /** Pings and relayed pings awaiting an answer. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Begins to probe, at a random point of the interval. */
  start(): void {
    const { nowMs, random, config } = this.#ctx;
    this.#arm(nowMs + random.float() * config.probeIntervalMs);
  }

  #arm(atMs: number): void {
    this.#tick = this.#ctx.timers.set(atMs, () => {
      this.#arm(atMs + this.#ctx.config.probeIntervalMs);
      if (!this.#probing) this.#probeNext();
    });
  }

  /** Stops probing; pings are still answered. */
  stop(): void {
    if (this.#tick) this.#tick.cancel();
  }

  #probeNext(): void {
    const { table, self, nowMs, config, delegate } = this.#ctx;
    for (let seen = 0; seen < table.size; seen++) {
      if (this.#position >= table.size) {
        table.sweep(
          (node) => node.gone && node !== self && nowMs - node.stateChangeMs > config.gossipToTheDeadMs,
          (node) => delegate.wantsNode(node),
        );
        this.#position = 0;
        if (table.size === 0) return;
      }
      const node = table.at(this.#position++);
      if (node !== self && !node.gone) return this.#probe(node);
    }
  }

  #probe(node: Node): void {
    const { config, awareness, timers, nowMs, counters, delegate } = this.#ctx;
    counters.probes++;
    this.#probing = true;
    const seqNo = this.#nextSeqNo();
    const startMs = nowMs;
    const endMs = startMs + awareness.scale(config.probeIntervalMs);
    let expectedNacks = 0;
    let nacks = 0;
    let tcpAnswered = false;
    let helpersAsked = false;

    const succeed = () => {
      helpers.cancel();
      end.cancel();
      this.#pending.delete(seqNo);
      this.#probing = false;
      awareness.apply(-1);
    };
    const helpers = timers.set(Math.min(startMs + config.probeTimeoutMs, endMs), () => {
      helpersAsked = true;
      expectedNacks = this.#askHelpers(node, seqNo);
      if (config.probeTimeoutMs >= endMs - startMs || node.protocolMax < 3) return;
      this.#streams.ping(node, { seqNo, endMs }, () => tcpAnswered = true);
    });
    const end = timers.set(endMs, () => {
      this.#pending.delete(seqNo);
      this.#probing = false;
      delegate.probed(node, tcpAnswered ? "stream" : "failed", undefined);
      if (tcpAnswered) {
        awareness.apply(-1);
        return;
      }
      counters.probesFailed++;
      awareness.apply(expectedNacks > 0 ? Math.max(0, expectedNacks - nacks) : 1);
      this.#suspect(node);
    });
    this.#pending.set(seqNo, {
      onAck: (payload) => {
        const rttMs = helpersAsked ? undefined : this.#ctx.nowMs - startMs;
        succeed();
        delegate.probed(node, helpersAsked ? "late" : "direct", rttMs);
        // Last, for a peer's payload may be nonsense, and its node is there all the same.
        if (rttMs !== undefined) delegate.pingCompleted(node, rttMs, payload);
      },
      onNack: () => nacks++,
    });
    const suspected = node.state === NodeState.alive ? undefined : encodeSuspect({
      incarnation: node.incarnation,
      node: node.name,
      from: config.name,
    });
    this.#gossiper.send(node.endpoint, encodePing(this.#pingTo(node.name, seqNo)), {
      piggyback: true,
      extra: suspected,
    });
  }

  /** Asks up to k nodes to ping for us; returns how many of them say so when they get no answer. */
  #askHelpers(node: Node, seqNo: number): number {
    const { table, self, config } = this.#ctx;
    const isHelper = (candidate: Node) =>
      candidate !== self && candidate !== node && candidate.state === NodeState.alive;
    let nacking = 0;
    for (const helper of table.pick(config.indirectChecks, isHelper)) {
      const nack = helper.protocolMax >= 4;
      if (nack) nacking++;
      const message = encodeIndirectPing({
        ...this.#pingTo(node.name, seqNo),
        target: node.endpoint.addr,
        port: node.endpoint.port,
        nack,
      });
      this.#gossiper.send(helper.endpoint, message, { piggyback: true });
    }
    return nacking;
  }

  /** Answers a ping; the reader stands after the type byte. */
  receivePing(reader: MsgpackReader, from: Endpoint): void {
    const ping = decodePing(reader);
    if (ping.node !== "" && ping.node !== this.#ctx.config.name) return;
    const ack = encodeAck({ seqNo: ping.seqNo, payload: this.#ctx.delegate.ackPayload() });
    this.#gossiper.send(replyTo(ping, from), ack, { piggyback: true });
  }

  /** Pings for another node; the reader stands after the type byte. */
  receiveIndirectPing(reader: MsgpackReader, from: Endpoint): void {
    const request = decodeIndirectPing(reader);
    if (this.#pending.size >= MAX_PENDING) return void this.#ctx.counters.limited++;
    const { timers, nowMs, config, self } = this.#ctx;
    const requester = replyTo(request, from);
    const seqNo = this.#nextSeqNo();
    const timeout = timers.set(nowMs + config.probeTimeoutMs, () => {
      this.#pending.delete(seqNo);
      if (request.nack) {
        this.#gossiper.send(requester, encodeNack({ seqNo: request.seqNo }), { piggyback: true });
      }
    });
    this.#pending.set(seqNo, {
      onAck: () => {
        timeout.cancel();
        this.#pending.delete(seqNo);
        this.#gossiper.send(requester, encodeAck({ seqNo: request.seqNo }), { piggyback: true });
      },
      onNack() {},
    });
    const target = new Endpoint(request.target.slice(), request.port || self.endpoint.port);
    this.#gossiper.send(target, encodePing(this.#pingTo(request.node, seqNo)), { piggyback: true });
  }

  /** Takes an ack; the reader stands after the type byte. */
  receiveAck(reader: MsgpackReader): void {
    const ack = decodeAck(reader);
    this.#ctx.counters.acks++;
    this.#pending.get(ack.seqNo)?.onAck(ack.payload);
  }

  /** Takes a nack; the reader stands after the type byte. */
  receiveNack(reader: MsgpackReader): void {
    const { seqNo } = decodeNack(reader);
    this.#ctx.counters.nacks++;
    this.#pending.get(seqNo)?.onNack();
  }

  /**
   * Finds out who answers to a name that is claimed at two addresses. `done` is told whether the known and the claimed
   * one do, and the newest claim of that address that came meanwhile. False where too many checks run, or one of this name.
   */
  checkClaim(
    known: Endpoint | undefined,
    claim: Claim,
    done: (answers: { known: boolean; claimed: boolean }, newest: Claim) => void,
  ): boolean {
    const { self, counters } = this.#ctx;
    const checked = this.#checks.get(claim.node);
    if (checked !== undefined) {
      const isNewer = claim.incarnation > checked.incarnation;
      if (isNewer && checked.endpoint.equals(claim.addr, claim.port)) this.#checks.set(claim.node, claim);
      return false;
    }
    if (this.#checks.size >= MAX_CHECKS) {
      counters.limited++;
      return false;
    }
    this.#checks.set(claim.node, claim);
    const places = {
      known,
      claimed: claim.port ? claim.endpoint : new Endpoint(claim.addr, self.endpoint.port),
    };
    this.#checkPlaces(claim.node, places, {
      // Nobody is known where this node asks about itself: silence is an answer then, and others wait for it.
      rounds: known === undefined ? 1 : CHECK_ROUNDS,
      done: (answers) => {
        const newest = this.#checks.get(claim.node)!;
        this.#checks.delete(claim.node);
        done(answers, newest);
      },
    });
    return true;
  }

  /** Asks for a node at two places; again where neither answers, for as long as there are rounds. */
  #checkPlaces(
    node: string,
    places: { known: Endpoint | undefined; claimed: Endpoint },
    options: { rounds: number; done: (answers: { known: boolean; claimed: boolean }) => void },
  ): void {
    const { timers, nowMs, config } = this.#ctx;
    const answers = { known: false, claimed: false };
    const seqNos: number[] = [];
    const ask = (to: Endpoint, answer: "known" | "claimed") => {
      const seqNo = this.#nextSeqNo();
      seqNos.push(seqNo);
      this.#pending.set(seqNo, { onAck: () => answers[answer] = true, onNack() {} });
      const ping = encodePing(this.#pingTo(node, seqNo));
      // Twice, for one packet may be lost.
      this.#gossiper.send(to, ping, { piggyback: false });
      timers.set(nowMs + config.probeTimeoutMs / 2, () => {
        if (!answers[answer]) this.#gossiper.send(to, ping, { piggyback: false });
      });
    };
    if (places.known !== undefined) ask(places.known, "known");
    ask(places.claimed, "claimed");
    timers.set(nowMs + config.probeTimeoutMs, () => {
      for (const seqNo of seqNos) this.#pending.delete(seqNo);
      const rounds = options.rounds - 1;
      if (answers.known || answers.claimed || rounds === 0) options.done(answers);
      else this.#checkPlaces(node, places, { ...options, rounds });
    });
  }

  /**
   * Asks a suspected node a last time, by packets that tell it of the suspicion and by stream; `done` is told after
   * `withinMs` at the latest whether it answered.
   */
  callLast(node: Node, withinMs: number, done: (answered: boolean) => void): void {
    const { timers, nowMs, config } = this.#ctx;
    const seqNo = this.#nextSeqNo();
    const suspicion = encodeSuspect({ incarnation: node.incarnation, node: node.name, from: config.name });
    let over = false;
    const finish = (answered: boolean) => {
      if (over) return;
      over = true;
      end.cancel();
      this.#pending.delete(seqNo);
      done(answered);
    };
    const end = timers.set(nowMs + withinMs, () => finish(false));
    this.#pending.set(seqNo, { onAck: () => finish(true), onNack() {} });
    const ping = encodePing(this.#pingTo(node.name, seqNo));
    for (let i = 0; i < LAST_CALL_PINGS; i++) {
      timers.set(nowMs + (withinMs * i) / LAST_CALL_PINGS, () => {
        if (!over) this.#gossiper.send(node.endpoint, ping, { piggyback: false, extra: suspicion });
      });
    }
    if (node.protocolMax >= 3) {
      this.#streams.ping(node, { seqNo, endMs: nowMs + withinMs }, () => finish(true));
    }
  }

  #pingTo(node: string, seqNo: number): Ping {
    const { self, config } = this.#ctx;
    return {
      seqNo,
      node,
      sourceAddr: self.endpoint.addr,
      sourcePort: self.endpoint.port,
      sourceNode: config.name,
    };
  }

  #nextSeqNo(): number {
    return this.#lastSeqNo = this.#lastSeqNo === U32 ? 1 : this.#lastSeqNo + 1;
  }
}

function replyTo(ping: Ping, from: Endpoint): Endpoint {
  return ping.sourceAddr && ping.sourcePort ? new Endpoint(ping.sourceAddr.slice(), ping.sourcePort) : from;
}
