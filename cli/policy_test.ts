import assert from "node:assert/strict";
import type { PolicyChoice } from "../agent/policy/gate.ts";
import { type FakeApi, serveFakeApi } from "./testing/fake_api.ts";
import { type CliWorld, runCli } from "./testing/run_cli.ts";

/** The connection pool of the HTTP/2 client closes after an idle time, so these tests do not wait for it. */
const leaks = { sanitizeOps: false, sanitizeResources: false };

const GOOD = '{"name":"good","mode":"enforce"}';
const files = {
  "good.json": GOOD,
  "bad.json": '{\n"name":"bad",\n"mode":"enforce",\n"rules":{"max_latency_ms":"x","max_jitter":1}}',
  "zero.json": '{"name":"zero","mode":"permissive","rules":{"max_latency_ms":0}}',
};

async function against(fake: FakeApi, args: string[], world: CliWorld = {}) {
  await using api = await serveFakeApi(fake);
  return await runCli([...args, "--api", api.address], { files, ...world });
}

Deno.test("policy check tells every problem with file, line and key, and asks no agent", async () => {
  const good = await runCli(["policy", "check", "good.json", "zero.json"], { files });
  assert.equal(good.code, 0);
  assert.match(
    good.out,
    /^good\.json: valid, policy "good" \(enforce\), sha256:[0-9a-f]{64}\nzero\.json: valid/,
  );
  assert.equal(good.err, "zero.json: note: rules.max_latency_ms is 0, which means no limit\n");
  const bad = await runCli(["policy", "check", "good.json", "bad.json", "gone.json"], { files });
  assert.equal(bad.code, 1);
  assert.equal(
    bad.err,
    "bad.json: line 4, rules.max_latency_ms: must be a number\n" +
      "bad.json: line 4, rules.max_jitter: is not a known key\n" +
      "gone.json: no such file: gone.json\n",
  );
  const json = JSON.parse((await runCli(["policy", "check", "bad.json", "--json"], { files })).out);
  assert.equal(json[0].valid, false);
  assert.deepEqual(json[0].problems.map(({ path }: { path: string }) => path), [
    "rules.max_latency_ms",
    "rules.max_jitter",
  ]);
});

Deno.test(
  { ...leaks, name: "spawn sends a policy file's text, or a policy's name, and no bad file at all" },
  async () => {
    const seen: PolicyChoice[] = [];
    const labels: Record<string, string>[] = [];
    const workloads: FakeApi["workloads"] = {
      async *spawn(request) {
        seen.push({ policy: request.policy, policyJson: request.policyJson });
        labels.push(request.labels);
        yield { event: { case: "result", value: { id: "w1", url: "u", node: "n1" } } };
      },
    };
    const spawn = (...more: string[]) => against({ workloads }, ["spawn", "--image", "web:1", ...more]);
    await spawn("--policy", "good.json", "--label", "team=a", "--label", "app=x=y");
    await spawn("--policy", "strict");
    await spawn();
    assert.deepEqual(seen, [
      { policy: "", policyJson: GOOD },
      { policy: "strict", policyJson: "" },
      { policy: "", policyJson: "" },
    ]);
    assert.deepEqual(labels[0], { team: "a", app: "x=y" });
    const bad = await spawn("--policy", "bad.json");
    assert.equal(bad.code, 2);
    assert.match(
      bad.err,
      /Cannot use policy "bad\.json": line 4, rules\.max_latency_ms: must be a number \(and 1 more\)/,
    );
    assert.match((await spawn("--policy", "./gone")).err, /Cannot use policy "\.\/gone": no such file/);
    assert.match((await spawn("--label", "a=1", "--label", "a=2")).err, /--label: "a" is given twice/);
    assert.equal(seen.length, 3);
  },
);

Deno.test(
  { ...leaks, name: "policy explain prints each node with its verdict, score and reasons" },
  async () => {
    let asked: unknown;
    const policies: FakeApi["policies"] = {
      explain({ request, alone }) {
        asked = { alone, env: request?.env, policyJson: request?.policyJson, image: request?.imageRef };
        return {
          policyId: "sha256:1",
          name: "good",
          mode: "enforce",
          rules: ["max_latency_ms 80", "nodes n*"],
          network: { limitsEgress: true, egress: [], limitsIngress: false, ingressPorts: [] },
          nodes: [
            {
              id: "1",
              name: "n1",
              admitted: true,
              score: 0.75,
              terms: [{ name: "latency", weight: 1, value: 0.75, measured: 20 }],
            },
            {
              id: "2",
              name: "n2",
              admitted: false,
              violations: [{ rule: "rules.max_latency_ms", reason: "latency is not known", policy: "good" }],
            },
          ],
        };
      },
    };
    const args = ["policy", "explain", "good.json", "--image", "web:1", "--env", "A=secret"];
    const { code, out } = await against({ policies }, args);
    assert.equal(code, 0);
    assert.deepEqual(asked, { alone: false, env: ["A="], policyJson: GOOD, image: "web:1" });
    assert.equal(
      out,
      "policy good (enforce)\nof a node: max_latency_ms 80; nodes n*\nit may reach: nothing\n\n" +
        "NODE  TAKES IT  SCORE  BY TERM            WHY\n" +
        "n1    yes       0.750  latency 0.75×1.00  keeps all 2 rules\n" +
        "n2    no        0.000  -                  rules.max_latency_ms: latency is not known\n",
    );
    const json = JSON.parse((await against({ policies }, [...args, "--json", "--alone"])).out);
    assert.equal(json.nodes[1].violations[0].rule, "rules.max_latency_ms");
    assert.deepEqual(json.egress, []);
    assert.equal(json.ingressPorts, null);
  },
);

Deno.test({
  ...leaks,
  name: "policy explain ends with 1 when no node would take it, with 2 when it is asked nothing",
}, async () => {
  const policies: FakeApi["policies"] = {
    explain: () => ({
      name: "p",
      mode: "enforce",
      requestViolations: [{ rule: "permissions.max_cores", reason: "too many" }],
      nodes: [{ name: "n1", admitted: false }],
    }),
  };
  const { code, out } = await against({ policies }, ["policy", "explain", "--image", "web:1"]);
  assert.equal(code, 1);
  assert.match(out, /the request: permissions\.max_cores: too many\n/);
  assert.match(out, /see the request\n$/);
  const bare = await runCli(["policy", "explain", "good.json"], { files });
  assert.equal(bare.code, 2);
  assert.match(bare.err, /of which image\? Give --image/);
  assert.equal((await runCli(["policy", "explain", "--alone", "--image", "a"], { files })).code, 2);
});

Deno.test({ ...leaks, name: "policy show prints what is in force, and why the file is not" }, async () => {
  const policies: FakeApi["policies"] = {
    get: () => ({
      policyId: "sha256:1",
      name: "good",
      mode: "enforce",
      description: "For most.",
      source: "/etc/p.json",
      loadedAtMs: 1_700_000_000_000n,
      reloadError: "line 3: bad",
      policyJson: GOOD,
    }),
  };
  const { out, err } = await against({ policies }, ["policy", "show"]);
  assert.equal(out, "good (enforce) sha256:1\nFor most.\n/etc/p.json, read 2023-11-14T22:13:20.000Z\n");
  assert.match(err, /the file is not in force as it is now: line 3: bad/);
  const json = JSON.parse((await against({ policies }, ["policy", "show", "--json"])).out);
  assert.deepEqual(json.policy, JSON.parse(GOOD));
  const none = await against({ policies: { get: () => ({}) } }, ["policy", "show"]);
  assert.match(none.out, /^no policy/);
});
