import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  PolicyQuerySchema,
  type VmSpawnRequest,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { silentLog } from "../../runtime/log.ts";
import { spawnRequest, workload } from "../cluster/testing.ts";
import type { Candidate } from "../policy/facts.ts";
import { PolicyGate } from "../policy/gate.ts";
import { PolicyParser } from "../policy/parse.ts";
import { candidate, placed } from "../policy/testing.ts";
import type { PolicyFile } from "../policy/wire.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./cluster_messages.ts";
import { ClusterPolicies, findWhole } from "./cluster_policies.ts";

const parser = new PolicyParser();
const textOf = (file: Partial<PolicyFile>) => JSON.stringify({ name: "own", mode: "enforce", ...file });

function policiesOf(cluster: Partial<PolicyFile> | undefined, nodes: Candidate[]) {
  const current = cluster &&
    { ...parser.parse(textOf({ name: "site", ...cluster }), "f"), source: "f", loadedAtMs: 0 };
  const gate = new PolicyGate({
    store: {
      current,
      parse: (text) => Promise.resolve(parser.parse(text, "of the request")),
      named: (name) => Promise.resolve(parser.parse(textOf({ name, rules: { not_nodes: ["n1"] } }), name)),
    },
    nodeId: "id-n1",
    candidates: () => nodes,
    log: silentLog,
    elapsedMs: () => 0,
  });
  return new ClusterPolicies({
    node: { id: "id-n1", name: "n1" },
    gate,
    nodes: { list: () => nodes },
    find: (id) => Promise.resolve(id === "web" ? { id: "w1", request: spawnRequest() } : undefined),
  });
}

const nodes = ["n1", "n2", "n3"].map((name, i) => candidate({ name, pricePerGb: 0.01 + 0.02 * i }));

async function verdicts(policies: ClusterPolicies, request: VmSpawnRequest, id?: string) {
  const judged = await policies.judge(request, { id });
  const judge = ({ id, name, tags }: Candidate) =>
    judged.policy?.judge(request, { id, name, tags, cordoned: false, sameImage: 0 }, undefined);
  return { ...judged, of: nodes.map(judge) };
}

Deno.test("a spawn's policy tightens the cluster's, and goes with the request as text when it was a name", async () => {
  const policies = policiesOf({ rules: { max_price_per_gb: 0.04 } }, nodes);
  const { request, of: [n1, n2, n3] } = await verdicts(policies, spawnRequest({ policy: "elsewhere" }));
  assert.match(JSON.stringify(n1), /rules\.not_nodes/);
  assert.ok(n2 !== undefined && "score" in n2);
  assert.match(JSON.stringify(n3), /rules\.max_price_per_gb: price per GB is 0\.05/);
  assert.equal(request.policy, "");
  assert.equal(JSON.parse(request.policyJson).name, "elsewhere");
  const loose = await verdicts(
    policies,
    spawnRequest({ policyJson: textOf({ rules: { max_price_per_gb: 9 } }) }),
  );
  assert.match(JSON.stringify(loose.of[2]), /max_price_per_gb/);
});

Deno.test("without a policy nothing is judged", async () => {
  const { policy, request } = await verdicts(policiesOf(undefined, nodes), spawnRequest());
  assert.deepEqual([policy, request.policyJson], [undefined, ""]);
});

Deno.test("what no node may run is denied before any is asked; a workload that moves is no other one", async () => {
  const crowded = [
    candidate({ workloads: [placed({ id: "w1", labels: { team: "a" } })] }),
    ...nodes.slice(1),
  ];
  const quota = { permissions: { quotas: [{ label: "team", max_workloads: 1 }] } };
  const policies = policiesOf(quota, crowded);
  const request = spawnRequest({ labels: { team: "a" } });
  await assert.rejects(policies.judge(request, {}), { code: "denied", message: /team=a has 1 of 1/ });
  assert.ok((await verdicts(policies, request, "w1")).of.every((each) => each && "score" in each));
});

Deno.test("a node of another kind takes nothing whose network it cannot narrow", async () => {
  const foreign = [candidate(), candidate({ name: "n2", isForeign: true }), candidate({ name: "n3" })];
  const { of: [, n2, n3] } = await verdicts(policiesOf({ network: { egress: [] } }, foreign), spawnRequest());
  assert.match(JSON.stringify(n2), /network: it does not enforce network policies/);
  assert.ok(n3 && "score" in n3);
});

Deno.test("policy queries are answered in the envelope they came in, about workloads of any node", async () => {
  const policies = policiesOf({ rules: { max_price_per_gb: 0.005 } }, nodes);
  const query = create(PolicyQuerySchema, { policyType: "SCHEDULING", workloadId: "web" });
  const message = decodeClusterMessage(
    encodeClusterMessage(ClusterEvent.POLICY_QUERY, PolicyQuerySchema, query),
  );
  assert.ok(!(message instanceof Error));
  const answer = decodeClusterMessage((await policies.answer(message))!);
  assert.ok(!(answer instanceof Error));
  const { context } = unwrap(answer, PolicyQuerySchema)!;
  assert.deepEqual([context.decision, context.node], ["REFUSE", "n1"]);
  assert.match(context["reason.0"], /price per GB/);
});

Deno.test("a request that was told in part is asked of the node that has it whole", async () => {
  const asked: string[] = [];
  const told = (id: string, requestIsCut: boolean) => ({
    nodeId: "id-n2",
    nodeName: "n2",
    isSelf: false,
    isLive: true,
    workload: workload(id, { requestIsCut }),
  });
  const find = findWhole({
    own: (id) => id === "mine" ? { id: "w0", request: spawnRequest({ name: "mine" }) } : undefined,
    find(id) {
      if (id === "gone") throw new RuntimeError("not-found", "it is nowhere");
      return told(id, id === "cut");
    },
    fetch: (nodeId, id) => {
      asked.push(`${nodeId} ${id}`);
      return Promise.resolve(spawnRequest({ policyJson: "{}" }));
    },
  });
  assert.equal((await find("mine"))?.id, "w0");
  assert.equal((await find("whole"))?.request.policyJson, "");
  assert.equal((await find("cut"))?.request.policyJson, "{}");
  assert.equal(await find("gone"), undefined);
  assert.deepEqual(asked, ["id-n2 cut"]);
});
