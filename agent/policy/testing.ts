import type { Candidate, PlacedWorkload, PlacementRequest } from "./facts.ts";
import { NO_PERMISSIONS, NO_RULES, type Policy } from "./policy.ts";
import { PolicyParser } from "./parse.ts";
import type { PolicyFile } from "./wire.ts";

/** A policy of these parts; enforcing, and without any rule, by default. */
export function policy(fields: Partial<Policy> = {}): Policy {
  return {
    id: "sha256:0",
    name: "test",
    description: "",
    mode: "enforce",
    onFailure: "refuse",
    rules: NO_RULES,
    permissions: NO_PERMISSIONS,
    ...fields,
  };
}

/** A node near by of which everything is known. */
export function candidate(fields: Partial<Candidate> = {}): Candidate {
  const name = fields.name ?? "n1";
  return {
    id: `id-${name}`,
    name,
    tags: {},
    capabilities: ["arch:amd64"],
    latencyMs: 10,
    jitterMs: 1,
    packetLossPercent: 0,
    queueDepth: 0,
    pricePerGb: 0.01,
    reputation: 0.9,
    workloads: [],
    ...fields,
  };
}

/** A small workload that runs. */
export function placed(fields: Partial<PlacedWorkload> = {}): PlacedWorkload {
  return {
    id: "0".repeat(12),
    image: "web:1",
    labels: {},
    milliCpus: 1000,
    memoryBytes: 512 * 2 ** 20,
    ...fields,
  };
}

/** A request for a small workload. */
export function placement(fields: Partial<PlacementRequest> = {}): PlacementRequest {
  return {
    image: "web:1",
    milliCpus: 1000,
    memoryBytes: 512 * 2 ** 20,
    env: [],
    ports: [],
    runtime: { name: "runc" },
    labels: {},
    ...fields,
  };
}

/** A parser, and a shortcut to what it makes of a file's value. */
export function fileParser(): (file: Omit<PolicyFile, "name" | "mode"> & Partial<PolicyFile>) => Policy {
  const parser = new PolicyParser();
  return (file) =>
    parser.parse(JSON.stringify({ name: "test", mode: "enforce", ...file }), "test.json").policy;
}
