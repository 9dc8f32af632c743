import balanced from "../../examples/policies/balanced.json" with { type: "json" };
import trusted from "../../examples/policies/high-trust.json" with { type: "json" };
import { evaluate } from "../../agent/policy/evaluate.ts";
import { PolicyParser } from "../../agent/policy/parse.ts";
import { PolicyError } from "../../agent/policy/policy_error.ts";
import { candidate, placed, placement } from "../../agent/policy/testing.ts";
import { tighten } from "../../agent/policy/tighten.ts";
import { type Random, seededRandom } from "../../gossip/random.ts";

/** What the fuzzer found: how many texts were taken and refused. */
export interface PolicyFuzzReport {
  accepted: number;
  refused: number;
}

/** Values that stand where they should not. */
const ODD: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  1e308,
  0.5,
  65_536,
  "",
  "*",
  "**",
  "a/*:b@*",
  "\u0000",
  "\ud800",
  "10.0.0.0/33",
  "1-2-3",
  [],
  {},
  [[]],
  { tag: "zone" },
  "x".repeat(300),
];

/** A policy with everything in it. */
const FULL = {
  name: "full",
  mode: "enforce",
  on_failure: "permissive",
  rules: {
    ...balanced.rules,
    required_capabilities: ["gpu"],
    unknown_values: "admit",
    nodes: ["n*"],
    not_nodes: ["x"],
    node_tags: { zone: ["a", "b*"] },
    not_node_tags: { spot: "*" },
    beside: [{ image: "db", tag: "zone" }],
    not_beside: [{ workload: "noisy-*" }, { labels: { tier: "low" } }],
    prefer_beside: [{ same_labels: ["app"] }],
    spread: [{ tag: "zone", max_skew: 2, among: { image: "web:*" } }],
  },
  permissions: {
    allowed_images: ["web", "**/db:1.*"],
    denied_images: ["miner"],
    allowed_registries: ["*"],
    required_image_digests: { web: `sha256:${"0".repeat(64)}` },
    max_cores: 2,
    max_memory_mib: 1024,
    max_env: 3,
    max_ports: 3,
    allowed_host_ports: [80, "8000-9000"],
    allowed_container_ports: ["1-65535"],
    allowed_runtimes: ["runc"],
    allowed_env_keys: ["APP_*"],
    required_labels: ["app"],
    quotas: [{ label: "app", value: "s*", max_workloads: 3, max_cores: 4, max_memory_mib: 4096 }],
  },
  network: { egress: [{ cidr: "10.0.0.0/8", protocol: "tcp", ports: [443] }], ingress_ports: [80] },
  scoring: { ...balanced.scoring, spread_weight: 1, affinity_weight: 1 },
};

/**
 * Feeds damaged policies to the parser, and what it takes to the engine. Throws the first error that is not the
 * parser's own, with its input; and when a refusal names no place.
 */
export function fuzzPolicy(options: { seed: number; cases: number }): PolicyFuzzReport {
  const random = seededRandom(options.seed);
  const parser = new PolicyParser();
  const corpus = [FULL, FULL, balanced, trusted];
  const full = parser.parse(JSON.stringify(FULL), "full").policy;
  const nodes = ["n1", "n2"].map((name) => candidate({ name, tags: { zone: name }, workloads: [placed()] }));
  const request = placement({
    env: ["APP_A=1"],
    labels: { app: "s" },
    ports: [{ hostPort: 80, containerPort: 80 }],
  });
  const report: PolicyFuzzReport = { accepted: 0, refused: 0 };
  for (let i = 0; i < options.cases; i++) {
    const text = damage(corpus[random.int(corpus.length)], random);
    try {
      const { policy } = parser.parse(text, "fuzz");
      const { ranked, refused } = evaluate(tighten(policy, full), request, nodes);
      if (ranked.length + refused.length !== nodes.length) throw new Error("a node is lost");
      report.accepted++;
    } catch (cause) {
      if (!(cause instanceof PolicyError)) {
        throw new Error(`Policy ${JSON.stringify(text)} breaks (seed ${options.seed}, case ${i})`, { cause });
      }
      const [first] = cause.problems;
      if (first === undefined || first.message === "" || (first.line === undefined && first.path !== "")) {
        throw new Error(`Policy ${JSON.stringify(text)} is refused without a place (case ${i})`, { cause });
      }
      report.refused++;
    }
  }
  return report;
}

/** Changes the value, its text, or both. */
function damage(value: unknown, random: Random): string {
  const changed = structuredClone(value);
  for (let rounds = random.int(3); rounds > 0; rounds--) mutate(changed, random);
  let text = JSON.stringify(changed, null, random.int(3));
  if (random.int(3) > 0) return text;
  const at = random.int(text.length + 1);
  const pieces = [
    '"',
    "{",
    "]",
    ",",
    ":",
    "\n",
    "1e999",
    '"__proto__":{},',
    "//",
    text.slice(0, random.int(40)),
  ];
  text = text.slice(0, at) + pieces[random.int(pieces.length)] + text.slice(at + random.int(4));
  return text;
}

/** Replaces, removes or adds something somewhere. */
function mutate(value: unknown, random: Random): void {
  if (typeof value !== "object" || value === null) return;
  const object = value as Record<string, unknown>;
  const keys = Object.keys(object);
  const key = keys[random.int(keys.length)];
  if (key === undefined) return;
  if (random.int(3) > 0 && typeof object[key] === "object") return mutate(object[key], random);
  switch (random.int(4)) {
    case 0:
      if (!Array.isArray(value)) delete object[key];
      return;
    case 1:
      object[`${key}s`] = object[key];
      return;
    default:
      object[key] = ODD[random.int(ODD.length)];
  }
}
