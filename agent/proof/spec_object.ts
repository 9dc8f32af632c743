import { canonicalJson, type CanonicalValue } from "../canonical.ts";
import type { WorkloadSpec } from "../workloads/spec.ts";
import { hashOf } from "./entry.ts";

/** Longest canonical JSON of one list of a spec that goes in whole, characters. */
export const MAX_LIST_LENGTH = 8_192;

/** What was asked for, as proofs name it by its hash: the whole spec but the values of environment variables. */
export function specObject(spec: WorkloadSpec): Record<string, CanonicalValue> {
  return {
    args: whole([...spec.args]),
    env_keys: whole(spec.env.map((entry) => entry.split("=", 1)[0]).sort()),
    image: spec.image,
    labels: whole({ ...spec.labels }),
    memory_bytes: spec.memoryBytes,
    milli_cpus: spec.milliCpus,
    name: spec.name ?? "",
    pids_limit: spec.pidsLimit,
    ports: spec.ports.map(({ hostPort, containerPort }) => `${hostPort}:${containerPort}`),
    runtime: { name: spec.runtime.name, options: { ...spec.runtime.options } },
    stdin: spec.stdin,
    tty: spec.tty,
  };
}

/** What is too long stands for itself by its hash. */
function whole(value: CanonicalValue): CanonicalValue {
  return canonicalJson(value).length <= MAX_LIST_LENGTH ? value : { sha256: hashOf(value) };
}
