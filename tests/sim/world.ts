import { Claims } from "../../gossip/codec/claims.ts";
import { encodeTags, type Tags } from "../../gossip/codec/tags.ts";
import { Endpoint } from "../../gossip/endpoint.ts";
import { type MemberlistConfig, type Profile, PROFILES } from "../../gossip/memberlist/config.ts";
import { DEFAULT_EAGER } from "../../gossip/memberlist/config.ts";
import type { Effect } from "../../gossip/memberlist/context.ts";
import { type Random, seededRandom } from "../../gossip/random.ts";
import { CommonEvents } from "../../gossip/serf/common_events.ts";
import { DEFAULT_SERF_CONFIG, type SerfConfig } from "../../gossip/serf/config.ts";
import type { SerfEvent } from "../../gossip/serf/events.ts";
import type { Address } from "../../gossip/serf/rejoin.ts";
import { SerfCore } from "../../gossip/serf/serf.ts";
import { type Timer, TimerHeap } from "../../gossip/timers.ts";
import { CALM, type LinkConditions, Network } from "./network.ts";
import { SimNode } from "./node.ts";
import { SimStreams } from "./streams.ts";

export { SimNode };

const PORT = 7946;
const META = encodeTags(new Map());
const VSN = new Uint8Array([1, 5, 2, 2, 5, 4]);
/** Claims that the cores of a world remember: more than there are nodes, so that few share a slot. */
const CLAIM_SLOTS = 32_768;
/** Rounds of inputs that one input may lead to within a node at the same moment. */
const MAX_ROUNDS = 1_000;

/** How a world is made. */
export interface WorldOptions {
  seed: number;
  nodes: number;
  profile: Profile;
  eager: boolean;
  conditions?: LinkConditions;
  serf?: Partial<SerfConfig>;
  /** A node's tags; none by default. */
  tags?: (name: string) => Tags;
  /** Each core keeps for itself what the others have too: the same life, with more time and memory. */
  isApart?: boolean;
  /** Changes each core before it starts: how a deliberately broken build is made. */
  tamper?: (core: SerfCore) => void;
}

/** Thousands of shipping cores on one virtual clock. The README of this folder says how cores on top of gossip come in. */
export class World {
  nowMs = 0;
  readonly random: Random;
  readonly network: Network;
  readonly nodes: SimNode[] = [];
  readonly #timers = new TimerHeap();
  readonly #byAddress = new Map<number, SimNode>();
  readonly #options: WorldOptions;
  /** All cores are in one process: what they have in common is kept once. */
  readonly #claims = new Claims({ slots: CLAIM_SLOTS });
  readonly #events = new CommonEvents();
  readonly #streams: SimStreams;
  #everyone: Address[] | undefined;
  #addresses = 0;
  /** Told of every event of every node. */
  onEvent: (node: SimNode, event: SerfEvent) => void = () => {};

