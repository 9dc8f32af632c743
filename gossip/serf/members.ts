import type { JoinIntent, LeaveIntent } from "../codec/serf_messages.ts";
import type { Node } from "../memberlist/node.ts";
import type { NodeTable } from "../memberlist/node_table.ts";
import { LamportClock } from "./lamport.ts";
import { Member, MemberStatus } from "./member.ts";
import type { MemberEvent } from "./events.ts";

/** Intents about members not seen yet that are remembered; the oldest go first. */
export const MAX_INTENTS = 8_192;

interface Intent {
  /** Who was pruned is forgotten: it is not held against the member when it is back. */
  type: "join" | "leave" | "prune";
  ltime: number;
  atMs: number;
}

/** What a {@linkcode Members} needs of its surroundings. */
export interface MembersOptions {
  selfName: string;
  /** Where the records are; members are kept in it when memberlist forgets them. */
  table(): NodeTable;
  emit(event: MemberEvent): void;
  /** Others know something newer of this node than it said: say that it is here. */
  contradict(): void;
  /** A member is here, for the first time or again. */
  arrived(name: string): void;
  /** A member was evicted. */
  pruned(name: string): void;
  /** A member is to be erased after it had time to leave. */
  later(run: () => void): void;
}

/** All members and what is said about their coming and going (section 5.3 of the protocol notes). */
export class Members {
  readonly clock = new LamportClock();
  /** Whether this node itself is leaving, so that leave intents about it are true. */
  leaving = false;
  #size = 0;
  readonly #failed = new Set<Member>();
  readonly #left = new Set<Member>();
  readonly #intents = new Map<string, Intent>();
  readonly #options: MembersOptions;

  constructor(options: MembersOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#size;
  }

  get failed(): ReadonlySet<Member> {
    return this.#failed;
  }

  get left(): ReadonlySet<Member> {
    return this.#left;
  }

  /** Members that neither failed nor left. */
  get aliveCount(): number {
    return this.#size - this.#failed.size - this.#left.size;
  }

  get intents(): number {
    return this.#intents.size;
  }

  get(name: string): Member | undefined {
    const node = this.#options.table().find(name);
    return node instanceof Member && node.status !== MemberStatus.none ? node : undefined;
  }

  /** Every member, those that failed or left included. */
  *values(): Generator<Member> {
    for (const node of this.#options.table().all()) {
      if (node instanceof Member && node.status !== MemberStatus.none) yield node;
    }
  }

  /** memberlist sees a node for the first time, or again. */
  nodeJoined(node: Node): void {
    const member = node as Member;
    if (member.status === MemberStatus.none) {
      this.#size++;
      member.status = MemberStatus.alive;
      member.statusLTime = 0;
      const intent = this.#intents.get(node.name);
      if (intent !== undefined) {
        member.statusLTime = intent.ltime;
        if (intent.type === "leave") member.status = MemberStatus.leaving;
        this.#intents.delete(node.name);
      }
    } else {
      member.status = MemberStatus.alive;
      this.#failed.delete(member);
      this.#left.delete(member);
    }
    member.goneMs = 0;
    this.#options.arrived(node.name);
    this.#emit("member-join", member);
  }

  /** memberlist sees a node gone: it left where it had said so, else it failed. */
  nodeLeft(node: Node, nowMs: number): void {
    const member = node as Member;
    if (member.status === MemberStatus.leaving) {
      member.status = MemberStatus.left;
      member.goneMs = nowMs;
      this.#left.add(member);
      this.#emit("member-leave", member);
    } else if (member.status === MemberStatus.alive) {
      member.status = MemberStatus.failed;
      member.goneMs = nowMs;
      this.#failed.add(member);
      this.#emit("member-failed", member);
    }
  }

  nodeUpdated(node: Node): void {
    const member = node as Member;
    if (member.status !== MemberStatus.none) this.#emit("member-update", member);
  }

