import { encodeAlive, encodeDead, encodeSuspect } from "../codec/messages.ts";
import { equalBytes, NO_BYTES } from "../codec/text.ts";
import { type Alive, type Dead, NodeState, type PushPullNode, type Suspect } from "../codec/types.ts";
import { Endpoint } from "../endpoint.ts";
import type { Context } from "./context.ts";
import type { Gossiper } from "./gossip.ts";
import { Node } from "./node.ts";
import type { Prober } from "./prober.ts";
import { Suspicion, suspicionMinMs } from "./suspicion.ts";

/** Nodes one core knows at most; alive messages of further ones are ignored. */
export const MAX_NODES = 65_536;
/** Times that a suspected node may answer without contradicting the suspicion, before it is declared dead. */
const LAST_CALLS = 3;
/** A last call tells more than waiting does, so it comes after this share of Lifeguard's time. */
const LAST_CALL_SHARE = 0.75;
/** The same where several others could not reach the node either. */
const CONFIRMED_SHARE = 0.5;
/** Nodes that ask a suspected one first. */
const LAST_CALLERS = 64;

/** The merge rules: what each word about a node does to the table (section 3.8 of the protocol notes). */
export class Membership {
  readonly #ctx: Context;
  readonly #gossiper: Gossiper;
  #prober: Prober | undefined;

  constructor(ctx: Context, gossiper: Gossiper) {
    this.#ctx = ctx;
    this.#gossiper = gossiper;
  }

  /** The prober checks claims of a name at another address; it needs this object itself, so it comes later. */
  useProber(prober: Prober): void {
    this.#prober = prober;
  }

  /** Enters this node itself and tells everyone. */
  bootstrap(): void {
    const { self, table, nowMs, delegate } = this.#ctx;
    self.state = NodeState.alive;
    self.incarnation = 1;
    self.stateChangeMs = nowMs;
    table.add(self);
    this.#broadcastSelf(self.name);
    delegate.nodeJoined(self);
  }

  /** Enters nodes as alive without telling anyone. */
  preload(nodes: readonly Alive[]): void {
    const { table, nowMs, delegate } = this.#ctx;
    for (const known of nodes) {
      if (table.get(known.node) !== undefined || table.size >= MAX_NODES) continue;
      const node = new Node(known.node, new Endpoint(known.addr, known.port), known.meta, known.vsn, nowMs);
      node.state = NodeState.alive;
      node.incarnation = known.incarnation;
      table.add(node);
      delegate.nodeJoined(node);
    }
  }

  /** This node's meta data changed. */
  updateSelf(meta: Uint8Array): void {
    const { self, delegate } = this.#ctx;
    self.meta = meta;
    self.incarnation++;
    this.#broadcastSelf(self.name);
    delegate.nodeUpdated(self);
  }

