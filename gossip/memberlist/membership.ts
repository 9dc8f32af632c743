import { Claim } from "../codec/claims.ts";
import { encodeDead, encodeSuspect } from "../codec/messages.ts";
import { equalBytes } from "../codec/text.ts";
import { type Dead, NodeState, type PushPullNode, type Suspect } from "../codec/types.ts";
import type { Subject } from "./broadcast_queue.ts";
import type { Context } from "./context.ts";
import type { Gossiper } from "./gossip.ts";
import { isPlausible, MAX_INCARNATION } from "./incarnation.ts";
import type { Node } from "./node.ts";
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
/** News of one push/pull that are passed on by gossip. */
const MERGE_NEWS = 64;
/** Nodes that ask a suspected one first. */
const LAST_CALLERS = 64;

/** The merge rules: what each word about a node does to the table (section 3.8 of the protocol notes). */
export class Membership {
  readonly #ctx: Context;
  readonly #gossiper: Gossiper;
  readonly #changed: () => void;
  /** News that may still be passed on in the merge under way. */
  #passOn = Infinity;
  #prober: Prober | undefined;
  /** Apart from other news about this node, which a refutation must not replace. */
  readonly #refutation: Subject = { queued: undefined };
  readonly #goodbye: Subject = { queued: undefined };

  /** `changed` is told whenever a node came or went. */
  constructor(ctx: Context, parts: { gossiper: Gossiper; changed: () => void }) {
    this.#ctx = ctx;
    this.#gossiper = parts.gossiper;
    this.#changed = parts.changed;
  }

  /** The prober checks claims of a name at another address; it needs this object itself, so it comes later. */
  useProber(prober: Prober): void {
    this.#prober = prober;
  }

  /** Enters this node itself and tells everyone. */
  bootstrap(): void {
    const { self, table, nowMs, delegate } = this.#ctx;
    self.change(NodeState.alive, nowMs);
    this.#restate(1);
    table.add(self);
    this.#broadcastSelf(self);
    delegate.nodeJoined(self);
  }

  /** Enters nodes as alive without telling anyone. */
  preload(nodes: readonly Claim[]): void {
    const { table, nowMs, delegate } = this.#ctx;
    for (const claim of nodes) {
      if (table.get(claim.node) !== undefined || table.size >= MAX_NODES) continue;
      const node = this.#create(claim, nowMs);
      node.state = NodeState.alive;
      node.incarnation = claim.incarnation;
      delegate.nodeJoined(node);
    }
  }

