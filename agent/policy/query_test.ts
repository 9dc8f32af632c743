import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  ClusterEvent,
  type ClusterMessage,
  ErrorResponseSchema,
  PolicyQuerySchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { MAX_ANSWER_BYTES, packMessage } from "../control/cluster_messages.ts";
import { parseSpawn } from "../workloads/parse_spawn.ts";
import { request } from "../workloads/testing.ts";
import { policyContext } from "./context.ts";
import { evaluate } from "./evaluate.ts";
import type { Policy } from "./policy.ts";
import { answerPolicyQuery, MAX_QUERY_REASONS } from "./query.ts";
import { candidate, fileParser, policy } from "./testing.ts";

const parse = fileParser();

function ask(
  inForce: Policy | undefined,
  type: string,
  what: { workloadId?: string; context?: Record<string, string> },
): Promise<ClusterMessage> {
  const query = create(PolicyQuerySchema, { policyType: type, ...what });
  return answerPolicyQuery(query, {
    node: { id: "id-n1", name: "n1" },
    find: (id) =>
      Promise.resolve(
        id === "known" ? { id, request: request({ imageRef: "web:1", cores: 4 }) } : undefined,
      ),
    parse: (each) => parseSpawn(each, { nodeName: "n1", reservedPorts: new Set() }),
    policyOf: () => Promise.resolve(inForce),
    judge: (each, placement) => evaluate(each, placement, [candidate()]),
  });
}

async function findings(...args: Parameters<typeof ask>): Promise<Record<string, string>> {
  const message = await ask(...args);
  assert.equal(message.event, ClusterEvent.POLICY_QUERY);
  return anyUnpack(message.wrappedMessage!, PolicyQuerySchema)!.context;
}

const strict = parse({
  rules: { max_latency_ms: 5 },
  permissions: { max_cores: 2, allowed_host_ports: [443] },
  network: { egress: [{ cidr: "10.0.0.0/8", protocol: "tcp", ports: [443] }], ingress_ports: [] },
});

Deno.test("a permission query says what of a described workload is forbidden", async () => {
  const context = { image_ref: "web:1", cores: "4", ports: "80:8080,443", labels: "team=a" };
  const found = await findings(
    parse({ permissions: { max_cores: 2, allowed_host_ports: [443] } }),
    "PERMISSION",
    {
      context,
    },
  );
  assert.equal(found.decision, "REFUSE");
  assert.equal(found["reason.0"], "permissions.max_cores: 4 vCPUs are asked for, at most 2 are allowed");
  assert.equal(found["reason.1"], "permissions.allowed_host_ports: host port 80 is none of 443");
  assert.equal(found.enforcement_level, "enforce");
});

Deno.test("a scheduling query says whether this node takes a workload, and scores it", async () => {
  const found = await findings(strict, "SCHEDULING", { context: { image_ref: "web:1" } });
  assert.equal(found.decision, "REFUSE");
  assert.match(found["reason.0"], /rules\.max_latency_ms/);
  const free = await findings(policy(), "SCHEDULING", { workloadId: "known" });
  assert.equal(free.decision, "ADMIT");
  assert.ok(Number(free.score) > 0.5 && Number(free["score.latency"]) > 0.9);
  assert.equal(free.node, "n1");
});

Deno.test("a permissive policy admits and says what it does not like", async () => {
  const lenient = parse({ mode: "permissive", permissions: { max_cores: 2 } });
  const found = await findings(lenient, "PERMISSION", { workloadId: "known" });
  assert.equal(found.decision, "ADMIT");
  assert.equal(found.violations, "1");
  assert.match(found["reason.0"], /max_cores/);
});

Deno.test("a network query says what a workload may reach", async () => {
  const found = await findings(strict, "NETWORK", { workloadId: "known" });
  assert.equal(found.egress, "tcp 10.0.0.0/8 443");
  assert.equal(found.ingress_ports, "none");
  assert.equal((await findings(undefined, "NETWORK", { workloadId: "known" })).egress, "any");
  const lenient = { ...strict, mode: "permissive" as const };
  assert.equal((await findings(lenient, "NETWORK", { workloadId: "known" })).egress, "any");
});

