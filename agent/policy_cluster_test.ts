import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  BeaconMetadataSchema,
  ClusterEvent,
  ErrorResponseSchema,
  PolicyQuerySchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
} from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./control/cluster_messages.ts";
import { encodeFragments } from "./cluster/go_fragments.ts";
import { GOSSIP } from "./cluster/tags.ts";
import { joinAs, startNodes, type TestNode, until } from "./testing.ts";

const EXPLAIN = "hypercore.v1.PolicyService/Explain";
const ZONES: Record<string, string> = { n1: "eu-1", n2: "eu-2", n3: "us-1" };

function spawn(node: TestNode, init: Omit<Partial<VmSpawnRequest>, "$typeName"> = {}) {
  const request = create(VmSpawnRequestSchema, { imageRef: "web:1", memory: 64, ...init });
  return node.running.cluster.calls.spawn(request);
}

/** What each other node answers to a POLICY_QUERY, by its name. */
async function ask(node: TestNode, policyType: string, init: { workloadId?: string } = {}) {
  const query = create(PolicyQuerySchema, { policyType, ...init });
  const answers: Record<string, Record<string, string>> = {};
  const all = new AbortController();
  const others = node.running.cluster.membership.members().size - 1;
  await node.running.cluster.membership.ask("hypercore_query", {
    payload: encodeClusterMessage(ClusterEvent.POLICY_QUERY, PolicyQuerySchema, query),
    timeoutMs: 60_000,
    signal: all.signal,
    onResponse(from, payload) {
      const message = decodeClusterMessage(payload);
      assert.ok(!(message instanceof Error), String(message));
      const error = unwrap(message, ErrorResponseSchema)?.error;
      answers[from] = unwrap(message, PolicyQuerySchema)?.context ?? { error: error ?? "" };
      if (Object.keys(answers).length === others) all.abort();
    },
  });
  return answers;
}

