import { RuntimeError } from "../../runtime/errors.ts";
import { MAX_HOST_PORTS, MAX_WORKLOADS } from "./limits.ts";
import type { WorkloadSpec } from "./spec.ts";

/** What a node has to give. */
export interface Capacity {
  milliCpus: number;
  memoryBytes: number;
}

/** What an {@linkcode AdmissionLedger} has given away. */
export interface Usage extends Capacity {
  workloads: number;
}

/** The part of a workload that admission looks at. */
export type Claim = Pick<WorkloadSpec, "milliCpus" | "memoryBytes" | "name" | "ports">;

/**
 * Who was promised what of this node. Each method is one step without await, so two spawns at the same moment can't
 * both get the last of anything.
 */
export class AdmissionLedger {
  readonly #claims = new Map<string, Claim>();

  constructor(readonly capacity: Capacity) {}

  /** Sums of what is promised. */
  get usage(): Usage {
    let [milliCpus, memoryBytes] = [0, 0];
    for (const claim of this.#claims.values()) {
      milliCpus += claim.milliCpus;
      memoryBytes += claim.memoryBytes;
    }
    return { milliCpus, memoryBytes, workloads: this.#claims.size };
  }

  /** Why there is no room for this, in words, or nothing. */
  refusal(claim: Claim): RuntimeError | undefined {
    const used = this.usage;
    const left = {
      milliCpus: this.capacity.milliCpus - used.milliCpus,
      memoryBytes: this.capacity.memoryBytes - used.memoryBytes,
    };
    if (used.workloads >= MAX_WORKLOADS) {
      return refuse("exhausted", `the node runs ${MAX_WORKLOADS} workloads, its limit`);
    }
    if (claim.milliCpus > left.milliCpus) {
      return refuse(
        "exhausted",
        `${claim.milliCpus / 1000} vCPUs are asked for, ${Math.max(0, left.milliCpus) / 1000} of ` +
          `${this.capacity.milliCpus / 1000} are left`,
      );
    }
    if (claim.memoryBytes > left.memoryBytes) {
      return refuse(
        "exhausted",
        `${mebibytes(claim.memoryBytes)} MiB of memory are asked for, ${mebibytes(left.memoryBytes)} of ` +
          `${mebibytes(this.capacity.memoryBytes)} MiB are left`,
      );
    }
    const ports = new Set(
      [...this.#claims.values(), claim].flatMap((each) => each.ports.map((p) => p.hostPort)),
    );
    if (ports.size > MAX_HOST_PORTS) {
      return refuse("exhausted", `the node would have more than ${MAX_HOST_PORTS} host ports open`);
    }
    if (claim.name === undefined) return undefined;
    for (const [id, other] of this.#claims) {
      if (other.name === claim.name) {
        return refuse("already-exists", `the name "${claim.name}" belongs to ${id}`);
      }
    }
  }

  /** Promises it to this id. Throws what {@linkcode refusal} says. */
  reserve(id: string, claim: Claim): void {
    const refusal = this.refusal(claim);
    if (refusal !== undefined) throw refusal;
    this.#claims.set(id, claim);
  }

  /** Enters what runs already, whether there is room or not. */
  adopt(id: string, claim: Claim): void {
    this.#claims.set(id, claim);
  }

  release(id: string): void {
    this.#claims.delete(id);
  }
}

function refuse(code: "exhausted" | "already-exists", reason: string): RuntimeError {
  return new RuntimeError(code, `Cannot admit the workload: ${reason}`);
}

function mebibytes(bytes: number): number {
  return Math.max(0, Math.floor(bytes / 1_048_576));
}
