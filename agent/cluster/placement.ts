import type { Capacity, Offer, VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Random } from "../../gossip/random.ts";
import { brokenConstraint, type Constraint, type ConstraintFacts, parseConstraints } from "./constraints.ts";
import { MAX_ASKED, MAX_REASONS } from "./limits.ts";

/** What gossip tells of a node that could take a workload. */
export interface Candidate extends ConstraintFacts {
  /** Takes no new workloads. */
  cordoned: boolean;
  /** Absent for nodes of another kind. */
  capacity?: Capacity;
  /** Workloads of the request's image that it has. */
  sameImage: number;
}

/** How the node is chosen: the first that offers, or the best of those that offer. */
export type PlacementMode = "first" | "ranked";

/** What a policy says of a node: it may not, or how good it is, 0 to 1; below 0 where it is against it, but admits it. */
export type Judgement = { refused: string } | { score: number };

/** Judges nodes for a request; the policy engine's part. */
export interface PlacementPolicy {
  /** `offer` is absent before the node has answered, and for nodes of another kind. */
  judge(request: VmSpawnRequest, candidate: Candidate, offer: Offer | undefined): Judgement;
}

/** What a {@linkcode Placement} is made of. */
export interface PlacementOptions {
  request: VmSpawnRequest;
  candidates: readonly Candidate[];
  mode: PlacementMode;
  policy?: PlacementPolicy;
  random: Random;
}

/** How much each thing counts. */
export const WEIGHT = {
  /** Of a policy's score: two that are a {@linkcode POLICY_STEP} apart outweigh all that follows but spreading. */
  policy: 500,
  /** Of the whole memory being free when the workload is there. */
  freeMemory: 4,
  /** Of the image being there. */
  imagePresent: 1,
  /** Of having the most workloads of the same image among those that offer. */
  sameImage: -1,
  /** Of each workload of the same image in its group, where spreading is asked for. */
  spread: -10_000,
} as const;

/** An offer that follows an answer within this time is waited for, even when there are enough; milliseconds. */
export const LATECOMER_MS = 100;

/** Scores of a policy closer than this count as equal: measured figures are never quite the same twice. */
export const POLICY_STEP = 0.02;

/** Shares of memory closer than this count as equal, so that a pulled image decides between them. */
const MEMORY_STEP = 0.05;
/** Of the nodes asked in a large cluster, those taken by chance: gossip's figures may be old. */
const ASKED_BY_CHANCE = 8;
const MEBIBYTE = 1_048_576;
const DEFAULT_MEMORY_MIB = 512;

interface Offered {
  candidate: Candidate;
  offer: Offer | undefined;
  /** Of the policy, 0 without one. */
  policyScore: number;
}

/**
 * One decision where a workload goes. It says whom to {@linkcode ask}, takes their answers as they come, says when
 * waiting longer is of no use, and then gives one node after the other until one took the workload.
 */
export class Placement {
  readonly #options: PlacementOptions;
  readonly #fit: Candidate[];
  readonly #byId = new Map<string, Candidate>();
  readonly #asked = new Set<string>();
  readonly #offers = new Map<string, Offered>();
  /** Why not, by node id. */
  readonly #refusals = new Map<string, string>();
  readonly #tried = new Set<string>();

