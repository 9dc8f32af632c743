/** What a node may do that speaks for it or against it, as far as this node saw it itself. */
export type Deed =
  | "probe-answered"
  | "probe-failed"
  /** It was asked to start a workload, and did. */
  | "spawn-kept"
  /** It offered to start a workload, and then did not. */
  | "spawn-broken"
  | "proof-valid"
  /** A proof in its own signed state does not hold. */
  | "proof-invalid"
  /** The log that came from where it should be does not hold; an impostor could have sent it. */
  | "log-invalid"
  | "attested"
  /** A state that its key did not sign came from where it should be; an impostor could have sent it. */
  | "state-forged"
  /** It signed two things that cannot both be. */
  | "contradiction";

/** How much each deed counts, for the node or against it. */
export const DEEDS: Readonly<Record<Deed, { good: number } | { bad: number }>> = {
  "probe-answered": { good: 0.05 },
  "probe-failed": { bad: 0.25 },
  "spawn-kept": { good: 1 },
  "spawn-broken": { bad: 2 },
  "proof-valid": { good: 0.5 },
  "proof-invalid": { bad: 200 },
  attested: { good: 0.5 },
  "log-invalid": { bad: 10 },
  "state-forged": { bad: 10 },
  contradiction: { bad: 200 },
};

/** What the starting value of a node counts for, in deeds of weight 1. */
export const START_WEIGHT = 10;
/** What is remembered of a node counts for at most this: who has done well for long can still fall. */
export const MAX_EVIDENCE = 200;
/** What all others together say counts for at most this. */
export const MAX_HEARSAY = 20;
/** What one other says counts for at most this. */
export const HEARSAY_EACH = 4;
/** Half of what was seen is forgotten after this time, milliseconds. */
export const HALF_LIFE_MS = 86_400_000;
/** Nodes that evidence is kept of; beyond that the one that did something longest ago is forgotten. */
export const MAX_JUDGED = 16_384;
/** Observations that a node shares; the worst first, then the best founded. */
export const MAX_SHARED_OBSERVATIONS = 12;
/** Less than this is not worth sharing. */
const MIN_SHARED_WEIGHT = 1;

/** What one node has seen of another, as it is shared. */
export interface SharedObservation {
  nodeId: string;
  /** Thousandths, 0 to 1000. */
  score: number;
  weight: number;
}

/** What another node says it saw, from its verified state. */
export interface Testimony {
  /** Who says so. */
  by: string;
  observations: readonly SharedObservation[];
}

/** What a node is thought of. */
export interface Judgement {
  /** 0 to 1. */
  score: number;
  /** Of what this node saw itself; absent where that is nothing. */
  own?: number;
  ownWeight: number;
  /** Others whose word counts in it. */
  observers: number;
}

interface Evidence {
  good: number;
  bad: number;
  atMs: number;
}

/** What others say of one node: the middle of it, and how much it weighs. */
interface Hearsay {
  score: number;
  weight: number;
  observers: number;
}

/**
 * What this node thinks of the others: of what it saw, and of what the others say they saw. Of their word the weighted median
 * counts, each weighing at most {@linkcode HEARSAY_EACH} and only as far as its speaker is trusted for what it did here: as
 * long as liars hold less than half of that weight, what they say together cannot leave the range of what honest nodes say; and
 * however many they are, their word counts for {@linkcode MAX_HEARSAY} at most. A state machine; times come in as `nowMs`.
 */
export class Reputation {
  readonly #selfId: string;
  readonly #seen = new Map<string, Evidence>();
  #hearsay: ReadonlyMap<string, Hearsay> = new Map();

  constructor(options: { selfId: string }) {
    this.#selfId = options.selfId;
  }

  /** Nodes that something was seen of. */
  get size(): number {
    return this.#seen.size;
  }