  /** A node says that it is there. Byte fields may share memory with the packet. */
  alive(message: Alive, options: { moved?: boolean } = {}): void {
    const { table, self, left, config, nowMs } = this.#ctx;
    if (message.node === config.name && left) return;
    const { vsn } = message;
    if (vsn.length > 0 && vsn.length !== 6) return;
    if (vsn.length >= 3 && (vsn[0] === 0 || vsn[1] === 0 || vsn[0] > vsn[1])) return;
    let node = table.get(message.node);
    let updates = options.moved ?? false;
    if (node === undefined) {
      if (table.size >= MAX_NODES || message.addr.length === 0) return;
      const endpoint = new Endpoint(message.addr.slice(), message.port);
      const longAgoMs = nowMs - config.gossipToTheDeadMs;
      node = new Node(message.node, endpoint, this.#own(message.meta), this.#own(vsn), longAgoMs);
      table.add(node);
    } else if (!node.endpoint.equals(message.addr, message.port) && !updates) {
      updates = this.#mayMove(node);
      if (!updates) return this.#contested(node, message);
    }
    if (node === self) {
      if (message.incarnation < node.incarnation) return;
      if (
        message.incarnation === node.incarnation && equalBytes(message.meta, node.meta) &&
        equalBytes(vsn, node.vsn)
      ) return;
      return this.#refute(message.incarnation);
    }
    if (!updates && message.incarnation <= node.incarnation) return;
    this.#enter(node, message);
  }

  #enter(node: Node, message: Alive): void {
    const { delegate, nowMs } = this.#ctx;
    node.suspicion?.cancel();
    node.suspicion = undefined;
    const wasGone = node.gone;
    const sameMeta = equalBytes(node.meta, message.meta);
    const sameVsn = equalBytes(node.vsn, message.vsn);
    const samePlace = node.endpoint.equals(message.addr, message.port);
    // Kept bytes must not pin the packet they came in.
    if (!sameMeta) node.meta = this.#own(message.meta);
    if (!sameVsn && message.vsn.length > 0) node.vsn = this.#own(message.vsn);
    if (!samePlace) node.endpoint = new Endpoint(message.addr.slice(), message.port);
    node.incarnation = message.incarnation;
    if (node.state !== NodeState.alive) {
      node.state = NodeState.alive;
      node.stateChangeMs = nowMs;
    }
    this.#gossiper.broadcast(encodeAlive(node.toAlive()), { name: node.name });
    if (wasGone) delegate.nodeJoined(node);
    else if (!sameMeta || !samePlace) delegate.nodeUpdated(node);
  }

