import type { ProxyStats } from "./mod.ts";

const DURATION_BOUNDS_SECONDS = [
  0.001,
  0.0025,
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
  30,
  60,
];

/** What one worker has done so far; plain fields, so that counting costs an addition. */
export class Counters {
  bytesIn = 0;
  bytesOut = 0;
  openConnections = 0;
  refused = 0;
  cut = 0;
  hopsSent = 0;
  hopsReceived = 0;
  hopsRefused = 0;
  readonly #requests = [0, 0, 0, 0, 0];
  /** Per bucket, not cumulative; the last is above all bounds. */
  readonly #durations = new Array<number>(DURATION_BOUNDS_SECONDS.length + 1).fill(0);
  #durationSeconds = 0;

  /** Counts one finished request. */
  observe(status: number, durationMs: number): void {
    this.#requests[Math.floor(status / 100) - 1]++;
    const seconds = durationMs / 1000;
    let bucket = 0;
    while (bucket < DURATION_BOUNDS_SECONDS.length && seconds > DURATION_BOUNDS_SECONDS[bucket]) bucket++;
    this.#durations[bucket]++;
    this.#durationSeconds += seconds;
  }

  snapshot(): ProxyStats {
    let below = 0;
    return {
      requests: Object.fromEntries(this.#requests.map((count, i) => [`${i + 1}xx`, count])),
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
      openConnections: this.openConnections,
      refusedConnections: this.refused,
      cutConnections: this.cut,
      hops: { sent: this.hopsSent, received: this.hopsReceived, refused: this.hopsRefused },
      duration: {
        bounds: DURATION_BOUNDS_SECONDS,
        counts: DURATION_BOUNDS_SECONDS.map((_, i) => below += this.#durations[i]),
        count: below + this.#durations[DURATION_BOUNDS_SECONDS.length],
        sumSeconds: this.#durationSeconds,
      },
    };
  }
}

/** Adds up what several workers have done. */
export function sumStats(all: readonly ProxyStats[]): ProxyStats {
  const total = new Counters().snapshot();
  for (const one of all) {
    for (const key of Object.keys(total.requests)) total.requests[key] += one.requests[key] ?? 0;
    total.bytesIn += one.bytesIn;
    total.bytesOut += one.bytesOut;
    total.openConnections += one.openConnections;
    total.refusedConnections += one.refusedConnections;
    total.cutConnections += one.cutConnections;
    total.hops.sent += one.hops.sent;
    total.hops.received += one.hops.received;
    total.hops.refused += one.hops.refused;
    total.duration.counts = total.duration.counts.map((count, i) => count + (one.duration.counts[i] ?? 0));
    total.duration.count += one.duration.count;
    total.duration.sumSeconds += one.duration.sumSeconds;
  }
  return total;
}