  /** Another node did something. */
  note(nodeId: string, deed: Deed, nowMs: number): void {
    if (nodeId === this.#selfId) return;
    const { good, bad } = this.#evidence(nodeId, nowMs);
    const counts = DEEDS[deed];
    const next = {
      good: good + ("good" in counts ? counts.good : 0),
      bad: bad + ("bad" in counts ? counts.bad : 0),
    };
    const scale = Math.min(1, MAX_EVIDENCE / (next.good + next.bad));
    this.#seen.delete(nodeId);
    this.#seen.set(nodeId, { good: next.good * scale, bad: next.bad * scale, atMs: nowMs });
    if (this.#seen.size > MAX_JUDGED) this.#seen.delete(this.#seen.keys().next().value!);
  }

  /** Takes what the others say now, all of it; each may speak once, and not of itself. */
  hear(testimonies: Iterable<Testimony>, nowMs: number): void {
    const said = new Map<string, { score: number; weight: number }[]>();
    for (const { by, observations } of testimonies) {
      if (by === this.#selfId) continue;
      const trust = this.#trust(by, nowMs);
      const told = new Set([by]);
      for (const { nodeId, score, weight } of observations.slice(0, MAX_SHARED_OBSERVATIONS)) {
        if (told.has(nodeId) || !(score >= 0 && score <= 1_000) || !(weight > 0)) continue;
        told.add(nodeId);
        const seen = Math.min(weight, MAX_EVIDENCE);
        const counts = trust * HEARSAY_EACH * seen / (seen + START_WEIGHT);
        const list = said.get(nodeId) ?? [];
        list.push({ score: score / 1_000, weight: counts });
        said.set(nodeId, list);
      }
    }
    const hearsay = new Map<string, Hearsay>();
    for (const [nodeId, words] of said) {
      const weight = words.reduce((sum, word) => sum + word.weight, 0);
      hearsay.set(nodeId, {
        score: weightedMedian(words),
        weight: Math.min(MAX_HEARSAY, weight),
        observers: words.length,
      });
    }
    this.#hearsay = hearsay;
  }

  /** What a node is thought of, who started from `start`; this node itself is judged by the others' word only. */
  judge(nodeId: string, start: number, nowMs: number): Judgement {
    const { good, bad } = this.#evidence(nodeId, nowMs);
    const heard = this.#hearsay.get(nodeId) ?? { score: 0, weight: 0, observers: 0 };
    const begin = start >= 0 && start <= 1 ? start : 0;
    const score = (START_WEIGHT * begin + good + heard.weight * heard.score) /
      (START_WEIGHT + good + bad + heard.weight);
    const ownWeight = good + bad;
    return { score, ...(ownWeight > 0 && { own: good / ownWeight }), ownWeight, observers: heard.observers };
  }

  /** What this node tells the others: of whom it saw the worst first, then of whom it saw most. */
  share(nowMs: number): SharedObservation[] {
    const all: SharedObservation[] = [];
    for (const nodeId of this.#seen.keys()) {
      const { good, bad } = this.#evidence(nodeId, nowMs);
      const weight = Math.round(good + bad);
      if (weight < MIN_SHARED_WEIGHT) continue;
      all.push({ nodeId, score: Math.round(1_000 * good / (good + bad)), weight });
    }
    all.sort((a, b) => coarse(a) - coarse(b) || b.weight - a.weight || (a.nodeId < b.nodeId ? -1 : 1));
    return all.slice(0, MAX_SHARED_OBSERVATIONS);
  }

  /** How far a node's word is taken, 0 to 1: by what it did here; who did nothing yet, by half. */
  #trust(nodeId: string, nowMs: number): number {
    const { good, bad } = this.#evidence(nodeId, nowMs);
    return (START_WEIGHT / 2 + good) / (START_WEIGHT + good + bad);
  }

  #evidence(nodeId: string, nowMs: number): { good: number; bad: number } {
    const seen = this.#seen.get(nodeId);
    if (seen === undefined) return { good: 0, bad: 0 };
    const left = 0.5 ** (Math.max(0, nowMs - seen.atMs) / HALF_LIFE_MS);
    return { good: seen.good * left, bad: seen.bad * left };
  }
}

/** Whether another list of shared observations says something else worth telling. */
export function haveMoved(told: readonly SharedObservation[], next: readonly SharedObservation[]): boolean {
  if (told.length !== next.length) return true;
  const before = new Map(told.map((each) => [each.nodeId, each]));
  return next.some(({ nodeId, score, weight }) => {
    const old = before.get(nodeId);
    if (old === undefined || Math.abs(old.score - score) >= SCORE_STEP) return true;
    return weight >= 2 * old.weight || 2 * weight <= old.weight;
  });
}

/** A score that moved by less, in thousandths, is not told anew. */
const SCORE_STEP = 25;

/** Scores this far apart or less, in thousandths, rank the same, so that the order of good nodes does not change all the time. */
const RANK_STEP = 250;

function coarse({ score }: SharedObservation): number {
  return Math.floor(score / RANK_STEP);
}

/** The value with at most half of the weight below and above it. Of at least one. */
function weightedMedian(values: readonly { score: number; weight: number }[]): number {
  const sorted = values.toSorted((a, b) => a.score - b.score);
  const half = sorted.reduce((sum, { weight }) => sum + weight, 0) / 2;
  let below = 0;
  for (const { score, weight } of sorted) {
    below += weight;
    if (below >= half) return score;
  }
  return sorted[sorted.length - 1].score;
}
