import assert from "node:assert/strict";
import { evaluate } from "./evaluate.ts";
import type { Candidate } from "./facts.ts";
import { MAX_CANDIDATES } from "./limits.ts";
import { candidate, fileParser, placed, placement, policy } from "./testing.ts";
import type { PolicyFile } from "./wire.ts";

const parse = fileParser();

function order(file: Partial<PolicyFile>, nodes: Candidate[], labels: Record<string, string> = {}): string[] {
  return evaluate(parse(file), placement({ labels }), nodes).ranked.map(({ node }) => node.name);
}

const weights = (fields: PolicyFile["scoring"]) => ({ scoring: fields });

Deno.test("each term puts the better node first", () => {
  const rows: [PolicyFile["scoring"], Partial<Candidate>, Partial<Candidate>][] = [
    [{ latency_weight: 1 }, { latencyMs: 10 }, { latencyMs: 20 }],
    [{ price_weight: 1 }, { pricePerGb: 0.01 }, { pricePerGb: 0.02 }],
    [{ reputation_weight: 1 }, { reputation: 0.9 }, { reputation: 0.8 }],
    [{ queue_weight: 1 }, { queueDepth: 1 }, { queueDepth: 2 }],
  ];
  for (const [scoring, better, worse] of rows) {
    // Named against the order of names, so that no tie can look right.
    const nodes = [candidate({ name: "a", ...worse }), candidate({ name: "b", ...better })];
    assert.deepEqual(order(weights(scoring), nodes), ["b", "a"], JSON.stringify(scoring));
    const unknown = Object.fromEntries(Object.keys(better).map((key) => [key, undefined]));
    assert.deepEqual(order(weights(scoring), [candidate({ name: "a", ...unknown }), nodes[1]]), ["b", "a"]);
  }
});

Deno.test("a term is measured against the policy's own limit, so small prices tell", () => {
  const nodes = [
    candidate({ name: "near", latencyMs: 10, pricePerGb: 0.05 }),
    candidate({ name: "cheap", latencyMs: 100, pricePerGb: 0.02 }),
  ];
  const scoring = { latency_weight: 0.45, price_weight: 0.55 };
  assert.deepEqual(order({ scoring, rules: { max_price_per_gb: 0.05, max_latency_ms: 500 } }, nodes), [
    "cheap",
    "near",
  ]);
  assert.deepEqual(order({ scoring }, nodes), ["near", "cheap"]);
});

Deno.test("scores are 0 to 1, the weights of their terms add up to 1, and the sum is the score", () => {
  const file = {
    rules: {
      prefer_low_price: true,
      spread: [{ tag: "zone" }, { tag: "rack" }],
      prefer_beside: [{ workload: "db" }],
    },
    scoring: { latency_weight: 3, queue_weight: 1 },
  };
  const nodes = [
    candidate({ name: "a", latencyMs: 5000, tags: { zone: "x" } }),
    candidate({ name: "b", workloads: [placed({ name: "db" })] }),
  ];
  for (const { score, terms } of evaluate(parse(file), placement(), nodes).ranked) {
    assert.ok(score >= 0 && score <= 1);
    const total = terms.reduce((sum, { weight }) => sum + weight, 0);
    assert.ok(Math.abs(total - 1) < 1e-9);
    assert.ok(Math.abs(terms.reduce((sum, { weight, value }) => sum + weight * value, 0) - score) < 1e-9);
  }
});

Deno.test("preferences add to their weights", () => {
  const nodes = [
    candidate({ name: "near", latencyMs: 10, pricePerGb: 0.5 }),
    candidate({ name: "cheap", latencyMs: 100, pricePerGb: 0.1 }),
  ];
  assert.deepEqual(order({}, nodes), ["near", "cheap"]);
  assert.deepEqual(order({ rules: { prefer_low_price: true } }, nodes), ["cheap", "near"]);
});

