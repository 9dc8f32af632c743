import assert from "node:assert/strict";
import { evaluate } from "./evaluate.ts";
import type { Candidate, PlacementRequest } from "./facts.ts";
import { candidate, fileParser, placed, placement } from "./testing.ts";
import type { RulesFile } from "./wire.ts";

const parse = fileParser();

function reasons(
  rules: RulesFile,
  node: Partial<Candidate>,
  others: { request?: Partial<PlacementRequest>; nodes?: Candidate[] } = {},
): string[] {
  const nodes = [candidate({ name: "n1", ...node }), ...(others.nodes ?? [])];
  const { ranked, refused } = evaluate(parse({ rules }), placement(others.request), nodes);
  assert.equal(ranked.length + refused.length, nodes.length);
  const found = refused.find((each) => each.node.name === "n1");
  return (found?.reasons ?? []).map(({ rule, reason }) => `${rule}: ${reason}`);
}

interface Row {
  rule: RulesFile;
  admits: Partial<Candidate>[];
  refuses: [Partial<Candidate>, RegExp][];
  /** With the value not known. */
  unknown?: [Partial<Candidate>, RegExp];
}

const rows: Record<string, Row> = {
  "required capabilities": {
    rule: { required_capabilities: ["gpu", "kvm"] },
    admits: [{ capabilities: ["kvm", "gpu", "x"] }],
    refuses: [[{ capabilities: ["kvm"] }, /required_capabilities: it lacks gpu$/], [
      { capabilities: [] },
      /it lacks gpu, kvm$/,
    ]],
    unknown: [{ capabilities: undefined }, /its capabilities are not known/],
  },
  "the largest latency": {
    rule: { max_latency_ms: 50 },
    admits: [{ latencyMs: 50 }, { latencyMs: 0 }],
    refuses: [
      [{ latencyMs: 50.1 }, /max_latency_ms: latency is 50\.1 ms, at most 50 ms is allowed/],
      [{ latencyMs: Infinity }, /latency is Infinity/],
    ],
    unknown: [{ latencyMs: undefined }, /latency is not known, at most 50 ms is allowed/],
  },
  "a latency that is no number": {
    rule: { max_latency_ms: 50 },
    admits: [],
    refuses: [],
    unknown: [{ latencyMs: NaN }, /latency is not known/],
  },
  "the highest price": {
    rule: { max_price_per_gb: 0.02 },
    admits: [{ pricePerGb: 0.02 }, { pricePerGb: 0 }],
    refuses: [[{ pricePerGb: 0.03 }, /max_price_per_gb: price per GB is 0\.03, at most 0\.02/]],
    unknown: [{ pricePerGb: undefined }, /price per GB is not known/],
  },
  "the least reputation": {
    rule: { min_reputation_score: 0.7 },
    admits: [{ reputation: 0.7 }, { reputation: 1 }],
    refuses: [[{ reputation: 0.69 }, /min_reputation_score: reputation is 0\.69, at least 0\.7/]],
    unknown: [{ reputation: undefined }, /reputation is not known/],
  },
  "the deepest queue": {
    rule: { max_queue_depth: 10 },
    admits: [{ queueDepth: 10 }],
    refuses: [[{ queueDepth: 11 }, /max_queue_depth: queue depth is 11, at most 10/]],
    unknown: [{ queueDepth: undefined }, /queue depth is not known/],
  },
  "the largest packet loss": {
    rule: { max_packet_loss: 2.5 },
    admits: [{ packetLossPercent: 2.5 }],
    refuses: [[{ packetLossPercent: 3 }, /max_packet_loss: packet loss is 3 %, at most 2\.5 %/]],
    unknown: [{ packetLossPercent: undefined }, /packet loss is not known/],
  },
  "the largest jitter": {
    rule: { max_jitter_ms: 5 },
    admits: [{ jitterMs: 5 }],
    refuses: [[{ jitterMs: 6 }, /max_jitter_ms: jitter is 6 ms, at most 5 ms/]],
    unknown: [{ jitterMs: undefined }, /jitter is not known/],
  },
  "node names and ids": {
    rule: { nodes: ["db-*", "id-n7"] },
    admits: [{ id: "id-n7" }, { id: "db-7" }],
    refuses: [[{ id: "x" }, /rules\.nodes: it is none of db-\*, id-n7/]],
  },
  "no node at all": { rule: { nodes: [] }, admits: [], refuses: [[{}, /rules\.nodes: it is none of none/]] },
  "excluded nodes": {
    rule: { not_nodes: ["bad*"] },
    admits: [{ id: "good" }],
    refuses: [[{ id: "bad1" }, /not_nodes: it is one of bad\*/]],
  },
  "node tags": {
    rule: { node_tags: { zone: ["eu-*", "us-1"], disk: "*" } },
    admits: [{ tags: { zone: "eu-2", disk: "ssd" } }, { tags: { zone: "us-1", disk: "" } }],
    refuses: [
      [{ tags: { zone: "us-2", disk: "ssd" } }, /node_tags\.zone: zone is "us-2", none of eu-\*, us-1/],
      [{ tags: { zone: "us-1" } }, /node_tags\.disk: it has no tag disk/],
      [{ tags: {} }, /it has no tag zone/],
    ],
  },
  "excluded node tags": {
    rule: { not_node_tags: { spot: "*", zone: "us-*" } },
    admits: [{ tags: {} }, { tags: { zone: "eu" } }],
    refuses: [[{ tags: { spot: "" } }, /not_node_tags\.spot/], [
      { tags: { zone: "us-9" } },
      /zone is "us-9"/,
    ]],
  },
  "a neighbour by name or id": {
    rule: { beside: [{ workload: "db" }] },
    admits: [{ workloads: [placed({ name: "db" })] }, { workloads: [placed({ id: "db" })] }],
    refuses: [[{}, /beside\[0\]: no workload is there like db/], [
      { workloads: [placed({ name: "db2" })] },
      /no workload/,
    ]],
  },
  "no such neighbour": {
    rule: { not_beside: [{ workload: "noisy-*" }, { image: "batch", labels: { tier: "low" } }] },
    admits: [{
      workloads: [placed({ name: "web" }), placed({ image: "batch:1", labels: { tier: "high" } })],
    }],
    refuses: [
      [{ workloads: [placed({ name: "noisy-1" })] }, /not_beside\[0\]: 1 there are like noisy-\*/],
      [
        { workloads: [placed({ image: "batch:9", labels: { tier: "low" } })] },
        /not_beside\[1\]: 1 there are like image batch, tier=low/,
      ],
    ],
  },
};
for (const [what, { rule, admits, refuses, unknown }] of Object.entries(rows)) {
  Deno.test(`${what}: admits, refuses with the reason, and treats the unknown as told`, () => {
    for (const node of admits) assert.deepEqual(reasons(rule, node), []);
    for (const [node, message] of refuses) assert.match(reasons(rule, node).join("; "), message);
    if (unknown === undefined) return;
    assert.match(reasons(rule, unknown[0]).join("; "), unknown[1]);
    assert.deepEqual(reasons({ ...rule, unknown_values: "refuse" }, unknown[0]).length, 1);
    assert.deepEqual(reasons({ ...rule, unknown_values: "admit" }, unknown[0]), []);
  });
}

