import type { IdentityClaim } from "../beacon/identity.ts";
import { isSameBytes, verifyClaim } from "../beacon/identity_rotation.ts";
import { type CheckpointBody, type ProofBody, ZERO_HASH } from "./body.ts";
import { contradiction, contradictionBetween } from "./consistency.ts";
import { type ProofEntry, readLine } from "./entry.ts";

/** What came of a verification. */
export type Verdict =
  | { result: "VALID"; summary: ProofSummary }
  /** `line` counts from 1; `seq` is that of the first bad link where it can be told. */
  | { result: "INVALID"; reason: string; line?: number; seq?: number }
  | { result: "UNKNOWN"; reason: string };

/** What a valid log shows. */
export interface ProofSummary {
  readonly first: ProofBody;
  readonly last: ProofBody;
  readonly lastHash: string;
  /** Proofs in it. */
  readonly count: number;
  /** Proofs that a checkpoint stands for. */
  readonly dropped: number;
  /** CPU time of all runs as far as they are in the log, microseconds. */
  readonly cpuUs: number;
  /** Time of all runs, milliseconds. */
  readonly wallMs: number;
}

/** What a log is checked against besides itself. */
export interface VerifierOptions {
  /** Who is said to have signed; without it nothing can be said. */
  claim?: IdentityClaim;
  /** The workload it is said to be of. */
  workload?: string;
  /** Hash that the log must end with, where that is known. */
  lastHash?: string;
  /** Hash of a proof that the node has told of: the log must have it. */
  toldHash?: string;
  /** Hash that is asked for; UNKNOWN when it is not among those kept. */
  wantedHash?: string;
}

/**
 * Verifies a log line by line: form, hash, signature, signer, chain and consistency. Pure; to be fed in portions where
 * nothing else may wait. The first bad link decides, and nothing after it is looked at.
 */
export class LogVerifier {
  readonly #options: VerifierOptions;
  readonly #keys: readonly Uint8Array[] = [];
  #verdict?: Verdict;
  #line = 0;
  /** Keys only ever get newer. */
  #keyIndex = 0;
  #first?: ProofEntry;
  #last?: ProofEntry;
  #checkpoint?: CheckpointBody;
  #hasWanted = false;
  #hasTold = false;
  #count = 0;
  #cpuUs = 0;
  #wallMs = 0;

  constructor(options: VerifierOptions) {
    this.#options = options;
    if (options.claim === undefined) {
      this.#verdict = { result: "UNKNOWN", reason: "the node's key is not known" };
      return;
    }
    const claim = verifyClaim(options.claim);
    if ("keys" in claim) this.#keys = claim.keys;
    else this.#verdict = { result: "INVALID", reason: `the node's identity does not hold: ${claim.reason}` };
  }