Deno.test("a cluster places by policy: all nodes judged once, the chosen one again, and every reason is told", async (t) => {
  const dir = await Deno.makeTempDir({ prefix: "hc-policy-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const write = (name: string, policy: Record<string, unknown>) =>
    Deno.writeTextFile(`${dir}/${name}.json`, JSON.stringify({ name, mode: "enforce", ...policy }));
  await write("site", {
    rules: { node_tags: { zone: ["eu-*"] } },
    permissions: { quotas: [{ label: "team", max_workloads: 1 }] },
  });
  await write("far", { rules: { not_nodes: ["n1"] }, network: { egress: [] } });
  const { nodes: [n1, n2, n3] } = stack.use(
    await startNodes(["n1", "n2", "n3"], (name) => ({
      cluster: { tags: { zone: ZONES[name] } },
      config: {
        clusterPolicyFile: `${dir}/site.json`,
        // Only the first node knows the policies that spawns name.
        policyDir: name === "n1" ? dir : `${dir}/none`,
      },
    })),
  );
  let id = "";

  await t.step("a policy that only the asked node knows by name goes with the request", async () => {
    const placed = await spawn(n1, { policy: "far", labels: { team: "a" } });
    id = placed.id;
    assert.equal(placed.node, "n2");
    const [{ labels }] = await n2.engine.list();
    assert.match(JSON.stringify(labels), /not_nodes/);
    assert.deepEqual((await n2.engine.get(id)).networkRules, { egress: [] });
    await until("all see it", () => [n1, n3].every(({ running }) => running.cluster.view.spawned(id)));
  });

  await t.step("explain shows every node with its rule, from any node", async () => {
    const policyJson = await Deno.readTextFile(`${dir}/far.json`);
    for (const node of [n1, n3]) {
      const answer = await node.call(EXPLAIN, { request: { imageRef: "web:1", policyJson } });
      const nodes = answer.nodes as { name: string; admitted?: boolean; violations?: { rule: string }[] }[];
      const rows = nodes.map(({ name, admitted = false, violations = [] }) => {
        return [name, admitted, violations.map(({ rule }) => rule).join()];
      });
      assert.deepEqual(rows, [
        ["n2", true, ""],
        ["n1", false, "rules.not_nodes"],
        ["n3", false, "rules.node_tags.zone"],
      ]);
    }
  });

  await t.step("when none may have it, one error has every node's reason", async () => {
    await n2.call("hypercore.v1.ClusterAdminService/Cordon", { node: "n2", cordoned: true });
    await until("it is known", () =>
      [n1, n3].every(({ running }) => {
        return running.cluster.policies.candidates().some(({ name, cordoned }) => name === "n2" && cordoned);
      }));
    await assert.rejects(spawn(n1, { policy: "far" }), {
      code: "exhausted",
      message: new RegExp(
        'Cannot place "web:1": no node takes it .*n1: policy "site\\+far": rules\\.not_nodes: .*' +
          'n2: it is cordoned; n3: policy "site\\+far": rules\\.node_tags\\.zone: zone is "us-1"',
      ),
    });
    const { nodes } = await n3.call(EXPLAIN, { request: { imageRef: "web:1" } });
    assert.match(JSON.stringify(nodes), /"rule":"cordon","reason":"it takes no new workloads"/);
    await n2.call("hypercore.v1.ClusterAdminService/Cordon", { node: "n2", cordoned: false });
    await until("it is known", () =>
      [n1, n3].every(({ running }) => {
        return running.cluster.policies.candidates().every(({ cordoned }) => !cordoned);
      }));
  });

  await t.step("a quota counts what runs anywhere, and is said at once", async () => {
    await assert.rejects(spawn(n3, { labels: { team: "a" } }), {
      code: "denied",
      message: /^Cannot place "web:1": policy "site" refuses it: permissions\.quotas\[0\]: team=a has 1 of 1/,
    });
    assert.equal((await spawn(n3, { labels: { team: "b" } })).node === "n3", false);
  });

  await t.step(
    "any node answers what may be asked of policies, about a workload of another node too",
    async () => {
      const scheduling = await ask(n2, "SCHEDULING", { workloadId: id });
      assert.deepEqual(Object.keys(scheduling).sort(), ["n1", "n3"]);
      assert.deepEqual([scheduling.n1.decision, scheduling.n1.policy], ["REFUSE", "site+far"]);
      assert.match(scheduling.n1["reason.0"], /^rules\.not_nodes: /);
      assert.match(scheduling.n3["reason.0"], /^rules\.node_tags\.zone: /);
      const network = await ask(n3, "NETWORK", { workloadId: id });
      assert.deepEqual([network.n1.egress, network.n2.egress], ["none", "none"]);
      // It does not count against the quota as another workload: it is the one that is there.
      const permission = await ask(n3, "PERMISSION", { workloadId: id });
      assert.deepEqual([permission.n1.decision, permission.n2.decision], ["ADMIT", "ADMIT"]);
      assert.match(
        (await ask(n3, "PERMISSION", { workloadId: "gone" })).n1.error,
        /Cannot find workload "gone"/,
      );
    },
  );

  await t.step("a move asks the policies again, and is stopped by them", async () => {
    const move = async (to: string) => {
      for await (
        const _ of n1.running.cluster.admin.move({ id, to } as never, { signal } as never)
      ) { /* steps */ }
    };
    const { signal } = new AbortController();
    await assert.rejects(move("n3"), /n3: policy "site\+far": rules\.node_tags\.zone/);
    assert.equal(n1.running.cluster.view.find(id).nodeName, "n2");
  });
});

Deno.test("a permissive policy admits everywhere, prefers what it likes, and logs what it does not", async () => {
  const dir = await Deno.makeTempDir({ prefix: "hc-policy-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const file = `${dir}/trial.json`;
  const rules = { node_tags: { zone: "us-1" } };
  await Deno.writeTextFile(file, JSON.stringify({ name: "trial", mode: "permissive", rules }));
  const logged: string[] = [];
  const note = (message: string, fields?: Record<string, unknown>) => {
    logged.push(`${message} ${JSON.stringify(fields)}`);
  };
  const log = { debug: () => {}, info: () => {}, warn: note, error: note };
  const { nodes: [n1, n3] } = stack.use(
    await startNodes(["n1", "n3"], (name) => ({
      cluster: { tags: { zone: ZONES[name] } },
      config: { clusterPolicyFile: file },
      parts: { log },
    })),
  );
  // Without the policy the empty node would be the better one.
  const { id } = await spawn(n3, { node: "n3" });
  await until("it counts", () => n3.running.cluster.view.spawned(id) !== undefined);
  // Asked of the node that is liked: what another one offers may come too late on a busy machine.
  assert.equal((await spawn(n3)).node, "n3");
  assert.deepEqual(logged.filter((line) => line.startsWith("policy violated")), []);
  assert.equal((await spawn(n1, { node: "n1" })).node, "n1");
  assert.match(logged.join("\n"), /policy violated .*"trial".*node_tags.*"node":"n1"/);
  const metrics = await (await fetch(`http://127.0.0.1:${n1.running.httpAddress.port}/metrics`)).text();
  assert.match(metrics, /ibrl_policy_violations_total\{rule="rules\.node_tags",mode="permissive"\} [1-9]/);
  assert.match(metrics, /ibrl_policy_evaluations_total\{outcome="admitted"\} [1-9]/);
});

Deno.test("a node of the original's kind takes what the policies let it have, by query, and nothing else", async () => {
  const { nodes: [n1], ...cluster } = await startNodes(["n1"], () => ({ config: { beacon: DEAR } }));
  await using _cluster = cluster;
  await using go = await joinAs(n1, "go", {});
  const spawned: VmSpawnRequest[] = [];
  go.listen((event) => {
    if (event.kind !== "query") return;
    const message = decodeClusterMessage(event.payload);
    if (message instanceof Error || message.event !== ClusterEvent.SPAWN) return;
    const request = unwrap(message, VmSpawnRequestSchema)!;
    if (!request.dryRun) spawned.push(request);
    const response = create(
      VmSpawnResponseSchema,
      request.dryRun ? {} : { id: "made-by-go", url: "http://go" },
    );
    go.respond(event, encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnResponseSchema, response));
  });
  const beacon = create(BeaconMetadataSchema, { pricePerGb: 0.01, reputationScore: "1", latencyMs: 1 });
  const fragments = encodeFragments({ name: "go", uuid: crypto.randomUUID(), workloads: [], beacon });
  for (const fragment of fragments) go.userEvent(GOSSIP.stateBroadcast, fragment);
  await until("its price is known", () => {
    return n1.running.cluster.policies.candidates().some(({ name, pricePerGb }) =>
      name === "go" && pricePerGb
    );
  });
  const policyOf = (policy: Record<string, unknown>) =>
    JSON.stringify({ name: "own", mode: "enforce", ...policy });
  const cheap = { max_price_per_gb: 0.05 };

  const placed = await spawn(n1, { policyJson: policyOf({ rules: cheap }) });
  assert.deepEqual([placed.id, placed.node, spawned.length], ["made-by-go", "go", 1]);

  const refusals: [Record<string, unknown>, RegExp][] = [
    [
      { rules: { ...cheap, min_reputation_score: 0.9 } },
      /go: policy "own": rules\.min_reputation_score: reputation is not known/,
    ],
    [
      { rules: cheap, network: { egress: [] } },
      /go: policy "own": network: it does not enforce network policies/,
    ],
  ];
  for (const [policy, reason] of refusals) {
    await assert.rejects(spawn(n1, { policyJson: policyOf(policy) }), { code: "exhausted", message: reason });
  }
  assert.equal(spawned.length, 1);
});

const DEAR = { pricePerGb: 0.2, reputation: 0.5 };
