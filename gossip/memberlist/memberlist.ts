import { DecodeError } from "../codec/error.ts";
import { type Claim, Claims } from "../codec/claims.ts";
import { decodeAccusation } from "../codec/messages.ts";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { PacketCodec, type WrapOptions } from "../codec/packet.ts";
import { encodePushPull, type PushPull } from "../codec/push_pull.ts";
import { StreamCodec, type StreamMessage } from "../codec/stream.ts";
import { MessageType, NodeState } from "../codec/types.ts";
import type { Endpoint } from "../endpoint.ts";
import { TimerHeap } from "../timers.ts";
import { AntiEntropy } from "./anti_entropy.ts";
import { Awareness } from "./awareness.ts";
import type { MemberlistConfig } from "./config.ts";
import { type Context, type Counters, type Delegate, type Effect, newCounters } from "./context.ts";
import { Exchanges, type MergeResult } from "./exchanges.ts";
import { Gossiper } from "./gossip.ts";
import { Membership } from "./membership.ts";
import type { Node } from "./node.ts";
import { NodeTable } from "./node_table.ts";
import { Prober } from "./prober.ts";
import { type DialResult, Streams } from "./streams.ts";
import { versionConflict } from "./versions.ts";

/** What a {@linkcode Memberlist} is made of. */
export interface MemberlistOptions extends WrapOptions {
  config: MemberlistConfig;
  /** Address and port that others are told. */
  advertise: Endpoint;
  delegate: Delegate;
}

/**
 * SWIM with Lifeguard as hashicorp's memberlist speaks it, as a state machine: packets, stream messages, time and
 * commands go in, {@linkcode Effect}s come out. It knows no clock and no socket.
 */
export class Memberlist {
  readonly #ctx: Context;
  readonly #gossiper: Gossiper;
  readonly #membership: Membership;
  readonly #prober: Prober;
  readonly #streams: Streams;
  readonly #exchanges: Exchanges;
  readonly #antiEntropy: AntiEntropy;
  readonly #reader: MsgpackReader;
  #effects: Effect[] = [];

