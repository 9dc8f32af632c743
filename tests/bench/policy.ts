import { evaluate } from "../../agent/policy/evaluate.ts";
import type { Candidate, PlacementRequest } from "../../agent/policy/facts.ts";
import { PolicyParser } from "../../agent/policy/parse.ts";
import { median, quantile } from "./support/stats.ts";

const NODES = 1_000;
const WORKLOADS_PER_NODE = 8;
const ROUNDS = 400;

/** Ten rules; about half of the nodes break one of them. */
const RULES = {
  required_capabilities: ["runtime:runc"],
  max_latency_ms: 150,
  max_price_per_gb: 0.05,
  min_reputation_score: 0.5,
  max_queue_depth: 100,
  max_packet_loss: 2,
  max_jitter_ms: 30,
  node_tags: { zone: ["eu-*", "us-*"] },
  not_nodes: ["drained-*"],
  not_beside: [{ same_labels: ["app"] }],
};

/** Time to rank 1,000 nodes by a policy of ten rules, as Markdown. */
export function policyBench(): string {
  const { policy } = new PolicyParser().parse(
    JSON.stringify({ name: "bench", mode: "enforce", rules: RULES }),
    "bench.json",
  );
  const nodes = Array.from({ length: NODES }, (_, index) => candidate(index));
  const request: PlacementRequest = {
    image: "web:1",
    milliCpus: 500,
    memoryBytes: 256 * 2 ** 20,
    env: [],
    ports: [],
    runtime: { name: "runc" },
    labels: { app: "app-3" },
  };
  const times: number[] = [];
  let admitted = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const began = performance.now();
    admitted = evaluate(policy, request, nodes).ranked.length;
    times.push(performance.now() - began);
  }
  // The first rounds are those of a program that has just started.
  const [first, warm] = [times[0], times.slice(ROUNDS / 4)];
  return [
    `${NODES} nodes with ${WORKLOADS_PER_NODE} workloads each, ${Object.keys(RULES).length} rules, ` +
    `${admitted} nodes admitted; milliseconds.`,
    "",
    "| | first | median | p90 | p99 |",
    "|---|---|---|---|---|",
    `| rank | ${[first, median(warm), quantile(warm, 0.9), quantile(warm, 0.99)].map(ms).join(" | ")} |`,
  ].join("\n");
}

function ms(value: number): string {
  return value.toFixed(2);
}

function candidate(index: number): Candidate {
  return {
    id: `node-${index}`,
    name: `host-${index}`,
    tags: { zone: ["eu-1", "eu-2", "us-1", "ap-1"][index % 4] },
    capabilities: ["arch:amd64", "runtime:runc", "kvm"],
    latencyMs: (index * 37) % 200,
    jitterMs: index % 20,
    packetLossPercent: (index % 50) / 20,
    queueDepth: index % 60,
    pricePerGb: ((index * 13) % 60) / 1_000,
    reputation: 0.4 + (index % 60) / 100,
    workloads: Array.from({ length: WORKLOADS_PER_NODE }, (_, n) => ({
      id: `${index}-${n}`,
      image: "web:1",
      labels: { app: `app-${(index + n) % 40}` },
      milliCpus: 250,
      memoryBytes: 2 ** 27,
    })),
    capacity: { milliCpus: 4_000, memoryBytes: 2 ** 33 },
  };
}
