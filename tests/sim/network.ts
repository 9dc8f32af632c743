import type { Random } from "../../gossip/random.ts";

/** How the simulated network treats packets. */
export interface LinkConditions {
  /** Share of packets lost. */
  loss: number;
  /** One-way delay in milliseconds: at least, and up to this much more. */
  delayMs: number;
  jitterMs: number;
  /** Share of packets that come twice. */
  duplicate: number;
}

/** A calm local network. */
export const CALM: LinkConditions = { loss: 0, delayMs: 1, jitterMs: 0, duplicate: 0 };
/** Time after which TCP sends a lost segment again. */
const TCP_RETRY_MS = 200;

/** Decides what happens to each packet and stream between two nodes: seeded, so that a run can be had again. */
export class Network {
  conditions: LinkConditions;
  packets = 0;
  /** Of packets. */
  bytes = 0;
  streamBytes = 0;
  readonly #random: Random;
  #blocked: (from: number, to: number) => boolean = () => false;

  constructor(random: Random, conditions: LinkConditions) {
    this.#random = random;
    this.conditions = conditions;
  }

  /** Cuts what `isBlocked` says, one way each; absent heals all. */
  partition(isBlocked?: (from: number, to: number) => boolean): void {
    this.#blocked = isBlocked ?? (() => false);
  }

  isBlocked(from: number, to: number): boolean {
    return this.#blocked(from, to);
  }

  /** Delays after which a packet arrives: none, one, or two of them. */
  packet(from: number, to: number, bytes: number): number[] {
    this.packets++;
    this.bytes += bytes;
    if (this.#blocked(from, to) || this.#random.float() < this.conditions.loss) return [];
    const delays = [this.#delay()];
    if (this.conditions.duplicate > 0 && this.#random.float() < this.conditions.duplicate) {
      delays.push(this.#delay());
    }
    return delays;
  }

  /** Delay of one direction of a stream, lost segments sent again. */
  stream(): number {
    let delayMs = this.#delay();
    while (this.#random.float() < this.conditions.loss) delayMs += TCP_RETRY_MS;
    return delayMs;
  }

  #delay(): number {
    return this.conditions.delayMs + this.#random.float() * this.conditions.jitterMs;
  }
}
