import type { NodeIdentity } from "../beacon/identity.ts";
import type { CanonicalValue } from "../canonical.ts";
import { type ProofBody, ZERO_HASH } from "./body.ts";
import { entryLine, hashOf, type ProofEntry, signBody } from "./entry.ts";

/** The spec of every proof a test makes. */
export const TEST_SPEC: Record<string, CanonicalValue> = { image: "web:1", milli_cpus: 500 };

/** The first proof of a run that began at 1,000,000. */
export function firstBody(node: string, fields: Partial<ProofBody> = {}): ProofBody {
  return {
    v: 1,
    kind: "start",
    workload: "00000000000a",
    node,
    generation: 1,
    seq: 1,
    prev: ZERO_HASH,
    at_ms: 1_000_000,
    started_at_ms: 1_000_000,
    wall_ms: 0,
    cpu_us: 0,
    cpu_user_us: 0,
    cpu_kernel_us: 0,
    memory_bytes: 1_000,
    memory_peak_bytes: 2_000,
    io_read_bytes: 0,
    io_write_bytes: 0,
    pids: 1,
    oom_kills: 0,
    restarts: 0,
    image: "web:1",
    image_digest: `sha256:${"1".repeat(64)}`,
    spec_hash: hashOf(TEST_SPEC),
    hypervisor_type: "runc",
    milli_cpus: 500,
    memory_limit_bytes: 64 << 20,
    measured: "live",
    ...fields,
  };
}

/** The proof a minute later, with a minute's use. */
export function followingBody({ body, hash }: ProofEntry, fields: Partial<ProofBody> = {}): ProofBody {
  const { exit_code: _, ...rest } = body;
  return {
    ...rest,
    kind: "interval",
    seq: body.seq + 1,
    prev: hash,
    at_ms: body.at_ms + 60_000,
    wall_ms: body.wall_ms + 60_000,
    cpu_us: body.cpu_us + 20_000_000,
    cpu_user_us: body.cpu_user_us + 15_000_000,
    cpu_kernel_us: body.cpu_kernel_us + 5_000_000,
    io_write_bytes: body.io_write_bytes + 4_096,
    ...fields,
  };
}

/** A log of `count` proofs; `change` may make one of them otherwise, which is then signed all the same. */
export function testLog(
  identity: NodeIdentity,
  count: number,
  change: (seq: number) => Partial<ProofBody> = () => ({}),
): string[] {
  const entries: ProofEntry[] = [];
  for (let seq = 1; seq <= count; seq++) {
    const last = entries.at(-1);
    const body = last === undefined
      ? firstBody(identity.nodeId, change(1))
      : followingBody(last, change(seq));
    entries.push({ ...signBody(body, identity), ...(seq === 1 && { spec: TEST_SPEC }) });
  }
  return entries.map(entryLine);
}
