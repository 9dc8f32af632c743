import type { NodeIdentity } from "../beacon/identity.ts";
import { type CheckpointBody, ZERO_HASH } from "./body.ts";
import { entryLine, foldHash, peekLine, type ProofEntry, signBody } from "./entry.ts";

/** Largest log of one workload, bytes; beyond it the middle is dropped. */
export const MAX_LOG_BYTES = 1 << 20;
/** Of a log that is too long, what is kept of its newest proofs, bytes. */
export const KEPT_BYTES = MAX_LOG_BYTES / 2;

/**
 * A log that has grown too long, made short: the first proof, a checkpoint for all that is dropped, and as many of the
 * newest proofs as fit. The lines as they are when they cannot be understood, or when there is nothing to drop.
 */
export function compact(
  lines: readonly string[],
  options: { identity: NodeIdentity; nowMs: number; keptBytes?: number },
): string[] {
  const { identity, nowMs } = options;
  const entries = lines.map(peekLine);
  const [first] = entries;
  if (first === undefined || first.body.kind === "checkpoint" || entries.includes(undefined)) {
    return [...lines];
  }
  const hasCheckpoint = entries[1]?.body.kind === "checkpoint";
  const older = hasCheckpoint ? entries[1]!.body as CheckpointBody : undefined;
  const from = hasCheckpoint ? 2 : 1;
  const keepFrom = firstKept(lines, { from, keptBytes: options.keptBytes ?? KEPT_BYTES });
  const dropped = entries.slice(from, keepFrom) as ProofEntry[];
  const last = dropped.at(-1);
  if (last === undefined) return [...lines];
  const body: CheckpointBody = {
    v: 1,
    kind: "checkpoint",
    workload: first.body.workload,
    node: identity.nodeId,
    prev: first.hash,
    from_seq: older?.from_seq ?? dropped[0].body.seq,
    to_seq: last.body.seq,
    through: last.hash,
    dropped: dropped.reduce((folded, { hash }) => foldHash(folded, hash), older?.dropped ?? ZERO_HASH),
    at_ms: Math.max(nowMs, last.body.at_ms),
  };
  return [lines[0], entryLine(signBody(body, identity)), ...lines.slice(keepFrom)];
}

/** Index of the oldest line to keep; at least the newest one stays. */
function firstKept(lines: readonly string[], options: { from: number; keptBytes: number }): number {
  let bytes = 0;
  for (let i = lines.length - 1; i > options.from; i--) {
    bytes += lines[i].length + 1;
    if (bytes > options.keptBytes) return Math.min(i + 1, lines.length - 1);
  }
  return options.from;
}