  constructor(options: WorldOptions) {
    this.#options = options;
    this.random = seededRandom(options.seed);
    this.network = new Network(this.random, options.conditions ?? CALM);
    this.#streams = new SimStreams({
      network: this.network,
      timers: this.#timers,
      nowMs: () => this.nowMs,
      input: (node, core, input) => this.#input(node, core, input),
    });
    for (let i = 0; i < options.nodes; i++) {
      const endpoint = this.#newEndpoint();
      const node = new SimNode(i, endpoint, this.#newCore(`node-${i}`, endpoint));
      this.nodes.push(node);
      this.#byAddress.set(key(endpoint), node);
    }
  }

  #newEndpoint(): Endpoint {
    const i = ++this.#addresses;
    return new Endpoint(new Uint8Array([10, (i >> 16) & 255, (i >> 8) & 255, i & 255]), PORT);
  }

  #newCore(name: string, advertise: Endpoint): SerfCore {
    const { profile, eager, tags } = this.#options;
    const config: MemberlistConfig = {
      ...PROFILES[profile],
      name,
      meta: tags ? encodeTags(tags(name)) : META,
      vsn: VSN,
      udpBufferBytes: 1400,
      eager: eager ? DEFAULT_EAGER : undefined,
      deadNodeReclaimMs: 0,
      verifyMoves: true,
      lastCall: true,
    };
    const random = seededRandom(this.random.int(0x7fff_ffff));
    const serf = { ...DEFAULT_SERF_CONFIG, ...this.#options.serf };
    const common = this.#options.isApart ? {} : { claims: this.#claims, events: this.#events };
    const core = new SerfCore({ serf, memberlist: config, advertise, random, ...common });
    this.#options.tamper?.(core);
    return core;
  }

  /** Starts all nodes as a cluster that has formed already: every view is whole from the first moment. */
  startKnown(): void {
    const all = this.nodes.map(({ core }) =>
      this.#claims.of({ ...core.memberlist.self.toAlive(), incarnation: 1 })
    );
    for (const node of this.nodes) {
      this.start(node);
      this.run(node, () => node.core.memberlist.preload(this.nowMs, all));
    }
  }

  start(node: SimNode): void {
    node.up = true;
    node.disturbedMs = this.nowMs;
    this.run(node, () => node.core.start(this.nowMs));
  }

  /** Ends a process without a goodbye. */
  kill(node: SimNode): void {
    node.up = false;
    if (node.wake) node.wake.cancel();
    node.wake = undefined;
    node.wakeMs = Infinity;
  }

  /** Starts a process anew under its name, at its address or, where `moved`, at another. */
  restart(node: SimNode, options: { moved?: boolean } = {}): void {
    const { name } = node;
    if (options.moved) {
      this.#byAddress.delete(key(node.endpoint));
      node.endpoint = this.#newEndpoint();
      this.#byAddress.set(key(node.endpoint), node);
    }
    node.core = this.#newCore(name, node.endpoint);
    this.start(node);
  }

  join(node: SimNode, through: SimNode): void {
    this.run(node, () => node.core.join(this.nowMs, through.endpoint, { ignoreOld: true }, () => {}));
  }

  /** A node looks for the members of an earlier life: all others, as its snapshot would say. */
  rejoin(node: SimNode): void {
    this.#everyone ??= this.nodes.map(({ name, endpoint }) => ({ name, endpoint }));
    const former = this.#everyone.filter(({ name }) => name !== node.name);
    this.run(node, () => node.core.rejoin(this.nowMs, former));
  }

  /** Schedules something of the scenario. */
  at(atMs: number, run: () => void): Timer {
    return this.#timers.set(atMs, run);
  }

  /** Lets the clock run until `untilMs`. */
  advance(untilMs: number): void {
    for (;;) {
      const next = this.#timers.nextMs;
      if (next === undefined || next > untilMs) break;
      this.nowMs = Math.max(this.nowMs, next);
      this.#timers.run(next);
    }
    this.nowMs = untilMs;
  }

  /** Lets the clock run in steps until `check` holds; gives the time it took, or undefined after `limitMs`. */
  advanceUntil(check: () => boolean, options: { stepMs: number; limitMs: number }): number | undefined {
    const startMs = this.nowMs;
    while (this.nowMs - startMs < options.limitMs) {
      if (check()) return this.nowMs - startMs;
      this.advance(this.nowMs + options.stepMs);
    }
    return check() ? this.nowMs - startMs : undefined;
  }

  /** Gives a node an input and does what it wants done. */
  run(node: SimNode, input: () => void): void {
    input();
    const { memberlist } = node.core;
    for (let rounds = 0;; rounds++) {
      const effects = memberlist.takeEffects();
      const events = node.core.takeEvents();
      if (effects.length === 0 && events.length === 0) break;
      if (rounds > MAX_ROUNDS) throw new Error(`${node.name} keeps itself busy at ${this.nowMs} ms`);
      for (const effect of effects) this.#perform(node, effect);
      for (const event of events) this.onEvent(node, event);
    }
    this.#armWake(node);
  }

  #armWake(node: SimNode): void {
    if (!node.up) return;
    const next = node.core.memberlist.nextWakeMs();
    if (next === undefined || next >= node.wakeMs) return;
    if (node.wake) node.wake.cancel();
    node.wakeMs = next;
    node.wake = this.#timers.set(Math.max(next, node.stalledUntilMs), () => this.#wake(node));
  }

  #wake(node: SimNode): void {
    node.wake = undefined;
    node.wakeMs = Infinity;
    if (!node.up) return;
    if (this.nowMs < node.stalledUntilMs) {
      node.wakeMs = 0;
      node.wake = this.#timers.set(node.stalledUntilMs, () => this.#wake(node));
      return;
    }
    this.run(node, () => node.core.memberlist.tick(this.nowMs));
  }

  /** Gives `core` of a node an input now, or once the process is no longer stalled. */
  #input(node: SimNode, core: SerfCore, input: () => void): void {
    if (!node.up || node.core !== core) return;
    if (this.nowMs < node.stalledUntilMs) {
      this.#timers.set(node.stalledUntilMs, () => this.#input(node, core, input));
      return;
    }
    this.run(node, input);
  }

  #perform(from: SimNode, effect: Effect): void {
    switch (effect.kind) {
      case "packet": {
        const to = this.#byAddress.get(key(effect.to));
        if (to === undefined) return;
        const { packet } = effect;
        for (const delayMs of this.network.packet(from.index, to.index, packet.length)) {
          const source = from.endpoint;
          this.#timers.set(this.nowMs + delayMs, () => {
            const { core } = to;
            this.#input(to, core, () => core.memberlist.receivePacket(this.nowMs, source, packet));
          });
        }
        return;
      }
      case "dial":
        return this.#streams.dial(from, this.#byAddress.get(key(effect.to)), effect);
      case "answer":
        return this.#streams.answer(from, effect);
    }
  }
}

function key(endpoint: Endpoint): number {
  const { addr } = endpoint;
  const at = addr.length - 4;
  return addr[at] * 0x100_0000 + (addr[at + 1] << 16) + (addr[at + 2] << 8) + addr[at + 3];
}