  /** A copy to keep; what thousands of nodes have in common, as nothing or our own versions, is kept once. */
  #own(bytes: Uint8Array): Uint8Array {
    const { self } = this.#ctx;
    if (bytes.length === 0) return NO_BYTES;
    if (equalBytes(bytes, self.vsn)) return self.vsn;
    return equalBytes(bytes, self.meta) ? self.meta : bytes.slice();
  }

  /** Whether a node may come back at another address without more ado. */
  #mayMove(node: Node): boolean {
    const { config, nowMs, self } = this.#ctx;
    if (node === self) return false;
    if (node.state === NodeState.left) return true;
    return node.state === NodeState.dead && config.deadNodeReclaimMs !== undefined &&
      nowMs - node.stateChangeMs >= config.deadNodeReclaimMs;
  }

  /** A name is claimed at another address: ask at both who answers, rather than believe whoever came first. */
  #contested(node: Node, claim: Alive): void {
    const { config, self, delegate, counters } = this.#ctx;
    const owned: Alive = {
      ...claim,
      addr: claim.addr.slice(),
      meta: claim.meta.slice(),
      vsn: claim.vsn.slice(),
    };
    const conflict = () => {
      counters.conflicts++;
      delegate.nameConflict(node, owned);
    };
    if (!config.verifyMoves || this.#prober === undefined) return conflict();
    const known = node === self ? undefined : node.endpoint;
    this.#prober.checkClaim(known, owned, (answers) => {
      if (node === self) {
        // Nobody there: it is what is remembered of this node before it moved.
        if (answers.claimed) conflict();
        else if (owned.incarnation >= self.incarnation) this.#refute(owned.incarnation);
      } else if (answers.known) {
        if (answers.claimed) conflict();
      } else if (answers.claimed && this.#ctx.table.get(node.name) === node && node.endpoint === known) {
        this.alive(owned, { moved: true });
      }
    });
  }

  /** A node is said not to answer. */
  suspect(message: Suspect): void {
    const { table, self, nowMs, counters } = this.#ctx;
    const node = table.get(message.node);
    if (node === undefined || message.incarnation < node.incarnation) return;
    if (node.suspicion !== undefined) {
      if (node.suspicion.confirm(message.from, nowMs)) {
        this.#gossiper.broadcast(encodeSuspect(message), { name: node.name });
      }
      return;
    }
    if (node.state !== NodeState.alive) return;
    if (node === self) return this.#refute(message.incarnation);
    counters.suspicions++;
    this.#gossiper.broadcast(encodeSuspect(message), { name: node.name });
    node.incarnation = message.incarnation;
    node.state = NodeState.suspect;
    node.stateChangeMs = nowMs;
    this.#beginSuspicion(node, message.from, LAST_CALLS);
  }

  #beginSuspicion(node: Node, from: string, lastCalls: number): void {
    const { table, nowMs, config, timers } = this.#ctx;
    const stands = () => node.suspicion === suspicion && node.state === NodeState.suspect;
    const leadMs = config.lastCall
      ? Math.min(config.probeTimeoutMs, suspicionMinMs(config, table.size) / 2)
      : 0;
    const suspicion = new Suspicion({
      config,
      nodes: table.size,
      from,
      nowMs,
      timers,
      share: config.lastCall ? LAST_CALL_SHARE : 1,
      confirmedShare: config.lastCall ? CONFIRMED_SHARE : 1,
      leadMs,
      expire: () => {
        if (!stands()) return;
        const end = (answered: boolean) => {
          if (!stands()) return;
          if (answered) this.#beginSuspicion(node, from, lastCalls - 1);
          else this.dead({ incarnation: node.incarnation, node: node.name, from: config.name });
        };
        if (!config.lastCall || lastCalls === 0 || this.#prober === undefined) return end(false);
        this.#callLast(node, { leadMs, stands, end });
      },
    });
    node.suspicion = suspicion;
  }

  /** Asks a suspected node once more. In a large cluster most let a few go first, so that it is not overrun. */
  #callLast(
    node: Node,
    options: { leadMs: number; stands: () => boolean; end: (answered: boolean) => void },
  ): void {
    const { table, random, timers, nowMs } = this.#ctx;
    const call = () => {
      if (options.stands()) this.#prober?.callLast(node, options.leadMs, options.end);
    };
    if (random.float() * table.size <= LAST_CALLERS) call();
    else timers.set(nowMs + options.leadMs * (1 + random.float()), call);
  }

  /** A node is said to be dead, or says that it leaves. `onSent` is told once enough nodes have been told. */
  dead(message: Dead, options: { onSent?: () => void } = {}): void {
    const { table, self, nowMs, delegate, left, counters } = this.#ctx;
    const node = table.get(message.node);
    if (node === undefined || message.incarnation < node.incarnation) return;
    node.suspicion?.cancel();
    node.suspicion = undefined;
    if (node.gone) return;
    if (node === self && !left) return this.#refute(message.incarnation);
    const leaves = message.from === message.node;
    if (!leaves) counters.deaths++;
    this.#gossiper.broadcast(encodeDead(message), { name: node.name, onEnd: options.onSent });
    node.incarnation = message.incarnation;
    node.state = leaves ? NodeState.left : NodeState.dead;
    node.stateChangeMs = nowMs;
    delegate.nodeLeft(node);
  }

  /** Merges one node of a push/pull. Deaths are taken as suspicions of ours, so that the node can refute. */
  merge(remote: PushPullNode): void {
    const { name } = this.#ctx.config;
    switch (remote.state) {
      case NodeState.alive:
        return this.alive(remote);
      case NodeState.left:
        return this.dead({ incarnation: remote.incarnation, node: remote.node, from: remote.node });
      case NodeState.dead:
      case NodeState.suspect:
        return this.suspect({ incarnation: remote.incarnation, node: remote.node, from: name });
    }
  }

  /** Contradicts what is said about this node, with an incarnation above it. */
  #refute(accused: number): void {
    const { self, awareness, counters } = this.#ctx;
    self.incarnation = Math.max(self.incarnation + 1, accused + 1);
    counters.refutations++;
    awareness.apply(1);
    // Not under the node's name: it must not replace what is queued about the node.
    this.#broadcastSelf(`refute ${self.endpoint}`);
  }

  #broadcastSelf(name: string): void {
    this.#gossiper.broadcast(encodeAlive(this.#ctx.self.toAlive()), { name });
  }
}