  constructor(options: MemberlistOptions) {
    const { config, random, delegate } = options;
    const claims = options.claims ?? new Claims();
    const effects = () => this.#effects;
    const { name, meta, vsn } = config;
    const { addr, port } = options.advertise;
    this.#reader = new MsgpackReader({ strings: claims.strings });
    this.#ctx = {
      nowMs: 0,
      config,
      random,
      timers: new TimerHeap(),
      table: new NodeTable(random),
      awareness: new Awareness(config.awarenessMaxMultiplier),
      packets: new PacketCodec(options),
      streams: new StreamCodec({ ...options, claims }),
      claims,
      delegate,
      counters: newCounters(),
      get effects() {
        return effects();
      },
      self: delegate.createNode(claims.of({ node: name, addr, port, meta, vsn, incarnation: 0 }), 0),
      left: false,
    };
    this.#gossiper = new Gossiper(this.#ctx);
    this.#antiEntropy = new AntiEntropy(this.#ctx, () => this.#exchange());
    this.#membership = new Membership(this.#ctx, {
      gossiper: this.#gossiper,
      changed: () => this.#antiEntropy.changed(),
    });
    this.#streams = new Streams(this.#ctx);
    this.#exchanges = new Exchanges(this.#ctx, {
      streams: this.#streams,
      local: (join) => this.#localPushPull(join),
      merge: (remote, merging) => this.#merge(remote, merging),
    });
    this.#prober = new Prober(this.#ctx, {
      gossiper: this.#gossiper,
      streams: this.#streams,
      suspect: (node) =>
        this.#membership.suspect({ incarnation: node.incarnation, node: node.name, from: config.name }),
    });
    this.#membership.useProber(this.#prober);
  }

  /** Wraps and reads streams for the driver. */
  get streamCodec(): StreamCodec {
    return this.#ctx.streams;
  }

  /** Timers shared with the layer above. */
  get timers(): TimerHeap {
    return this.#ctx.timers;
  }

  get nowMs(): number {
    return this.#ctx.nowMs;
  }

  get config(): MemberlistConfig {
    return this.#ctx.config;
  }

  get self(): Node {
    return this.#ctx.self;
  }

  get counters(): Readonly<Counters> {
    return this.#ctx.counters;
  }

  /** Lifeguard's health score; 0 is healthy. */
  get healthScore(): number {
    return this.#ctx.awareness.score;
  }

  /** Sizes of everything that could grow. */
  get sizes(): {
    nodes: number;
    broadcasts: number;
    pendingPings: number;
    openStreams: number;
    timers: number;
  } {
    return {
      nodes: this.#ctx.table.size,
      broadcasts: this.#gossiper.queue.size,
      pendingPings: this.#prober.pending,
      openStreams: this.#streams.open,
      timers: this.#ctx.timers.size,
    };
  }

  /** Bytes that messages and their heads may take in one packet. */
  get packetRoom(): number {
    return this.#ctx.config.udpBufferBytes - this.#ctx.packets.overhead;
  }

  /** Every node known, this one and the lately dead included. */
  nodes(): readonly Node[] {
    return this.#ctx.table.values();
  }

  node(name: string): Node | undefined {
    return this.#ctx.table.get(name);
  }

  /** Up to `count` random living nodes other than this one that `isEligible` takes. */
  pick(count: number, isEligible: (node: Node) => boolean = () => true): Node[] {
    const { self, table } = this.#ctx;
    return table.pick(count, (node) => node !== self && node.state === NodeState.alive && isEligible(node));
  }

  /** What the driver has to do; taken, not copied. */
  takeEffects(): Effect[] {
    const effects = this.#effects;
    if (effects.length > 0) this.#effects = [];
    return effects;
  }

  /** When {@linkcode tick} is due next; undefined where nothing is. */
  nextWakeMs(): number | undefined {
    return this.#ctx.timers.nextMs;
  }

  /** Begins: this node is alive, probes, gossips and exchanges state. */
  start(nowMs: number): void {
    this.#ctx.nowMs = nowMs;
    this.#membership.bootstrap();
    this.#gossiper.start();
    this.#prober.start();
    this.#antiEntropy.start();
  }

  /** Runs the timers that are due. */
  tick(nowMs: number): void {
    this.#ctx.nowMs = nowMs;
    this.#ctx.timers.run(nowMs);
  }

  /** Takes a packet. A bad one is counted and dropped; the error tells why, undefined that all went well. */
  receivePacket(nowMs: number, from: Endpoint, packet: Uint8Array): DecodeError | undefined {
    const { counters, packets } = this.#ctx;
    this.#ctx.nowMs = nowMs;
    counters.packetsReceived++;
    counters.bytesReceived += packet.length;
    let bad: DecodeError | undefined;
    const guarded = (run: () => void) => {
      try {
        run();
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error;
        bad ??= error;
      }
    };
    // Each message by itself: one that cannot be read must not cost those that follow it in the packet.
    guarded(() =>
      packets.open(packet, (bytes, start, end) => guarded(() => this.#dispatch(bytes, start, end, from)))
    );
    if (bad !== undefined) counters.packetsBad++;
    return bad;
  }

  #dispatch(bytes: Uint8Array, start: number, end: number, from: Endpoint): void {
    this.#ctx.counters.messagesReceived++;
    const reader = this.#reader.reset(bytes, start + 1, end);
    switch (bytes[start]) {
      case MessageType.ping:
        return this.#prober.receivePing(reader, from);
      case MessageType.indirectPing:
        return this.#prober.receiveIndirectPing(reader, from);
      case MessageType.ack:
        return this.#prober.receiveAck(reader);
      case MessageType.nack:
        return this.#prober.receiveNack(reader);
      case MessageType.alive:
        return this.#membership.alive(this.#ctx.claims.fromAlive(bytes, start, end));
      case MessageType.suspect:
        return this.#membership.suspect(decodeAccusation(reader));
      case MessageType.dead:
        return this.#membership.dead(decodeAccusation(reader));
      case MessageType.user:
        return this.#ctx.delegate.userMessage(bytes, start + 1, end);
      default:
        throw new DecodeError("packet", `message type ${bytes[start]} is not one of packets`);
    }
  }

  /** Takes what came over an accepted stream; an `answer` effect follows for the same id. */
  receiveStream(nowMs: number, id: number, message: StreamMessage): void {
    this.#ctx.nowMs = nowMs;
    this.#ctx.counters.streamsServed++;
    if (message.retired) return this.#answerKnock(id, message);
    switch (message.kind) {
      case "pushPull": {
        const own = this.#localPushPull(message.message.join);
        this.#streams.answer(id, encodePushPull(own), message.key);
        this.#merge(message.message);
        return;
      }
      case "ping":
        return this.#streams.answerPing(id, message);
      case "user":
        this.#streams.answer(id);
        return this.#ctx.delegate.userMessage(message.message, 0, message.message.length);
      case "ack":
      case "err":
        return this.#streams.answer(id);
    }
  }

  /** Under a removed key nothing is believed and nothing said, but for what only one node can read. */
  #answerKnock(id: number, message: StreamMessage): void {
    const { delegate } = this.#ctx;
    const userState = message.kind === "pushPull"
      ? delegate.answerKnock(message.message.userState)
      : undefined;
    if (userState === undefined) {
      return this.#streams.answerBad(id, new DecodeError("stream", "no key of the ring opens it"));
    }
    this.#streams.answer(id, encodePushPull({ join: false, nodes: [], userState }), message.key);
  }

  /** Takes the error of an accepted stream that could not be read. */
  receiveBadStream(nowMs: number, id: number, error: DecodeError): void {
    this.#ctx.nowMs = nowMs;
    this.#streams.answerBad(id, error);
  }

  /** A stream was closed unheard, because too many are served. */
  streamRefused(): void {
    this.#ctx.counters.streamsRefused++;
  }

  /** Takes the outcome of a `dial` effect. */
  dialed(nowMs: number, id: number, result: DialResult): void {
    this.#ctx.nowMs = nowMs;
    this.#streams.dialed(id, result);
  }

  /** Exchanges whole states with one node; `done` gets the reason of a failure. */
  pushPull(to: Endpoint, options: { join: boolean }, done: (error: string | undefined) => void): void {
    this.#exchanges.begin(to, options, done);
  }

  /** Sends a Serf message, with its type byte, to one node by packet. */
  sendUser(to: Endpoint, message: Uint8Array): void {
    this.#gossiper.send(to, withType(MessageType.user, message), { piggyback: false });
  }

  /** Sends a Serf message by stream. */
  sendUserStream(to: Endpoint, message: Uint8Array, done: (error: string | undefined) => void): void {
    this.#streams.sendUser(to, message, done);
  }

  /** Changes this node's meta data and tells everyone. */
  updateMeta(meta: Uint8Array): void {
    this.#membership.updateSelf(meta);
  }

  /** The layer above queued something: see to it that it is sent. */
  kick(): void {
    this.#gossiper.kick();
  }

  /** Every node kept by name, also those that memberlist has forgotten and the layer above wants. */
  get table(): NodeTable {
    return this.#ctx.table;
  }

  /** Enters nodes as alive without telling anyone: a cluster that is known beforehand. */
  preload(nowMs: number, nodes: readonly Claim[]): void {
    this.#ctx.nowMs = nowMs;
    this.#membership.preload(nodes);
  }

  /** Says goodbye; `done` follows once enough nodes were told. Pings are answered on. */
  leave(done: () => void): void {
    const { self } = this.#ctx;
    if (this.#ctx.left) return done();
    this.#ctx.left = true;
    this.#prober.stop();
    const alone = !this.nodes().some((node) => node !== self && !node.gone);
    this.#membership.dead({ incarnation: self.incarnation, node: self.name, from: self.name }, {
      onSent: alone ? undefined : done,
    });
    if (alone) done();
  }

  #exchange(): void {
    const [partner] = this.pick(1);
    if (partner === undefined || this.#ctx.left) return;
    this.pushPull(partner.endpoint, { join: false }, () => {});
  }

  #localPushPull(join: boolean): PushPull {
    const nodes = this.nodes().map(({ state, incarnation, claim }) => {
      if (state === NodeState.alive && incarnation === claim.incarnation) return claim;
      const { node, addr, port, meta, vsn } = claim;
      return { node, addr, port, meta, vsn, incarnation, state };
    });
    return { join, nodes, userState: this.#ctx.delegate.localState(join) };
  }

  #merge(
    remote: PushPull,
    options: { knocked: boolean; answered?: boolean } = { knocked: false },
  ): MergeResult {
    const { counters, delegate } = this.#ctx;
    counters.pushPulls++;
    const conflict = versionConflict(remote.nodes, this.nodes());
    if (conflict !== undefined) {
      counters.mergesRefused++;
      return { error: conflict };
    }
    const { knocked, answered } = options;
    this.#membership.merge(remote.nodes, { answered: answered ?? false });
    if (remote.userState.length === 0) return {};
    try {
      return { renewed: delegate.mergeRemoteState(remote.userState, { join: remote.join, knocked }) };
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      counters.streamsFailed++;
      return { error: error.message };
    }
  }
}

function withType(type: number, message: Uint8Array): Uint8Array {
  const out = new Uint8Array(message.length + 1);
  out[0] = type;
  out.set(message, 1);
  return out;
}
