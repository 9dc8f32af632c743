import type { Endpoint } from "../endpoint.ts";
import type { Random } from "../random.ts";
import { type Member, MemberStatus } from "./member.ts";
import type { Members } from "./members.ts";
import { RejoinBook } from "./rejoin.ts";

/** Addresses of joins that are tried again. */
const MAX_SEEDS = 64;
/** Longest pause between two tries of those, in reconnect intervals. */
const MAX_SEED_PAUSE = 16;
/** How often a failed member is tried rather than a forgotten one. */
const FAILED_SHARE = 0.8;

/** What a {@linkcode Reconnector} needs. */
export interface ReconnectorOptions {
  /** Addresses of forgotten members that are kept. */
  remembered: number;
  members: Members;
  random: Random;
  /** Tries to join an address; `reached` is told where it answered. */
  contact(to: Endpoint, reached: () => void): void;
}

/** Tries to reach who is away, for ever. Thus the halves of a partition find each other, however long it lasted. */
export class Reconnector {
  readonly #options: ReconnectorOptions;
  readonly #forgotten: RejoinBook;
  /** Whom this node was told to join. */
  readonly #seeds = new RejoinBook(MAX_SEEDS);
  #seedPause = 1;
  #seedWait = 1;

  constructor(options: ReconnectorOptions) {
    this.#options = options;
    this.#forgotten = new RejoinBook(options.remembered);
  }

  /** Addresses kept. */
  get remembered(): number {
    return this.#forgotten.size + this.#seeds.size;
  }

  /** A failed member is no longer listed; its address stays here. */
  remember(member: Member): void {
    this.#forgotten.remember(member.endpoint);
  }

  /** An address that this node was told to join. */
  addSeed(endpoint: Endpoint): void {
    this.#seeds.remember(endpoint);
  }

  /**
   * Tries one failed or forgotten member: seldom where few are gone, always where most are. And one seed that is not
   * here, less and less often.
   */
  tryOne(): void {
    const { members, random, contact } = this.#options;
    const { failed, aliveCount } = members;
    const here = new Set<string>();
    for (const member of members.values()) {
      if (member.status === MemberStatus.alive) here.add(member.endpoint.toString());
    }
    const isAway = (endpoint: Endpoint) => !here.has(endpoint.toString());
    if (random.float() <= Math.max(failed.size, 1) / Math.max(1, aliveCount)) {
      const target = this.#pickGone(isAway);
      if (target !== undefined) contact(target, () => {});
    }
    const seed = this.#seeds.pick(random, isAway);
    if (seed === undefined || (aliveCount > 1 && --this.#seedWait > 0)) return;
    this.#seedPause = Math.min(MAX_SEED_PAUSE, this.#seedPause * 2);
    this.#seedWait = this.#seedPause;
    contact(seed, () => this.#seedPause = this.#seedWait = 1);
  }

  #pickGone(isAway: (endpoint: Endpoint) => boolean): Endpoint | undefined {
    const { members, random } = this.#options;
    const failed = [...members.failed];
    const forgotten = this.#forgotten.pick(random, isAway);
    if (failed.length === 0 || (forgotten !== undefined && random.float() >= FAILED_SHARE)) return forgotten;
    return failed[random.int(failed.length)].endpoint;
  }
}
