import type { CanonicalValue } from "../canonical.ts";

/** Why a proof was made. */
export type ProofKind =
  /** A run began. */
  | "start"
  /** Its time had come. */
  | "interval"
  /** The agent was started anew and found the workload running. */
  | "resume"
  /** A run ended; the workload is started again. */
  | "exit"
  /** The workload was stopped for good. */
  | "stop"
  /** The agent was started anew and found the workload gone. */
  | "gone";

/** What a proof says. A flat object of integers and strings: its canonical JSON is what is hashed. */
export interface ProofBody {
  /** Of this format. */
  readonly v: 1;
  readonly kind: ProofKind;
  readonly workload: string;
  /** Id of the node that measured. */
  readonly node: string;
  /** Counts the starts of the workload anywhere in the cluster. */
  readonly generation: number;
  /** Counts the workload's proofs on this node, from 1. */
  readonly seq: number;
  /** Hash of the proof before; zeros for the first. */
  readonly prev: string;
  /** Since the epoch; never lower than in the proof before. */
  readonly at_ms: number;
  /** When the run began, since the epoch. */
  readonly started_at_ms: number;
  /** How long the run has lasted, by a clock that nobody can set. */
  readonly wall_ms: number;
  /** CPU time of the run, on all CPUs together. */
  readonly cpu_us: number;
  readonly cpu_user_us: number;
  readonly cpu_kernel_us: number;
  readonly memory_bytes: number;
  readonly memory_peak_bytes: number;
  readonly io_read_bytes: number;
  readonly io_write_bytes: number;
  readonly pids: number;
  readonly oom_kills: number;
  readonly restarts: number;
  /** Of the run that ended; only in proofs of an end that is known. */
  readonly exit_code?: number;
  readonly image: string;
  readonly image_digest: string;
  /** SHA-256 of the canonical JSON of what was asked for, see `specObject`. */
  readonly spec_hash: string;
  /** What runs it: runc, runsc, kata, … */
  readonly hypervisor_type: string;
  readonly milli_cpus: number;
  readonly memory_limit_bytes: number;
  /** Whether the figures were read now, are the last of a run that has ended, or could not be had. */
  readonly measured: "live" | "last" | "none";
}

/**
 * Stands for the proofs between the first and the oldest that is kept, once a log has grown too long: their number, and
 * the hash that the next proof follows. It is no link of the chain itself.
 */
export interface CheckpointBody {
  readonly v: 1;
  readonly kind: "checkpoint";
  readonly workload: string;
  readonly node: string;
  /** Hash of the proof before the gap: the first. */
  readonly prev: string;
  readonly from_seq: number;
  readonly to_seq: number;
  /** Hash of the last proof in the gap. */
  readonly through: string;
  /** Over the hashes of all proofs in the gap, see `foldHash`: whoever kept them can show that they belong there. */
  readonly dropped: string;
  readonly at_ms: number;
}

/** What stands where there is no hash yet. */
export const ZERO_HASH = "0".repeat(64);

const COUNT_FIELDS = [
  "generation",
  "seq",
  "at_ms",
  "started_at_ms",
  "wall_ms",
  "cpu_us",
  "cpu_user_us",
  "cpu_kernel_us",
  "memory_bytes",
  "memory_peak_bytes",
  "io_read_bytes",
  "io_write_bytes",
  "pids",
  "oom_kills",
  "restarts",
  "milli_cpus",
  "memory_limit_bytes",
] as const;
const TEXT_FIELDS = ["workload", "node", "image", "image_digest", "hypervisor_type"] as const;
const HASH_FIELDS = ["prev", "spec_hash"] as const;
const KINDS: readonly string[] = [
  "start",
  "interval",
  "resume",
  "exit",
  "stop",
  "gone",
] satisfies ProofKind[];
const BODY_FIELDS = [...COUNT_FIELDS, ...TEXT_FIELDS, ...HASH_FIELDS, "v", "kind", "measured"].sort().join();
const CHECKPOINT_COUNTS = ["from_seq", "to_seq", "at_ms"] as const;
const CHECKPOINT_FIELDS = [
  ...CHECKPOINT_COUNTS,
  "workload",
  "node",
  "prev",
  "through",
  "dropped",
  "v",
  "kind",
]
  .sort().join();
/** Names of those fields of a body that hold a number, for whoever has them as text. */
export const NUMBER_FIELDS: ReadonlySet<string> = new Set([...COUNT_FIELDS, "v", "exit_code"]);
/** Longest text in a body, characters. */
export const MAX_TEXT_LENGTH = 512;

const HASH = /^[0-9a-f]{64}$/;
/** Printable ASCII, which `jq` writes exactly as RFC 8785 does. */
const TEXT = /^[\x20-\x7e]*$/;
const MAX_EXIT_CODE = 0xffff_ffff;

/** Checks the shape of a body that came from outside, proof or checkpoint. The reason when it is none. */
export function parseBody(
  value: CanonicalValue,
): { body: ProofBody } | { checkpoint: CheckpointBody } | { reason: string } {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { reason: "it is no object" };
  }
  const fields = value as Record<string, CanonicalValue>;
  if (fields.v !== 1) return { reason: "it is of an unknown version" };
  if (fields.kind === "checkpoint") return parseCheckpoint(fields);
  const { exit_code, ...rest } = fields;
  if (Object.keys(rest).sort().join() !== BODY_FIELDS) return { reason: "fields are missing or too many" };
  if (!KINDS.includes(fields.kind as string)) return { reason: "it is of an unknown kind" };
  if (!["live", "last", "none"].includes(fields.measured as string)) return { reason: "measured is unknown" };
  const wrong = wrongField(fields, COUNT_FIELDS, isCount) ?? wrongField(fields, TEXT_FIELDS, isText) ??
    wrongField(fields, HASH_FIELDS, isHash);
  if (wrong !== undefined) return { reason: `${wrong} is not what it should be` };
  if ("exit_code" in fields && !(isCount(exit_code) && exit_code <= MAX_EXIT_CODE)) {
    return { reason: "exit_code is not what it should be" };
  }
  return { body: fields as unknown as ProofBody };
}

function parseCheckpoint(
  fields: Record<string, CanonicalValue>,
): { checkpoint: CheckpointBody } | { reason: string } {
  if (Object.keys(fields).sort().join() !== CHECKPOINT_FIELDS) {
    return { reason: "fields are missing or too many" };
  }
  const wrong = wrongField(fields, CHECKPOINT_COUNTS, isCount) ??
    wrongField(fields, ["workload", "node"], isText) ??
    wrongField(fields, ["prev", "through", "dropped"], isHash);
  if (wrong !== undefined) return { reason: `${wrong} is not what it should be` };
  return { checkpoint: fields as unknown as CheckpointBody };
}

function wrongField(
  fields: Record<string, CanonicalValue>,
  names: readonly string[],
  isRight: (value: CanonicalValue) => boolean,
): string | undefined {
  return names.find((name) => !isRight(fields[name]));
}

function isCount(value: CanonicalValue): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isText(value: CanonicalValue): boolean {
  return typeof value === "string" && value.length <= MAX_TEXT_LENGTH && TEXT.test(value);
}

function isHash(value: CanonicalValue): boolean {
  return typeof value === "string" && HASH.test(value);
}