  /** Throws `Error` where a constraint can't be read. */
  constructor(options: PlacementOptions) {
    this.#options = options;
    const constraints = parseConstraints(options.request.constraints);
    this.#fit = options.candidates.filter((candidate) => {
      this.#byId.set(candidate.id, candidate);
      const refusal = this.#refusalBefore(candidate, constraints);
      if (refusal !== undefined) this.#refusals.set(candidate.id, refusal);
      return refusal === undefined;
    });
  }

  /**
   * Nodes to ask now: all that may, or the best of them in a large cluster. Called again when none of those took it, it
   * gives the next ones; empty when everybody has been asked.
   */
  ask(): string[] {
    const left = this.#fit.filter(({ id }) => !this.#asked.has(id) && !this.#refusals.has(id));
    const chosen = left.length <= MAX_ASKED ? left : this.#preselect(left);
    for (const { id } of chosen) this.#asked.add(id);
    return chosen.map(({ id }) => id);
  }

  /** Nodes that were asked and have not answered: slow ones, or the question or the answer was lost. */
  silent(): string[] {
    return [...this.#asked].filter((id) => !this.#offers.has(id) && !this.#refusals.has(id));
  }

  /** A node would take it. An offer of a node that was not asked counts as well, when it may have it. */
  offered(nodeId: string, offer: Offer | undefined): void {
    const candidate = this.#byId.get(nodeId);
    if (candidate === undefined || this.#offers.has(nodeId) || this.#refusals.has(nodeId)) return;
    const judgement = this.#options.policy?.judge(this.#options.request, candidate, offer) ?? { score: 0 };
    if ("refused" in judgement) this.#refusals.set(nodeId, judgement.refused);
    else this.#offers.set(nodeId, { candidate, offer, policyScore: judgement.score });
  }

  /** A node would not, or did not when it came to it. */
  refused(nodeId: string, reason: string): void {
    if (!this.#byId.has(nodeId)) return;
    this.#offers.delete(nodeId);
    this.#refusals.set(nodeId, reason);
  }

  /** Whether waiting for more answers is of no use. */
  get isSettled(): boolean {
    if (this.#options.mode === "first" && this.#offers.size > 0) return true;
    return this.silent().length === 0;
  }

  /**
   * Whether half of those asked have answered and one of them would take it: the rest may be lost, or slow. One that the
   * policy likes better than all that offered is waited for nevertheless.
   */
  get isGoodEnough(): boolean {
    if (this.#offers.size === 0) return false;
    let answered = 0;
    const best = Math.max(
      ...Array.from(this.#offers.values(), ({ policyScore }) => policyPoints(policyScore)),
    );
    for (const id of this.#asked) {
      if (this.#offers.has(id) || this.#refusals.has(id)) answered++;
      else if (this.#preference(this.#byId.get(id)!) > best) return false;
    }
    return answered * 2 >= this.#asked.size;
  }

  /** The node to try now: the best that offered and was not tried. Undefined when there is none. */
  next(): string | undefined {
    const id = this.order().find((each) => !this.#tried.has(each));
    if (id !== undefined) this.#tried.add(id);
    return id;
  }

  /** Nodes that offered and have not refused since, the best first. */
  order(): string[] {
    const offers = [...this.#offers.values()];
    if (this.#options.mode === "first") return offers.map(({ candidate }) => candidate.id);
    const scores = new Map(offers.map((offered) => [offered, this.#score(offered, offers)]));
    // Sorting is stable: of equals the first to answer comes first.
    return offers.sort((a, b) => scores.get(b)! - scores.get(a)!).map(({ candidate }) => candidate.id);
  }

  /** Why no node has it: every node's reason, those with the same reason together. */
  error(): Error {
    const { request, candidates } = this.#options;
    const what = `Cannot place "${request.name || request.imageRef}"`;
    if (request.node !== "" && !candidates.some((each) => isCalled(each, request.node))) {
      return new Error(`${what}: there is no node "${request.node}"`);
    }
    if (candidates.length === 0) return new Error(`${what}: there is no node`);
    const byReason = new Map<string, string[]>();
    for (const { id, name } of candidates.toSorted((a, b) => a.name < b.name ? -1 : 1)) {
      const isSilent = this.#asked.has(id) && !this.#offers.has(id);
      const reason = this.#refusals.get(id) ?? (isSilent ? "did not answer" : "was not asked");
      byReason.set(reason, [...byReason.get(reason) ?? [], name]);
    }
    let listed = 0;
    const parts: string[] = [];
    for (const [reason, names] of byReason) {
      const shown = names.slice(0, Math.max(1, MAX_REASONS - listed));
      listed += shown.length;
      const more = names.length - shown.length;
      parts.push(`${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}: ${reason}`);
    }
    return new Error(`${what}: no node takes it (${parts.join("; ")})`);
  }

  /** Why a node need not be asked. */
  #refusalBefore(candidate: Candidate, constraints: readonly Constraint[]): string | undefined {
    const { request, policy } = this.#options;
    if (request.node !== "" && !isCalled(candidate, request.node)) {
      return `only node "${request.node}" may have it`;
    }
    if (candidate.cordoned) return "it is cordoned";
    const broken = brokenConstraint(constraints, candidate);
    if (broken !== undefined) return `constraint "${broken}" does not hold`;
    const judgement = policy?.judge(request, candidate, undefined);
    return judgement !== undefined && "refused" in judgement ? judgement.refused : undefined;
  }

  /** The most promising by what gossip says, and a few by chance. */
  #preselect(left: readonly Candidate[]): Candidate[] {
    const { random } = this.#options;
    const ranked = left.map((candidate) => ({
      candidate,
      promise: this.#promise(candidate) + random.float() * 0.01,
    }))
      .sort((a, b) => b.promise - a.promise).map(({ candidate }) => candidate);
    const chosen = ranked.slice(0, MAX_ASKED - ASKED_BY_CHANCE);
    const rest = ranked.slice(chosen.length);
    while (chosen.length < MAX_ASKED && rest.length > 0) {
      chosen.push(...rest.splice(random.int(rest.length), 1));
    }
    return chosen;
  }

  #promise(candidate: Candidate): number {
    const { capacity } = candidate;
    const { request } = this.#options;
    const group = this.#preference(candidate) +
      (request.spread === "" ? 0 : WEIGHT.spread * this.#groupSize(candidate));
    if (capacity === undefined) return group;
    const freeMilliCpus = capacity.milliCpus - capacity.usedMilliCpus;
    const free = Number(capacity.memoryBytes - capacity.usedMemoryBytes) - this.#wantedBytes();
    if (free < 0 || freeMilliCpus < this.#wantedMilliCpus()) return group + WEIGHT.spread / 2;
    return group + WEIGHT.freeMemory * (free / Number(capacity.memoryBytes));
  }

  /** What the policy alone makes of it. */
  #preference(candidate: Candidate): number {
    const { request, policy } = this.#options;
    const judgement = policy?.judge(request, candidate, undefined);
    return judgement !== undefined && "score" in judgement ? policyPoints(judgement.score) : 0;
  }

  #score(offered: Offered, offers: readonly Offered[]): number {
    const sameImage = (each: Offered) => each.offer?.sameImage ?? each.candidate.sameImage;
    const most = Math.max(1, ...offers.map(sameImage));
    const { candidate, offer, policyScore } = offered;
    const share = this.#freeShare(offered, offers);
    let score = policyPoints(policyScore) + WEIGHT.freeMemory * Math.round(share / MEMORY_STEP) * MEMORY_STEP;
    score += WEIGHT.sameImage * (sameImage(offered) / most);
    if (offer?.imagePresent) score += WEIGHT.imagePresent;
    if (this.#options.request.spread !== "") score += WEIGHT.spread * this.#groupSize(candidate);
    return score;
  }

  /** Share of its memory that is free when the workload is there; without a total, of the largest offer. */
  #freeShare({ candidate, offer }: Offered, offers: readonly Offered[]): number {
    if (offer === undefined) return 0;
    const total = candidate.capacity === undefined
      ? Math.max(1, ...offers.map((each) => Number(each.offer?.freeMemoryBytes ?? 0n)))
      : Number(candidate.capacity.memoryBytes);
    return Math.min(1, Math.max(0, (Number(offer.freeMemoryBytes) - this.#wantedBytes()) / total));
  }

  /** Workloads of the same image on all nodes that have the same value of the tag to spread over. */
  #groupSize(candidate: Candidate): number {
    const { request: { spread }, candidates } = this.#options;
    const sameImage = (each: Candidate) => this.#offers.get(each.id)?.offer?.sameImage ?? each.sameImage;
    if (spread === "node") return sameImage(candidate);
    const value = candidate.tags[spread];
    let sum = 0;
    for (const other of candidates) if (other.tags[spread] === value) sum += sameImage(other);
    return sum;
  }

  #wantedBytes(): number {
    return (this.#options.request.memory || DEFAULT_MEMORY_MIB) * MEBIBYTE;
  }

  #wantedMilliCpus(): number {
    const { milliCpus, cores } = this.#options.request;
    return milliCpus || (cores || 1) * 1_000;
  }
}

function policyPoints(score: number): number {
  return WEIGHT.policy * Math.round(score / POLICY_STEP) * POLICY_STEP;
}

function isCalled({ id, name }: Candidate, text: string): boolean {
  return id === text || name === text;
}