Deno.test("workloads spread over a tag, and go where they would rather be", () => {
  const web = placed({ image: "web:1", labels: { app: "shop" } });
  const nodes = [
    candidate({ name: "a", tags: { zone: "x" }, workloads: [web] }),
    candidate({ name: "b", tags: { zone: "x" } }),
    candidate({ name: "c", tags: { zone: "y" } }),
  ];
  assert.equal(order({ rules: { spread: [{ tag: "zone" }] } }, nodes)[0], "c");
  assert.equal(
    order({ rules: { prefer_beside: [{ same_labels: ["app"] }] } }, nodes, { app: "shop" })[0],
    "a",
  );
  assert.equal(
    order({ rules: { prefer_not_beside: [{ same_labels: ["app"], tag: "zone" }] } }, nodes, {
      app: "shop",
    })[0],
    "c",
  );
});

Deno.test("ties go to fewer workloads, then by name, whatever order the nodes come in", () => {
  const nodes = [
    candidate({ name: "d", workloads: [placed()] }),
    candidate({ name: "b" }),
    candidate({ name: "c" }),
    candidate({ name: "a", workloads: [placed(), placed()] }),
  ];
  for (const each of [nodes, nodes.toReversed(), [nodes[2], nodes[0], nodes[3], nodes[1]]]) {
    assert.deepEqual(order({}, each), ["b", "c", "d", "a"]);
  }
});

Deno.test("a permissive policy admits everything with its violations, what it likes first", () => {
  const file: Partial<PolicyFile> = {
    mode: "permissive",
    rules: { max_latency_ms: 50 },
    permissions: { max_cores: 0.5 },
  };
  const nodes = [candidate({ name: "far", latencyMs: 60 }), candidate({ name: "near", reputation: 0 })];
  const { ranked, refused, request } = evaluate(parse(file), placement(), nodes);
  assert.deepEqual(refused, []);
  assert.deepEqual(ranked.map(({ node, violations }) => [node.name, violations.length]), [["near", 0], [
    "far",
    1,
  ]]);
  assert.equal(ranked[1].violations[0].advisory, true);
  assert.equal(request[0].rule, "permissions.max_cores");
  assert.equal(request[0].advisory, true);
});

Deno.test("a request that is refused is refused by every node, with its reasons and the node's", () => {
  const { ranked, refused } = evaluate(
    parse({ permissions: { max_cores: 0.5 }, rules: { max_latency_ms: 50 } }),
    placement(),
    [candidate({ name: "b", latencyMs: 60 }), candidate({ name: "a" })],
  );
  assert.deepEqual(ranked, []);
  assert.deepEqual(refused.map(({ node, reasons }) => [node.name, ...reasons.map(({ rule }) => rule)]), [
    ["a", "permissions.max_cores"],
    ["b", "permissions.max_cores", "rules.max_latency_ms"],
  ]);
});

Deno.test("a node without room refuses, whatever the mode", () => {
  const nodes = [candidate({ capacity: { milliCpus: 500, memoryBytes: 0 } })];
  for (const mode of ["enforce", "permissive"] as const) {
    const { refused } = evaluate(policy({ mode }), placement(), nodes);
    assert.deepEqual(refused[0].reasons.map(({ reason }) => reason), [
      "1 vCPUs are asked for, 0.5 are left",
      "512 MiB of memory are asked for, 0 are left",
    ]);
  }
});

Deno.test("only the nodes asked for are judged; the others count", () => {
  const file = { permissions: { quotas: [{ label: "team", max_workloads: 1 }] } };
  const nodes = [
    candidate({ name: "a" }),
    candidate({ name: "b", workloads: [placed({ labels: { team: "x" } })] }),
  ];
  const { refused } = evaluate(parse(file), placement({ labels: { team: "x" } }), nodes, {
    only: ({ name }) => name === "a",
  });
  assert.deepEqual(refused.map(({ node }) => node.name), ["a"]);
});

Deno.test("more nodes than the limit are an error, not a long pause", () => {
  const nodes = Array.from({ length: MAX_CANDIDATES + 1 }, () => candidate());
  assert.throws(() => evaluate(policy(), placement(), nodes), /10001 nodes, at most 10000/);
});
