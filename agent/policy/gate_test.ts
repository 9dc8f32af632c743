import assert from "node:assert/strict";
import { RuntimeError } from "../../runtime/errors.ts";
import { type Log, silentLog } from "../../runtime/log.ts";
import { MAX_SPAWN_POLICY_BYTES } from "../workloads/limits.ts";
import type { Candidate } from "./facts.ts";
import { PolicyGate } from "./gate.ts";
import { MAX_REASONS } from "./limits.ts";
import type { PolicyObservation } from "./observation.ts";
import { PolicyParser } from "./parse.ts";
import type { LoadedPolicy } from "./store.ts";
import { candidate, placed, placement } from "./testing.ts";
import type { PolicyFile } from "./wire.ts";

const parser = new PolicyParser();
const parse = (file: Partial<PolicyFile>, name = "cluster") =>
  parser.parse(JSON.stringify({ name, mode: "enforce", ...file }), name);

function gateOf(
  cluster: Partial<PolicyFile> | undefined,
  options: { candidates?: () => readonly Candidate[] } = {},
) {
  const observed: PolicyObservation[] = [];
  const logged: string[] = [];
  const note = (message: string, fields?: Record<string, unknown>) => {
    logged.push(`${message} ${JSON.stringify(fields)}`);
  };
  const log: Log = { ...silentLog, info: note, warn: note, error: note };
  const current: LoadedPolicy | undefined = cluster && { ...parse(cluster), source: "f", loadedAtMs: 0 };
  let now = 0;
  const gate = new PolicyGate({
    store: {
      current,
      parse: (text) => Promise.resolve().then(() => parser.parse(text, "of the request")),
      named: (name) => Promise.resolve(parse({ description: "x".repeat(4000) }, name)),
    },
    nodeId: "id-n1",
    candidates: options.candidates ?? (() => [candidate()]),
    log,
    elapsedMs: () => now++,
    observe: (observation) => observed.push(observation),
  });
  return { gate, observed, logged };
}

function refused(work: () => unknown, code: string): string {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    return error.message;
  }
  throw new assert.AssertionError({ message: "it was admitted" });
}

Deno.test("without a policy everything is admitted, and nothing is counted", () => {
  const { gate, observed } = gateOf(undefined);
  assert.deepEqual(gate.admit(undefined, placement()), {});
  assert.equal(gate.rank(undefined, placement(), [candidate()]), undefined);
  assert.deepEqual(observed, []);
});

Deno.test("a request that breaks a rule is denied, a node that does is not the right one; every reason is told", () => {
  const { gate, observed, logged } = gateOf({
    rules: { max_latency_ms: 5, node_tags: { zone: "a" } },
    permissions: { max_cores: 0.5 },
  });
  assert.equal(
    refused(() => gate.admit(undefined, placement()), "denied"),
    'Cannot admit the workload on "n1": policy "cluster" refuses it: permissions.max_cores: 1 vCPUs are asked for, ' +
      "at most 0.5 are allowed; rules.max_latency_ms: latency is 10 ms, at most 5 ms is allowed; " +
      "rules.node_tags.zone: it has no tag zone",
  );
  refused(() => gate.admit(undefined, placement({ milliCpus: 500 })), "precondition");
  assert.deepEqual(
    observed.slice(0, 4).map((each) => each.kind === "violation" ? `${each.rule} ${each.mode}` : each.kind),
    [
      "evaluation",
      "permissions.max_cores enforce",
      "rules.max_latency_ms enforce",
      "rules.node_tags enforce",
    ],
  );
  assert.match(logged[0], /policy refused a workload/);
});

Deno.test("a permissive policy admits, logs and counts", () => {
  const { gate, observed, logged } = gateOf({
    mode: "permissive",
    rules: { max_latency_ms: 5 },
    network: { egress: [] },
  });
  assert.deepEqual(gate.admit(undefined, placement()), {}, "its network rules are not in force either");
  assert.deepEqual(observed.map((each) => each.kind), ["evaluation", "violation"]);
  assert.deepEqual(observed[0], { kind: "evaluation", outcome: "admitted", durationMs: 1 });
  assert.match(logged[0], /policy violated .*max_latency_ms/);
});

Deno.test("a spawn's own policy tightens the cluster's, by text or by name", async () => {
  const { gate } = gateOf({ permissions: { max_cores: 2 }, network: { ingress_ports: ["1-100"] } });
  const policyJson = JSON.stringify({
    name: "mine",
    mode: "enforce",
    permissions: { max_cores: 64 },
    network: { egress: [] },
  });
  const chosen = await gate.choose({ policy: "", policyJson });
  assert.equal(chosen.policyJson, policyJson);
  assert.match(
    refused(() => gate.admit(chosen.own, placement({ milliCpus: 3000 })), "denied"),
    /policy "cluster\+mine".*at most 2/,
  );
  assert.deepEqual(gate.admit(chosen.own, placement()).networkRules, {
    egress: [],
    ingressPorts: [{ from: 1, to: 100 }],
  });
  const named = await gate.choose({ policy: "strict", policyJson: "" });
  assert.equal(named.own?.name, "strict");
  assert.equal(JSON.parse(named.policyJson).name, "strict", "the text stands for the name from then on");
  assert.deepEqual(await gate.choose({ policy: "", policyJson: "" }), { policyJson: "" });
  await assert.rejects(
    gate.choose({ policy: "", policyJson: "{" }),
    /Cannot use policy "of the request": line 1/,
  );
});

