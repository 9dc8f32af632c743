import type { Endpoint } from "../endpoint.ts";
import type { Random } from "../random.ts";
import type { Member } from "./member.ts";
import type { Members } from "./members.ts";
import { type Address, isAway, RejoinBook } from "./rejoin.ts";
import { Rejoiner } from "./rejoiner.ts";

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
  /** Runs something later. */
  later(delayMs: number, run: () => void): void;
  /** Tries to join an address; `announce`: whether to say that this node is here, as after a join. */
  contact(to: Endpoint, options: { announce: boolean }, done: (error: string | undefined) => void): void;
}

/** Tries to reach who is away, for ever. Thus the halves of a partition find each other, however long it lasted. */
export class Reconnector {
  readonly #options: ReconnectorOptions;
  readonly #forgotten: RejoinBook;
  /** Whom this node was told to join. */
  readonly #seeds = new RejoinBook(MAX_SEEDS);
  readonly #rejoiner: Rejoiner;
  #seedPause = 1;
  #seedWait = 1;

  constructor(options: ReconnectorOptions) {
    this.#options = options;
    this.#forgotten = new RejoinBook(options.remembered);
    this.#rejoiner = new Rejoiner({
      ...options,
      contact: (to, done) => options.contact(to, { announce: false }, done),
      forgotten: (address) => this.#forgotten.remember(address),
    });
  }

  /** Addresses kept. */
  get remembered(): number {
    return this.#forgotten.size + this.#seeds.size + this.#rejoiner.size;
  }

  /** Looks for the members of an earlier life. */
  rejoin(former: readonly Address[]): void {
    this.#rejoiner.start(former, this.#options.remembered);
  }

  /** A failed member is no longer listed; its address stays here. */
  remember(member: Member): void {
    this.#forgotten.remember({ name: member.name, endpoint: member.endpoint });
  }

  /** An address that this node was told to join. */
  addSeed(endpoint: Endpoint): void {
    this.#seeds.remember({ endpoint });
  }

  /**
   * Tries one failed or forgotten member: seldom where few are gone, always where most are. And one seed that is not
   * here, less and less often.
   */
  tryOne(): void {
    const { members, random, contact } = this.#options;
    const { failed, aliveCount } = members;
    if (random.float() <= Math.max(failed.size, 1) / Math.max(1, aliveCount)) {
      const target = this.#pickGone();
      if (target !== undefined) contact(target, { announce: false }, () => {});
    }
    if (aliveCount > 1 && --this.#seedWait > 0) return;
    const seed = this.#seeds.pick(random, (address) => isAway(address, members));
    this.#seedPause = Math.min(MAX_SEED_PAUSE, this.#seedPause * 2);
    this.#seedWait = this.#seedPause;
    if (seed === undefined) return;
    contact(seed.endpoint, { announce: true }, (error) => {
      if (error === undefined) this.#seedPause = this.#seedWait = 1;
    });
  }

  #pickGone(): Endpoint | undefined {
    const { members, random } = this.#options;
    const failed = [...members.failed];
    const forgotten = this.#forgotten.pick(random, (address) => isAway(address, members));
    if (failed.length === 0 || (forgotten !== undefined && random.float() >= FAILED_SHARE)) {
      return forgotten?.endpoint;
    }
    return failed[random.int(failed.length)].endpoint;
  }
}