  /** Handles a join intent; true where it is news, to be passed on. */
  joinIntent(intent: JoinIntent, nowMs: number): boolean {
    if (!this.clock.witness(intent.ltime)) return false;
    const member = this.get(intent.node);
    if (member === undefined) return this.#remember("join", intent, nowMs);
    if (intent.ltime <= member.statusLTime) return false;
    if (this.#concernsThisNode(intent)) {
      // A push/pull tells a time alone, be it of an earlier life's join or of a leave.
      this.#options.contradict();
      return false;
    }
    member.statusLTime = intent.ltime;
    if (member.status === MemberStatus.leaving) member.status = MemberStatus.alive;
    return true;
  }

  /** Handles a leave intent; true where it is news, to be passed on. */
  leaveIntent(intent: LeaveIntent, nowMs: number): boolean {
    if (!this.clock.witness(intent.ltime)) return false;
    const member = this.get(intent.node);
    if (member === undefined) return this.#remember(intent.prune ? "prune" : "leave", intent, nowMs);
    if (intent.ltime <= member.statusLTime) return false;
    if (this.#concernsThisNode(intent)) {
      this.#options.contradict();
      return false;
    }
    member.statusLTime = intent.ltime;
    if (member.status === MemberStatus.alive) member.status = MemberStatus.leaving;
    else if (member.status === MemberStatus.failed) {
      member.status = MemberStatus.left;
      this.#failed.delete(member);
      this.#left.add(member);
      this.#emit("member-leave", member);
    }
    if (intent.prune) this.#prune(member);
    return true;
  }

  /** This node says that it is here, now. */
  announced(ltime: number): void {
    this.clock.witness(ltime);
    const self = this.get(this.#options.selfName);
    if (self !== undefined) self.statusLTime = ltime;
  }

  /** Whether it says something of this node, which stays. */
  #concernsThisNode({ node }: JoinIntent): boolean {
    return node === this.#options.selfName && !this.leaving;
  }

  #prune(member: Member): void {
    this.#options.pruned(member.name);
    if (member.status === MemberStatus.leaving) this.#options.later(() => this.#erase(member));
    else this.#erase(member);
  }

  #remember(type: Intent["type"], message: JoinIntent, nowMs: number): boolean {
    const known = this.#intents.get(message.node);
    if (known !== undefined && message.ltime <= known.ltime) return false;
    this.#intents.delete(message.node);
    this.#intents.set(message.node, { type, ltime: message.ltime, atMs: nowMs });
    if (this.#intents.size > MAX_INTENTS) {
      const [oldest] = this.#intents.keys();
      this.#intents.delete(oldest);
    }
    return true;
  }

  /** Erases who has been gone for long; `forgotten` is told of each failed one. */
  reap(
    nowMs: number,
    options: {
      reconnectTimeoutMs: number;
      tombstoneTimeoutMs: number;
      intentTimeoutMs: number;
      forgotten(member: Member): void;
    },
  ): void {
    for (const member of this.#failed) {
      if (nowMs - member.goneMs <= options.reconnectTimeoutMs) continue;
      options.forgotten(member);
      this.#erase(member);
    }
    for (const member of this.#left) {
      if (nowMs - member.goneMs > options.tombstoneTimeoutMs) this.#erase(member);
    }
    for (const [name, intent] of this.#intents) {
      if (nowMs - intent.atMs > options.intentTimeoutMs) this.#intents.delete(name);
    }
  }

  #erase(member: Member): void {
    if (member.status === MemberStatus.none) return;
    this.#failed.delete(member);
    this.#left.delete(member);
    this.#size--;
    this.#emit("member-reap", member);
    member.status = MemberStatus.none;
    this.#options.table().erase(member);
  }

  #emit(kind: MemberEvent["kind"], member: Member): void {
    this.#options.emit({ kind, members: [member.snapshot()] });
  }
}
