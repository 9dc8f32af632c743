import type { Endpoint } from "../endpoint.ts";
import type { Random } from "../random.ts";
import type { Members } from "./members.ts";
import { type Address, isAway } from "./rejoin.ts";

/** Former members that are tried before the pause between two tries doubles. */
const ROUND = 32;
/** Pause between two tries at first, and the longest. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 30_000;
/** Tries under way at once: a host that is down answers nothing for as long as a stream may take. */
const PARALLEL = 4;
/** Pauses after somebody answered, before one who is still away is tried: they bind islands of a mass restart together. */
const BINDING_PAUSES_MS = [1_000, 2_000, 4_000, 8_000, 16_000];
/** Random former members that are looked at to find one who is away. */
const LOOKS = 16;

/** What a {@linkcode Rejoiner} needs. */
export interface RejoinerOptions {
  members: Members;
  random: Random;
  /** Runs something later. */
  later(delayMs: number, run: () => void): void;
  /** Tries to join an address. */
  contact(to: Endpoint, done: (error: string | undefined) => void): void;
  /** Takes those who are still away in the end. */
  forgotten(address: Address): void;
}

/**
 * Finds the cluster of an earlier life again: tries its members, more and more seldom, until one answers. Then a few more
 * of those who are not here: when all start at once, everyone finds somebody, and yet there may be many clusters.
 */
export class Rejoiner {
  readonly #options: RejoinerOptions;
  #former: Address[] = [];
  #tries = 0;
  #open = 0;
  #isBinding = false;

  constructor(options: RejoinerOptions) {
    this.#options = options;
  }

  /** Former members that are still looked for. */
  get size(): number {
    return this.#former.length;
  }

  /** Begins with the members of an earlier life, at most `limit` of them, in random order. */
  start(former: readonly Address[], limit: number): void {
    const { random } = this.#options;
    const shuffled = [...former];
    for (let i = 0; i < Math.min(limit, shuffled.length); i++) {
      const j = i + random.int(shuffled.length - i);
      [shuffled[i], shuffled[j]] = [shuffled[j], shuffled[i]];
    }
    this.#former = shuffled.slice(0, limit);
    if (this.#former.length > 0) this.#search();
  }

  #search(): void {
    const { members, random, later, contact } = this.#options;
    if (this.#isBinding) return;
    if (members.aliveCount > 1) return this.#bind(0);
    if (this.#open < PARALLEL) {
      this.#open++;
      const { endpoint } = this.#former[this.#tries++ % this.#former.length];
      contact(endpoint, (error) => {
        this.#open--;
        if (error === undefined) this.#bind(0);
      });
    }
    const round = Math.floor(this.#tries / Math.min(ROUND, this.#former.length));
    const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(round, 16));
    later(pauseMs * (0.5 + random.float()), () => this.#search());
  }

  #bind(step: number): void {
    if (step === 0 && this.#isBinding) return;
    this.#isBinding = true;
    const { random, later, contact, forgotten, members } = this.#options;
    if (step >= BINDING_PAUSES_MS.length) {
      for (const address of this.#former) if (isAway(address, members)) forgotten(address);
      this.#former = [];
      return;
    }
    later(BINDING_PAUSES_MS[step] * (0.5 + random.float()), () => {
      const away = this.#pickAway();
      if (away !== undefined) contact(away.endpoint, () => {});
      this.#bind(step + 1);
    });
  }

  #pickAway(): Address | undefined {
    const { random, members } = this.#options;
    for (let looks = 0; looks < LOOKS; looks++) {
      const address = this.#former[random.int(this.#former.length)];
      if (isAway(address, members)) return address;
    }
  }
}