Deno.test("neighbours are looked for by a shared label, over a tag, and never in the workload itself", () => {
  const rules: RulesFile = { not_beside: [{ same_labels: ["app"], tag: "zone" }] };
  const request = { id: "self", labels: { app: "shop" } };
  const nodes = [
    candidate({
      name: "n2",
      tags: { zone: "a" },
      workloads: [placed({ id: "other", labels: { app: "shop" } })],
    }),
    candidate({
      name: "n3",
      tags: { zone: "b" },
      workloads: [placed({ id: "self", labels: { app: "shop" } })],
    }),
  ];
  assert.match(
    reasons(rules, { tags: { zone: "a" } }, { request, nodes })[0],
    /1 there are like the same app by zone/,
  );
  assert.deepEqual(reasons(rules, { tags: { zone: "b" } }, { request, nodes }), []);
  assert.deepEqual(reasons(rules, { tags: {} }, { request, nodes }), []);
  assert.deepEqual(
    reasons(rules, { tags: { zone: "a" } }, { request: { labels: {} }, nodes }),
    [],
    "a request without the label shares nothing",
  );
});

Deno.test("a spread limit counts over the values that could be chosen, and refuses the value that is ahead", () => {
  const rules: RulesFile = { spread: [{ tag: "zone", max_skew: 1 }], not_nodes: ["off"] };
  const web = placed({ image: "web:1" });
  const nodes = [
    candidate({ name: "b1", tags: { zone: "b" } }),
    candidate({ name: "off", tags: { zone: "c" } }),
    candidate({ name: "a2", tags: { zone: "a" }, workloads: [web] }),
  ];
  assert.match(
    reasons(rules, { tags: { zone: "a" } }, { nodes })[0],
    /spread\[0\]: zone=a would have 2 more than the value with the fewest, at most 1/,
  );
  assert.deepEqual(reasons(rules, { tags: { zone: "b" } }, { nodes }), []);
  const full = nodes.map((node) => node.name === "b1" ? { ...node, workloads: [web] } : node);
  assert.deepEqual(
    reasons(rules, { tags: { zone: "a" } }, { nodes: full }),
    [],
    "zone c cannot be chosen, so it does not count as the one with none",
  );
  assert.match(reasons(rules, { tags: {} }, { nodes })[0], /it has no tag zone/);
  assert.deepEqual(reasons({ ...rules, unknown_values: "admit" }, { tags: {} }, { nodes }), []);
});

Deno.test("all reasons of a node are told, not only the first", () => {
  assert.equal(
    reasons({ max_latency_ms: 1, max_jitter_ms: 0.5, nodes: ["x"] }, { latencyMs: 9, jitterMs: 9 }).length,
    3,
  );
});