Deno.test("without a policy everything is admitted", async () => {
  for (const type of ["SCHEDULING", "PERMISSION"]) {
    assert.equal((await findings(undefined, type, { workloadId: "known" })).decision, "ADMIT");
  }
});

const bad: [string, string, Parameters<typeof ask>[2], RegExp][] = [
  ["an unknown type", "DNS", { workloadId: "known" }, /"DNS": it is none of SCHEDULING, PERMISSION, NETWORK/],
  ["an unknown workload", "NETWORK", { workloadId: "gone" }, /"gone": it is not known to this node/],
  ["an unknown key", "PERMISSION", { context: { image: "web" } }, /context "image": it is none of image_ref/],
  ["no image", "PERMISSION", { context: {} }, /image_ref "": it is empty/],
  ["ports of words", "PERMISSION", { context: { image_ref: "web", ports: "a:b" } }, /ports "a:b"/],
  ["labels of nothing", "PERMISSION", { context: { image_ref: "web", labels: "=x" } }, /labels "=x"/],
  ["cores of words", "PERMISSION", { context: { image_ref: "web", cores: "two" } }, /cores "two"/],
];
for (const [what, type, query, reason] of bad) {
  Deno.test(`a query with ${what} is answered with the reason`, async () => {
    const message = await ask(policy(), type, query);
    assert.equal(message.event, ClusterEvent.ERROR);
    assert.match(anyUnpack(message.wrappedMessage!, ErrorResponseSchema)!.error, reason);
  });
}

Deno.test("an answer has a bounded number of reasons", async () => {
  const context = { image_ref: "web:1", env_keys: Array.from({ length: 20 }, (_, i) => `K${i}`).join(",") };
  const found = await findings(parse({ permissions: { allowed_env_keys: [] } }), "PERMISSION", { context });
  assert.equal(found.violations, "20");
  assert.equal(Object.keys(found).filter((key) => key.startsWith("reason.")).length, MAX_QUERY_REASONS);
});

Deno.test("a node's state names its policy, its mode and the node's tags", () => {
  const { policyId, enforcementLevel, tags } = policyContext(strict, { zone: "a", disk: "ssd" });
  assert.equal(policyId, strict.id);
  assert.equal(enforcementLevel, "enforce");
  assert.deepEqual(tags, ["disk=ssd", "zone=a"]);
  assert.equal(policyContext(undefined, {}).policyId, "");
});

Deno.test("an answer fits a packet, however much there is to say", async () => {
  const cidr = (i: number) => `10.${i}.0.0/16`;
  const ports = Array.from({ length: 60 }, (_, i) => 1_000 + 2 * i);
  const wordy = parse({
    permissions: {
      allowed_env_keys: [],
      allowed_images: ["x".repeat(200)],
      required_labels: ["l".repeat(60)],
    },
    network: {
      egress: Array.from({ length: 9 }, (_, i) => ({ cidr: cidr(i), ports })),
      ingress_ports: ports,
    },
  });
  const context = {
    image_ref: `registry.example/${"y".repeat(180)}:1`,
    env_keys: Array.from({ length: 20 }, (_, i) => `K${i}_${"z".repeat(80)}`).join(","),
  };
  for (const type of ["SCHEDULING", "PERMISSION", "NETWORK"]) {
    const answer = await ask(wordy, type, { context });
    assert.equal(answer.event, ClusterEvent.POLICY_QUERY);
    assert.ok(packMessage(answer).length <= MAX_ANSWER_BYTES, type);
    const found = await findings(wordy, type, { context });
    assert.match(JSON.stringify(found), /…/, type);
    assert.equal(found.node, "n1");
  }
  const failed = await ask(wordy, "x".repeat(5_000), { context });
  assert.ok(packMessage(failed).length <= MAX_ANSWER_BYTES);
});
