/** How one probe of a peer went; what gossip reports. */
export interface ProbeResult {
  /** Name of the peer. */
  node: string;
  /** Anything but `direct` means that no answer came in time on the direct way. */
  via: "direct" | "late" | "stream" | "failed";
  rttMs: number | undefined;
}

/** The line to one peer, as far as it is known. */
export interface LineFigures {
  /** Median of the newest round trips; by network coordinates where there was none. */
  latencyMs?: number;
  /** Standard deviation of the newest round trips. */
  jitterMs?: number;
  /** Probes that were not answered in time, percent. */
  packetLossPercent?: number;
}

/** Peers whose probes are remembered; beyond that the one not probed for longest is forgotten. */
export const MAX_MEASURED_PEERS = 16_384;
/** Round trips that latency and jitter are made of. */
export const RTT_SAMPLES = 10;
/** Probes of one peer that its loss is made of. */
export const LOSS_WINDOW = 50;
/** Probes older than this count no more, milliseconds. */
export const LOSS_WINDOW_MS = 1_800_000;
/** Fewer probes than this say nothing about loss. */
export const MIN_LOSS_SAMPLES = 5;
/** Fewer round trips than this say nothing about jitter. */
export const MIN_JITTER_SAMPLES = 3;

interface Line {
  rttsMs: number[];
  probes: { atMs: number; isLost: boolean }[];
}

/**
 * Latency, jitter and packet loss between this node and its peers, from what became of gossip's probes. A state machine:
 * times come in as `nowMs` of any steady clock.
 */
export class LineQuality {
  /** By name, the one probed last at the end. */
  readonly #lines = new Map<string, Line>();

  /** Peers that something is known of. */
  get size(): number {
    return this.#lines.size;
  }

  /** Takes the outcome of a probe. */
  record({ node, via, rttMs }: ProbeResult, nowMs: number): void {
    const line = this.#lines.get(node) ?? { rttsMs: [], probes: [] };
    this.#lines.delete(node);
    this.#lines.set(node, line);
    if (this.#lines.size > MAX_MEASURED_PEERS) this.#lines.delete(this.#lines.keys().next().value!);
    if (via === "direct" && rttMs !== undefined) push(line.rttsMs, rttMs, RTT_SAMPLES);
    push(line.probes, { atMs: nowMs, isLost: via !== "direct" }, LOSS_WINDOW);
  }

  /** A peer is gone: what was measured of it says nothing about the lines that are left. */
  forget(node: string): void {
    this.#lines.delete(node);
  }

  /** The line to one peer. */
  to(node: string, nowMs: number): LineFigures {
    const line = this.#lines.get(node);
    if (line === undefined) return {};
    const { rttsMs } = line;
    const probes = line.probes.filter(({ atMs }) => nowMs - atMs <= LOSS_WINDOW_MS);
    return {
      ...(rttsMs.length > 0 && { latencyMs: lowerMedian(rttsMs) }),
      ...(rttsMs.length >= MIN_JITTER_SAMPLES && { jitterMs: standardDeviation(rttsMs) }),
      ...(probes.length >= MIN_LOSS_SAMPLES && { packetLossPercent: lossPercent(probes) }),
    };
  }

  /**
   * This node's own lines taken together: of each figure the lower median over the peers, so that one peer with a bad line
   * is not held against the others. In a cluster so large that most peers were hardly probed, loss is that of all probes.
   */
  overall(nowMs: number): LineFigures {
    const lines = Array.from(this.#lines.keys(), (node) => this.to(node, nowMs));
    const figures: LineFigures = {};
    for (const key of ["latencyMs", "jitterMs", "packetLossPercent"] as const) {
      const values = lines.flatMap((line) => line[key] ?? []);
      if (values.length > 0) figures[key] = lowerMedian(values);
    }
    const withLoss = lines.filter(({ packetLossPercent }) => packetLossPercent !== undefined).length;
    if (withLoss * 2 <= lines.length) {
      const probes = [...this.#lines.values()].flatMap((line) =>
        line.probes.filter(({ atMs }) => nowMs - atMs <= LOSS_WINDOW_MS)
      );
      if (probes.length >= MIN_LOSS_SAMPLES) figures.packetLossPercent = lossPercent(probes);
    }
    return figures;
  }
}

/** The middle value, of an even number the lower of the two. Of at least one. */
export function lowerMedian(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[(values.length - 1) >> 1];
}

function standardDeviation(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}

function lossPercent(probes: readonly { isLost: boolean }[]): number {
  return 100 * probes.filter(({ isLost }) => isLost).length / probes.length;
}

function push<T>(list: T[], value: T, limit: number): void {
  list.push(value);
  if (list.length > limit) list.shift();
}
