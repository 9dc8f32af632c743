import type { Timer, TimerHeap } from "../timers.ts";
import type { MemberlistTiming } from "./config.ts";

/** Shortest time from a suspicion to the death of a node in a cluster of `nodes`. */
export function suspicionMinMs(config: MemberlistTiming, nodes: number): number {
  const scale = Math.trunc(Math.max(1, Math.log10(Math.max(1, nodes))) * 1000) / 1000;
  return config.suspicionMult * scale * config.probeIntervalMs;
}

/** A suspected node's time to refute; shrinks as others confirm the suspicion (Lifeguard, section IV-B). */
export class Suspicion {
  readonly #accusers = new Set<string>();
  readonly #startMs: number;
  readonly #minMs: number;
  readonly #maxMs: number;
  /** Confirmations after which the time-out is shortest. */
  readonly #wanted: number;
  readonly #timers: TimerHeap;
  readonly #leadMs: number;
  readonly #expire: (confirmations: number) => void;
  #confirmations = 0;
  #timer: Timer;

  constructor(
    options: {
      config: MemberlistTiming;
      nodes: number;
      from: string;
      nowMs: number;
      timers: TimerHeap;
      /** Share of Lifeguard's time that is given; 1 is all of it. */
      share: number;
      /** The same once as many others as can count confirm the suspicion. */
      confirmedShare: number;
      /** How much before the time is over `expire` is called, for a last call. */
      leadMs: number;
      /** Called once the time is over. */
      expire: (confirmations: number) => void;
    },
  ) {
    const { config, nodes } = options;
    const wanted = config.suspicionMult - 2;
    this.#wanted = nodes - 2 < wanted ? 0 : wanted;
    const stockMs = suspicionMinMs(config, nodes);
    this.#minMs = (this.#wanted > 0 ? options.confirmedShare : options.share) * stockMs;
    this.#maxMs = config.suspicionMaxTimeoutMult * options.share * stockMs;
    this.#startMs = options.nowMs;
    this.#timers = options.timers;
    this.#leadMs = options.leadMs;
    this.#expire = options.expire;
    this.#accusers.add(options.from);
    this.#timer = this.#arm(this.#startMs + (this.#wanted < 1 ? this.#minMs : this.#maxMs));
  }

  /** Counts an accuser; true where it is a new one that counts, whose word is passed on. */
  confirm(from: string, nowMs: number): boolean {
    if (this.#confirmations >= this.#wanted || this.#accusers.has(from)) return false;
    this.#accusers.add(from);
    this.#confirmations++;
    const share = Math.log(this.#confirmations + 1) / Math.log(this.#wanted + 1);
    const totalMs = Math.max(this.#minMs, Math.floor(this.#maxMs - share * (this.#maxMs - this.#minMs)));
    this.#timer.cancel();
    this.#timer = this.#arm(Math.max(nowMs + this.#leadMs, this.#startMs + totalMs));
    return true;
  }

  cancel(): void {
    this.#timer.cancel();
  }

  #arm(atMs: number): Timer {
    return this.#timers.set(atMs - this.#leadMs, () => this.#expire(this.#confirmations));
  }
}