Deno.test("a policy that is too long to travel with a request is refused", async () => {
  const { gate } = gateOf(undefined);
  const policyJson = JSON.stringify({ name: "a", mode: "enforce" }) + " ".repeat(MAX_SPAWN_POLICY_BYTES);
  await assert.rejects(gate.choose({ policy: "", policyJson }), /a spawn takes 65536/);
});

Deno.test("an evaluation that fails refuses, and admits only where the policy says so, never silently", () => {
  const candidates = () => {
    throw new Error("the table is gone");
  };
  const strict = gateOf({}, { candidates });
  assert.match(
    refused(() => strict.gate.admit(undefined, placement()), "failed"),
    /Cannot evaluate policy "cluster": the table is gone/,
  );
  const lenient = gateOf({ on_failure: "permissive", network: { egress: [] } }, { candidates });
  assert.deepEqual(
    lenient.gate.admit(undefined, placement()),
    { networkRules: { egress: [] } },
    "what needs no evaluation is in force",
  );
  for (const { observed, logged } of [strict, lenient]) {
    assert.deepEqual(observed.map((each) => each.kind === "evaluation" && each.outcome), ["failed"]);
    assert.match(logged[0], /cannot evaluate the policy .*the table is gone/);
  }
  const { gate } = gateOf({}, { candidates: () => [candidate({ name: "other" })] });
  assert.match(
    refused(() => gate.admit(undefined, placement()), "failed"),
    /this node is not among the candidates/,
  );
});

Deno.test("room on this node is not the gate's business", () => {
  const { gate } = gateOf({}, {
    candidates: () => [candidate({ capacity: { milliCpus: 0, memoryBytes: 0 } })],
  });
  assert.deepEqual(gate.admit(undefined, placement()), {});
});

Deno.test("a node judges itself with all others in view", () => {
  const { gate } = gateOf({ permissions: { quotas: [{ label: "team", max_workloads: 1 }] } }, {
    candidates:
      () => [candidate(), candidate({ name: "n2", workloads: [placed({ labels: { team: "a" } })] })],
  });
  assert.match(
    refused(() => gate.admit(undefined, placement({ labels: { team: "a" } })), "denied"),
    /team=a has 1 of 1 workloads/,
  );
});

Deno.test("a very long list of reasons is cut", () => {
  const { gate } = gateOf({ permissions: { allowed_env_keys: [] } });
  const env = Array.from({ length: MAX_REASONS + 5 }, (_, i) => `K${i}=`);
  assert.match(refused(() => gate.admit(undefined, placement({ env })), "denied"), /; and 5 more$/);
});

Deno.test("verdicts of a ranking are found by node id, disliked nodes below all liked ones; who is chosen is logged", () => {
  const { gate, logged, observed } = gateOf({ mode: "permissive", rules: { max_latency_ms: 50 } });
  const { judge, chosen } = gate.rank(undefined, placement(), [
    candidate({ name: "near", reputation: 0, pricePerGb: 1, queueDepth: 100 }),
    candidate({ name: "far", latencyMs: 60, reputation: 1 }),
    candidate({ name: "farther", latencyMs: 70, cordoned: true }),
  ])!;
  const [near, far, farther, gone] = ["id-near", "id-far", "id-farther", "id-gone"].map(judge);
  assert.ok("score" in near && "score" in far && near.score > far.score && near.score > 0 && far.score < 0);
  assert.ok("refused" in farther && /cordon: it takes no new workloads/.test(farther.refused));
  assert.deepEqual(gone, { refused: "the policy has no facts about it" });
  assert.equal(observed.filter(({ kind }) => kind === "violation").length, 3);
  assert.deepEqual(logged, []);
  chosen("id-near");
  assert.deepEqual(logged, []);
  chosen("id-far");
  assert.match(logged.join(), /policy violated .*"rules\.max_latency_ms".*"node":"far"/);
});

Deno.test("a ranking leaves room to the nodes, and refuses at once what no node may run", () => {
  const { gate } = gateOf({ permissions: { max_cores: 2 }, rules: { max_price_per_gb: 0.05 } });
  const nodes = [
    candidate({ name: "full", capacity: { milliCpus: 0, memoryBytes: 0 } }),
    candidate({ name: "dear", pricePerGb: 0.1 }),
  ];
  const { judge } = gate.rank(undefined, placement(), nodes)!;
  assert.ok("score" in judge("id-full"));
  const dear = judge("id-dear");
  assert.ok("refused" in dear && /^policy "cluster": rules\.max_price_per_gb: /.test(dear.refused));
  assert.match(
    refused(() => gate.rank(undefined, placement({ milliCpus: 3000 }), nodes), "denied"),
    /^Cannot place "web:1": policy "cluster" refuses it: permissions\.max_cores: /,
  );
});