  /** Enters a node as gone since `sinceMs`; one that was forgotten by memberlist alone is taken up again. */
  #create(claim: Claim, sinceMs: number): Node {
    const { table, delegate } = this.#ctx;
    let node = table.find(claim.node);
    if (node === undefined) node = delegate.createNode(claim, sinceMs);
    else {
      node.claim = claim;
      node.change(NodeState.dead, sinceMs);
    }
    node.incarnation = 0;
    table.add(node);
    return node;
  }

  /** This node's meta data changed. */
  updateSelf(meta: Uint8Array): void {
    const { self, delegate } = this.#ctx;
    this.#restate(Math.min(MAX_INCARNATION, self.incarnation + 1), meta);
    this.#broadcastSelf(self);
    delegate.nodeUpdated(self);
  }

  /** What this node says about itself from now on. */
  #restate(incarnation: number, meta = this.#ctx.self.meta): void {
    const { self, claims } = this.#ctx;
    self.claim = claims.of({ ...self.toAlive(), meta, incarnation });
    self.incarnation = incarnation;
  }

  /** A node says that it is there. */
  alive(claim: Claim, options: { moved?: boolean } = {}): void {
    const { table, self, left, config, nowMs } = this.#ctx;
    let node = table.get(claim.node);
    // What is known already is most of what comes.
    if (
      node !== undefined && node.claim === claim && node.incarnation >= claim.incarnation && !options.moved
    ) {
      return;
    }
    if (claim.node === config.name && left) return;
    const { vsn } = claim;
    if (vsn.length > 0 && vsn.length !== 6) return;
    if (vsn.length >= 3 && (vsn[0] === 0 || vsn[1] === 0 || vsn[0] > vsn[1])) return;
    if (!this.#believes(claim.incarnation, { known: node?.incarnation ?? 0, own: true })) return;
    let updates = options.moved ?? false;
    if (node === undefined) {
      if (table.size >= MAX_NODES) return void this.#ctx.counters.limited++;
      if (claim.addr.length === 0) return;
      node = this.#create(claim, nowMs - config.gossipToTheDeadMs);
    } else if (!node.endpoint.equals(claim.addr, claim.port) && !updates) {
      updates = this.#mayMove(node);
      if (!updates) return this.#contested(node, claim);
    }
    if (node === self) {
      if (claim.incarnation < node.incarnation) return;
      if (
        claim.incarnation === node.incarnation && equalBytes(claim.meta, node.meta) &&
        equalBytes(vsn, node.vsn)
      ) return;
      return this.#refute(claim.incarnation);
    }
    if (!updates && claim.incarnation <= node.incarnation) return;
    this.#enter(node, claim);
  }

  #enter(node: Node, claim: Claim): void {
    const { delegate, nowMs } = this.#ctx;
    node.suspicion?.cancel();
    node.suspicion = undefined;
    const wasGone = node.gone;
    const old = node.claim;
    const sameMeta = equalBytes(old.meta, claim.meta);
    const samePlace = old.endpoint.equals(claim.addr, claim.port);
    // Versions that were stated once hold where a claim states none.
    const silent = claim.vsn.length === 0 && old.vsn.length > 0;
    if (!samePlace) node.formerIncarnation = Math.max(node.formerIncarnation, node.incarnation);
    node.claim = silent ? this.#withVsn(claim, old.vsn) : claim;
    node.incarnation = claim.incarnation;
    if (node.state !== NodeState.alive) node.change(NodeState.alive, nowMs);
    if (this.#passOn-- > 0) this.#gossiper.broadcast(node.claim.encoded, { subject: node });
    if (wasGone) {
      this.#changed();
      delegate.nodeJoined(node);
    } else if (!sameMeta || !samePlace) delegate.nodeUpdated(node);
  }

  #withVsn({ node, addr, port, meta, incarnation }: Claim, vsn: Uint8Array): Claim {
    return this.#ctx.claims.of({ node, addr, port, meta, incarnation, vsn });
  }

  #believes(incarnation: number, options: { known: number; own: boolean }): boolean {
    if (isPlausible(incarnation, options)) return true;
    this.#ctx.counters.implausible++;
    return false;
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
  #contested(node: Node, claim: Claim): void {
    const { config, self, delegate, counters } = this.#ctx;
    const conflict = () => {
      counters.conflicts++;
      delegate.nameConflict(node, claim);
    };
    if (!config.verifyMoves || this.#prober === undefined) return conflict();
    const known = node === self ? undefined : node.endpoint;
    this.#prober.checkClaim(known, claim, (answers, newest) => {
      if (node === self) {
        if (answers.claimed) conflict();
        else this.#disown(claim);
      } else if (answers.known) {
        if (answers.claimed) conflict();
      } else if (answers.claimed && node.index >= 0 && node.endpoint.equals(known!.addr, known!.port)) {
        this.alive(newest, { moved: true });
      }
    });
  }

  /**
   * Somebody remembers this node where it was before it moved, and nobody is there. Stock agents take a node at another
   * address only once it left the old one, so the goodbye is said belatedly, and above it that this node is here: who has
   * heard the goodbye waits for that. Nodes of ours take the goodbye for a doubt.
   */
  #disown(old: Claim): void {
    const { self } = this.#ctx;
    this.#refute(old.incarnation);
    const goodbye = { incarnation: old.incarnation, node: self.name, from: self.name };
    this.#gossiper.broadcast(encodeDead(goodbye), { subject: this.#goodbye });
  }

  /** A node is said not to answer. */
  suspect(message: Suspect): void {
    const { table, self } = this.#ctx;
    const node = table.get(message.node);
    if (node === undefined || message.incarnation < node.incarnation) return;
    if (!this.#believes(message.incarnation, { known: node.incarnation, own: false })) return;
    if (node === self && node.state === NodeState.alive) return this.#refute(message.incarnation);
    this.#doubt(node, message, encodeSuspect);
  }

  /** Suspects a node, or a little more where it is suspected already, and passes on the word that is the reason. */
  #doubt(node: Node, word: Suspect, encode: (word: Suspect) => Uint8Array): void {
    const { nowMs, counters } = this.#ctx;
    if (node.suspicion !== undefined) {
      if (node.suspicion.confirm(word.from, nowMs)) {
        this.#gossiper.broadcast(encode(word), { subject: node });
      }
      return;
    }
    if (node.state !== NodeState.alive) return;
    counters.suspicions++;
    this.#gossiper.broadcast(encode(word), { subject: node });
    node.incarnation = word.incarnation;
    node.change(NodeState.suspect, nowMs);
    this.#beginSuspicion(node, word.from, LAST_CALLS);
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

  /**
   * A node is said to be dead, or says that it leaves. `onSent` is told once enough nodes have been told. A goodbye that was
   * not announced is what a node says that moved, and is there elsewhere, or what overtook the announcement, and will come
   * again.
   */
  dead(message: Dead, options: { onSent?: () => void } = {}): void {
    const { table, self, nowMs, delegate, left, counters, config } = this.#ctx;
    const node = table.get(message.node);
    if (node === undefined || message.incarnation < node.incarnation) return;
    if (!this.#believes(message.incarnation, { known: node.incarnation, own: false })) return;
    // Of where it was before it moved: who is gone from there is not gone.
    if (message.from !== config.name && message.incarnation <= node.formerIncarnation) return;
    const leaves = message.from === message.node;
    if (leaves && node !== self && config.verifyMoves && !delegate.isLeaving(node)) {
      return this.#doubt(node, message, encodeDead);
    }
    node.suspicion?.cancel();
    node.suspicion = undefined;
    if (node.gone) return;
    if (node === self && !left) return this.#refute(message.incarnation);
    if (!leaves) counters.deaths++;
    this.#gossiper.broadcast(encodeDead(message), { subject: node, onEnd: options.onSent });
    node.incarnation = message.incarnation;
    node.change(leaves ? NodeState.left : NodeState.dead, nowMs);
    this.#changed();
    delegate.nodeLeft(node);
  }

  /**
   * Merges the nodes of a push/pull. Of many new ones only the first are passed on: those who hear of them ask for the
   * rest by push/pulls of their own. What a node that was alone is answered is known to all whom it could tell.
   */
  merge(nodes: readonly PushPullNode[], options: { answered: boolean }): void {
    this.#passOn = options.answered && this.#isAlone() ? 0 : MERGE_NEWS;
    for (const node of nodes) this.#mergeOne(node);
    this.#passOn = Infinity;
  }

  #isAlone(): boolean {
    const { table, self } = this.#ctx;
    return table.values().every((node) => node === self || node.gone);
  }

  /** Deaths are taken as suspicions of ours, so that the node can refute. */
  #mergeOne(remote: PushPullNode): void {
    const { name } = this.#ctx.config;
    switch (remote.state) {
      case NodeState.alive:
        return this.alive(remote instanceof Claim ? remote : this.#ctx.claims.of(remote));
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
    this.#restate(Math.min(MAX_INCARNATION, Math.max(self.incarnation, accused) + 1));
    counters.refutations++;
    awareness.apply(1);
    this.#broadcastSelf(this.#refutation);
  }

  #broadcastSelf(subject: Subject): void {
    this.#gossiper.broadcast(this.#ctx.self.claim.encoded, { subject });
  }
}
