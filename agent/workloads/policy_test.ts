import assert from "node:assert/strict";
import { silentLog } from "../../runtime/log.ts";
import { MemoryEngine } from "../../runtime/testing/memory_engine.ts";
import { PolicyGate } from "../policy/gate.ts";
import { placedWorkload } from "../policy/local.ts";
import { PolicyParser } from "../policy/parse.ts";
import { candidate } from "../policy/testing.ts";
import type { LoadedPolicy } from "../policy/store.ts";
import type { PolicyFile } from "../policy/wire.ts";
import type { WorkloadManager } from "./manager.ts";
import { request, settle, startManager } from "./testing.ts";

const parser = new PolicyParser();

/** A manager under a policy that can be exchanged. */
async function setUp(file: Partial<PolicyFile> | undefined, parts: { engine?: MemoryEngine } = {}) {
  const store = {
    current: undefined as LoadedPolicy | undefined,
    parse: (text: string) => Promise.resolve(parser.parse(text, "of the request")),
    named: (name: string) => Promise.resolve(parser.parse(`{"name":"${name}","mode":"enforce"}`, name)),
    set(each: Partial<PolicyFile>) {
      const parsed = parser.parse(JSON.stringify({ name: "cluster", mode: "enforce", ...each }), "cluster");
      store.current = { ...parsed, source: "f", loadedAtMs: 0 };
    },
  };
  if (file !== undefined) store.set(file);
  const managers: WorkloadManager[] = [];
  const gate = new PolicyGate({
    store,
    nodeId: "id-n1",
    candidates: () => [
      candidate({ workloads: managers[0].list().map(({ id, spec }) => placedWorkload(id, spec)) }),
    ],
    log: silentLog,
    elapsedMs: () => 0,
  });
  const started = await startManager({ ...parts, policies: gate });
  managers.push(started.manager);
  return { ...started, store };
}

const egress = (cidr: string) => ({ network: { egress: [{ cidr }] } });

Deno.test("a workload that a policy refuses is not made, by a dry run neither", async () => {
  const { manager, engine } = await setUp({ permissions: { max_cores: 2 } });
  await using _manager = manager;
  await assert.rejects(manager.spawn(request({ cores: 3 })), { code: "denied", message: /max_cores/ });
  await assert.rejects(manager.dryRun(request({ cores: 3 })), { code: "denied" });
  await manager.dryRun(request({ cores: 2 }));
  assert.deepEqual(await engine.list(), []);
  assert.equal(manager.usage.workloads, 0);
});

Deno.test("spawns at the same time never get more than a quota has", async () => {
  const { manager } = await setUp({ permissions: { quotas: [{ label: "team", max_workloads: 2 }] } });
  await using _manager = manager;
  const spawns = Array.from({ length: 6 }, () => manager.spawn(request({ labels: { team: "a" } })));
  const results = await Promise.allSettled(spawns);
  assert.equal(results.filter(({ status }) => status === "fulfilled").length, 2);
  for (const result of results) {
    if (result.status === "rejected") assert.match(result.reason.message, /team=a has 2 of 2 workloads/);
  }
});

Deno.test("a workload's network rules are those of cluster and spawn together, and it keeps the spawn's policy", async () => {
  const { manager, engine } = await setUp(egress("10.0.0.0/8"));
  await using _manager = manager;
  const policyJson = JSON.stringify({ name: "own", mode: "enforce", ...egress("10.1.0.0/16") });
  const { id, record } = await manager.spawn(request({ policyJson }));
  assert.deepEqual((await engine.get(id)).networkRules, {
    egress: [{ cidr: "10.1.0.0/16", protocol: "any" }],
  });
  assert.equal(record.request.policyJson, policyJson);
  const named = await manager.spawn(request({ policy: "strict" }));
  assert.equal(named.record.request.policy, "");
  assert.equal(JSON.parse(named.record.request.policyJson).name, "strict");
});

Deno.test("when the policy changes, what runs gets its network rules, and what is refused now runs on", async () => {
  const { manager, engine, store } = await setUp(egress("10.0.0.0/8"));
  await using _manager = manager;
  const { id } = await manager.spawn(request({ cores: 2 }));
  store.set({ network: { egress: [] }, permissions: { max_cores: 1 } });
  manager.applyNetworkPolicies();
  await settle();
  const { networkRules, status } = await engine.get(id);
  assert.deepEqual(networkRules, { egress: [] });
  assert.equal(status, "running");
});

Deno.test("a workload that was adopted gets the rules of the policy the agent started with", async () => {
  const engine = new MemoryEngine();
  const before = await setUp(undefined, { engine });
  const { id } = await before.manager.spawn(request());
  await before.manager[Symbol.asyncDispose]();
  const { manager } = await setUp({ network: { ingress_ports: [80] } }, { engine });
  await using _manager = manager;
  manager.applyNetworkPolicies();
  await settle();
  assert.deepEqual((await engine.get(id)).networkRules, { ingressPorts: [{ from: 80, to: 80 }] });
});

Deno.test("network rules that cannot be set are no reason to end anything", async () => {
  const { manager, engine, store } = await setUp({});
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  engine.failNext("setNetworkRules", new Error("nft is gone"));
  store.set(egress("10.0.0.0/8"));
  manager.applyNetworkPolicies();
  await settle();
  assert.equal((await engine.get(id)).networkRules, undefined);
  manager.applyNetworkPolicies();
  await settle();
  assert.notEqual((await engine.get(id)).networkRules, undefined);
});
