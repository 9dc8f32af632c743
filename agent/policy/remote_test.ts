import assert from "node:assert/strict";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { NodeStateResponseSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { evaluate } from "./evaluate.ts";
import { remoteCandidate } from "./remote.ts";
import { fileParser, placement } from "./testing.ts";

const state = (fields: MessageInitShape<typeof NodeStateResponseSchema>) =>
  create(NodeStateResponseSchema, fields);

Deno.test("a node that told its state with a beacon is known, and what was measured here wins", () => {
  const node = remoteCandidate(
    state({
      node: { id: "id-n2" },
      tags: { zone: "a" },
      beacon: {
        latencyMs: 80,
        jitterMs: 4,
        reputationScore: "0.9",
        pricePerGb: 0.02,
        nodeCapabilities: ["kvm"],
      },
      capacity: { milliCpus: 4000, usedMilliCpus: 1000, memoryBytes: 2n ** 30n, usedMemoryBytes: 2n ** 29n },
      workloads: [{
        id: "w1",
        sourceRequest: { imageRef: "web:1", name: "web", labels: { app: "x" }, cores: 2 },
      }],
    }),
    { name: "n2", isVerified: true, measured: { latencyMs: 20, jitterMs: undefined } },
  );
  assert.deepEqual(node, {
    id: "id-n2",
    name: "n2",
    tags: { zone: "a" },
    capabilities: ["kvm"],
    latencyMs: 20,
    jitterMs: 4,
    packetLossPercent: 0,
    queueDepth: 0,
    pricePerGb: 0.02,
    reputation: 0.9,
    workloads: [{
      id: "w1",
      name: "web",
      image: "web:1",
      labels: { app: "x" },
      milliCpus: 2000,
      memoryBytes: 512 * 2 ** 20,
    }],
    cordoned: false,
    capacity: { milliCpus: 3000, memoryBytes: 2 ** 29 },
  });
});

Deno.test("of a node without a beacon, or with a score that is none, nothing is assumed", () => {
  const bare = remoteCandidate(state({ node: { id: "go" } }), { name: "go", isVerified: false });
  assert.deepEqual(bare, { id: "go", name: "go", tags: {}, workloads: [], cordoned: false });
  const policy = fileParser()({ rules: { max_price_per_gb: 1 } });
  assert.match(
    evaluate(policy, placement(), [bare]).refused[0].reasons[0].reason,
    /price per GB is not known/,
  );
  for (const reputationScore of ["", " ", "high", "NaN", "Infinity"]) {
    const { reputation } = remoteCandidate(state({ beacon: { reputationScore } }), {
      name: "n",
      isVerified: true,
    });
    assert.equal(reputation, undefined, reputationScore);
  }
});

Deno.test("a reputation that nobody signed for counts for nothing, unless it was earned here", () => {
  const beacon = { reputationScore: "1", pricePerGb: 0.5 };
  const told = remoteCandidate(state({ beacon }), { name: "go", isVerified: false });
  assert.deepEqual([told.reputation, told.pricePerGb], [undefined, 0.5]);
  const options = { name: "go", isVerified: false, measured: { reputation: 0.7 } };
  assert.equal(remoteCandidate(state({ beacon }), options).reputation, 0.7);
});