  /** Takes the next line, without its line feed. False once more lines change nothing. */
  push(line: string): boolean {
    if (this.#verdict !== undefined) return false;
    this.#line++;
    const read = readLine(line);
    const problem = "reason" in read ? read.reason : this.#signerProblem(read.key) ??
      ("entry" in read ? this.#take(read.entry) : this.#bridge(read.checkpoint.body));
    if (problem === undefined) return true;
    const seq = "entry" in read ? read.entry.body.seq : this.#nextSeq;
    this.#verdict = { result: "INVALID", reason: problem, line: this.#line, seq };
    return false;
  }

  /** The verdict, when all lines have been given. */
  finish(): Verdict {
    if (this.#verdict !== undefined) return this.#verdict;
    const { lastHash, toldHash, wantedHash } = this.#options;
    const [first, last] = [this.#first, this.#last];
    if (first === undefined || last === undefined) {
      return { result: "UNKNOWN", reason: "there are no proofs" };
    }
    if (this.#checkpoint !== undefined) return this.#invalid("nothing follows the checkpoint");
    if (lastHash !== undefined && last.hash !== lastHash) {
      return this.#invalid("it does not end with the newest proof that was made");
    }
    if (toldHash !== undefined && !this.#hasTold) {
      return this.#invalid("a proof that its node has told of is not in it");
    }
    if (wantedHash !== undefined && !this.#hasWanted) {
      return { result: "UNKNOWN", reason: "no proof that is kept has this hash" };
    }
    return {
      result: "VALID",
      summary: {
        first: first.body,
        last: last.body,
        lastHash: last.hash,
        count: this.#count,
        dropped: last.body.seq - this.#count,
        cpuUs: this.#cpuUs,
        wallMs: this.#wallMs,
      },
    };
  }

  get #nextSeq(): number {
    return (this.#last?.body.seq ?? 0) + 1;
  }

  #invalid(reason: string): Verdict {
    return { result: "INVALID", reason, line: this.#line, seq: this.#nextSeq };
  }

  #signerProblem(key: Uint8Array): string | undefined {
    const index = this.#keys.findIndex((each) => isSameBytes(each, key));
    if (index < 0) return "it is signed by a key that is not the node's";
    if (index < this.#keyIndex) return "it is signed by a key that the node had given up";
    this.#keyIndex = index;
    return undefined;
  }

  #take(entry: ProofEntry): string | undefined {
    const { body } = entry;
    const problem = this.#chainProblem(entry) ?? contradiction(body) ??
      (this.#last && contradictionBetween(this.#last.body, body));
    if (problem !== undefined) return problem;
    const isSameRun = this.#last?.body.generation === body.generation;
    this.#cpuUs += body.cpu_us - (isSameRun ? this.#last!.body.cpu_us : 0);
    this.#wallMs += body.wall_ms - (isSameRun ? this.#last!.body.wall_ms : 0);
    this.#hasTold ||= entry.hash === this.#options.toldHash;
    this.#hasWanted ||= entry.hash === this.#options.wantedHash;
    this.#count++;
    this.#first ??= entry;
    this.#last = entry;
    this.#checkpoint = undefined;
    return undefined;
  }

  #chainProblem({ body, spec }: ProofEntry): string | undefined {
    const { claim, workload } = this.#options;
    if (body.node !== claim!.nodeId) return "it is of another node";
    if (workload !== undefined && body.workload !== workload) return "it is of another workload";
    const checkpoint = this.#checkpoint;
    const expected = checkpoint === undefined
      ? { seq: this.#nextSeq, prev: this.#last?.hash ?? ZERO_HASH }
      : { seq: checkpoint.to_seq + 1, prev: checkpoint.through };
    if (body.seq !== expected.seq) return `it is number ${body.seq} where ${expected.seq} was due`;
    if (body.prev !== expected.prev) return "it does not follow from the proof before";
    if ((spec !== undefined) !== (body.seq === 1)) {
      return spec === undefined ? "the first proof lacks the spec" : "only the first proof carries the spec";
    }
    return undefined;
  }

  /** Only the first proof is kept before a gap, and there is one gap at most. */
  #bridge(checkpoint: CheckpointBody): string | undefined {
    const last = this.#last;
    if (last === undefined || last !== this.#first || this.#checkpoint !== undefined) {
      return "a checkpoint stands elsewhere than after the first proof";
    }
    if (checkpoint.node !== last.body.node || checkpoint.workload !== last.body.workload) {
      return "the checkpoint is of something else";
    }
    if (checkpoint.prev !== last.hash || checkpoint.from_seq !== last.body.seq + 1) {
      return "the checkpoint does not follow from the first proof";
    }
    if (checkpoint.to_seq < checkpoint.from_seq) return "the checkpoint stands for nothing";
    if (checkpoint.at_ms < last.body.at_ms) return "the checkpoint is older than the first proof";
    this.#checkpoint = checkpoint;
    return undefined;
  }
}

/** Verifies a whole log at once, in the order of its lines. */
export function verifyLines(lines: Iterable<string>, options: VerifierOptions): Verdict {
  const verifier = new LogVerifier(options);
  for (const line of lines) if (!verifier.push(line)) break;
  return verifier.finish();
}
