import assert from "node:assert/strict";
import { TestHost } from "../support/host.ts";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";

const IMAGE = "test/web:1";
const UPLINK = { host: "10.9.0.1", outside: "10.9.0.2" };
const OPEN_PORT = 9000;
const OTHER_PORT = 9001;

/** The cluster's policy at first: few cores, a team's quota, and one way out. */
const CLUSTER = {
  name: "site",
  mode: "enforce",
  rules: { node_tags: { zone: ["eu-*"] } },
  permissions: {
    allowed_images: ["test/**"],
    max_cores: 2,
    quotas: [{ label: "team", max_workloads: 1 }],
  },
  network: {
    egress: [{ cidr: `${UPLINK.outside}/32`, protocol: "tcp", ports: [OPEN_PORT] }],
    ingress_ports: [8080],
  },
};

/** An agent with a policy file of its own, and a machine outside that serves on two ports. */
async function openSite() {
  await using stack = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir({ prefix: "hc-policy-" });
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const file = `${dir}/cluster.json`;
  const write = async (policy: unknown) => {
    await Deno.writeTextFile(
      `${file}.new`,
      typeof policy === "string" ? policy : JSON.stringify(policy, null, 2),
    );
    await Deno.rename(`${file}.new`, file);
  };
  await write(CLUSTER);
  const outside = stack.use(await TestHost.create());
  const agent = stack.use(
    await LiveAgent.start({ flags: ["--cluster-policy", file, "--policy-dir", dir, "--tag", "zone=eu-1"] }),
  );
  await agent.host.connect(outside, { address: UPLINK.host, peerAddress: UPLINK.outside });
  await Deno.mkdir(`${dir}/www`);
  await Deno.writeTextFile(`${dir}/www/index.html`, "here");
  for (const port of [OPEN_PORT, OTHER_PORT]) {
    const args = ["httpd", "-f", "-p", `${UPLINK.outside}:${port}`, "-h", `${dir}/www`];
    outside.spawn("/bin/busybox", args, { stdin: "null", stdout: "null", stderr: "null" });
    await until(
      `${port} answers`,
      async () => (await agent.curl(`http://${UPLINK.outside}:${port}/`)) === "here",
    );
  }
  await agent.load(busyboxImage(), IMAGE);
  const owned = stack.move();
  return { agent, dir, write, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Seconds after which a port counts as out of reach, and those that an answer which is to come may take. */
const [BRIEF_S, PATIENT_S] = [2, 30];

/** Which of the outside machine's ports a guest reaches; those that it should are waited for. */
async function reached(agent: LiveAgent, id: string, expected: readonly number[] = []): Promise<number[]> {
  const answers = await Promise.all([OPEN_PORT, OTHER_PORT].map(async (port) => {
    const seconds = expected.includes(port) ? PATIENT_S : BRIEF_S;
    const request =
      `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w ${seconds} ${UPLINK.outside} ${port} | head -n 1`;
    return (await agent.cli(["exec", id, "sh", "-c", request])).out.includes("200") ? [port] : [];
  }));
  return answers.flat();
}

const WEB = ["--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080"];

Deno.test("a node refuses what its policy forbids, with all reasons, and narrows the network of what it takes", async () => {
  await using site = await openSite();
  const { agent, dir } = site;
  const before = await agent.inventory();
  const refused = await agent.cli(["spawn", "--image-ref", "evil/web:1", "--cpu", "3", "--ports", "80:22"]);
  assert.equal(refused.code, 1);
  assert.match(
    refused.err,
    /policy "site" refuses it: permissions\.allowed_images: .*; permissions\.max_cores: 3 vCPUs/,
  );
  assert.match(refused.err, /network\.ingress_ports: container port 22 is none of 8080/);
  assert.deepEqual(await agent.inventory(), before);
  const { err } = await agent.cli(["spawn", ...WEB, "--dry-run", "--cpu", "3"]);
  assert.match(err, /permissions\.max_cores/);

  const id = await agent.spawn(...WEB, "--label", "team=a");
  await until("it serves", async () => (await agent.page(id)).startsWith("Hello"));
  assert.deepEqual(await reached(agent, id, [OPEN_PORT]), [OPEN_PORT]);
  const over = await agent.cli(["spawn", ...WEB, "--label", "team=a"]);
  assert.match(over.err, /permissions\.quotas\[0\]: team=a has 1 of 1 workloads/);
  const [listed] = await agent.list();
  assert.deepEqual(listed.labels, { team: "a" });

  // A spawn's own policy, by file and by name: it tightens, and loosens nothing.
  await Deno.writeTextFile(
    `${dir}/closed.json`,
    JSON.stringify({
      name: "closed",
      mode: "enforce",
      permissions: { max_cores: 64 },
      network: { egress: [] },
    }),
  );
  const closed = await agent.spawn(...WEB, "--policy", "closed");
  assert.deepEqual(await reached(agent, closed), []);
  const loose = await agent.cli(["spawn", ...WEB, "--cpu", "3", "--policy", `${dir}/closed.json`]);
  assert.match(loose.err, /policy "site\+closed" refuses it: permissions\.max_cores: 3 vCPUs .* at most 2/);
  const unknown = await agent.cli(["spawn", ...WEB, "--policy", "nobody"]);
  assert.match(unknown.err, /Cannot use policy "nobody": this node has no file/);

  const metrics = await agent.curl("http://127.0.0.1:8001/metrics");
  assert.match(metrics, /ibrl_policy_violations_total\{rule="permissions\.max_cores",mode="enforce"\} 3/);
  assert.match(metrics, /ibrl_policy_evaluations_total\{outcome="admitted"\} 2/);
  assert.match(metrics, /ibrl_policy_evaluation_latency_ms_count [1-9]/);
});

Deno.test("a changed policy is in force for what runs and what comes, a bad one leaves the old, over restarts too", async () => {
  await using site = await openSite();
  const { agent, write } = site;
  const id = await agent.spawn(...WEB);
  assert.deepEqual(await reached(agent, id, [OPEN_PORT]), [OPEN_PORT]);
  const shown = async () => JSON.parse(await agent.ok("policy", "show", "--json"));
  const first = await shown();
  assert.equal(first.name, "site");

  const narrower = { ...CLUSTER, name: "narrower", network: { egress: [], ingress_ports: [8080] } };
  await write(narrower);
  await until("the new policy is in force", async () => (await shown()).name === "narrower");
  await until("it holds for what runs", async () => (await reached(agent, id)).length === 0);

  await write('{\n  "name": "broken",\n  "mode": "enforce",\n  "rules": { "max_latency_ms": "fast" }\n}');
  agent.signal("SIGHUP");
  await until("the error is told", async () => (await shown()).reloadError !== "");
  const broken = await shown();
  assert.equal(broken.name, "narrower");
  assert.match(broken.reloadError, /line 4, rules\.max_latency_ms: must be a number/);
  assert.match(await Deno.readTextFile(agent.logFile), /the new policy is not taken, the old one stays/);
  assert.match((await agent.cli(["spawn", ...WEB, "--cpu", "3"])).err, /policy "narrower" refuses it/);

  // An agent that starts with a bad policy does not run without one.
  await agent.end("SIGTERM");
  await assert.rejects(agent.run(), /line 4, rules\.max_latency_ms: must be a number/);
  await write(CLUSTER);
  await agent.run();
  await until("the policy of the restart holds for what runs", async () => {
    return (await reached(agent, id)).join() === String(OPEN_PORT);
  });
  await until("it serves", async () => (await agent.page(id)).startsWith("Hello"));
});

Deno.test("explain tells which rule refuses, and the score by term, without starting anything", async () => {
  await using site = await openSite();
  const { agent, dir } = site;
  const explained = await agent.ok("policy", "explain", "--image", IMAGE, "--ports", "8080:8080");
  assert.match(
    explained,
    /^policy site \(enforce\)\nof a node: node_tags zone=eu-\*\nit may reach: tcp 10\.9\.0\.2\/32 9000\n/,
  );
  assert.match(explained, /n1 +yes +0\.\d+ +latency 1\.00×0\.25 .* keeps the rule\n$/);
  await Deno.writeTextFile(
    `${dir}/far.json`,
    JSON.stringify({ name: "far", mode: "enforce", rules: { node_tags: { zone: "us-1" } } }),
  );
  const refused = await agent.cli(["policy", "explain", `${dir}/far.json`, "--image", IMAGE, "--json"]);
  assert.equal(refused.code, 1);
  const { nodes, policy } = JSON.parse(refused.out);
  assert.equal(policy.name, "site+far");
  assert.deepEqual(nodes[0].violations.map(({ rule }: { rule: string }) => rule), ["rules.node_tags.zone"]);
  assert.equal(nodes[0].admitted, false);
  const alone = await agent.cli([
    "policy",
    "explain",
    "far",
    "--alone",
    "--image",
    "evil/web:1",
    "--cpu",
    "9",
  ]);
  assert.match(alone.out, /node_tags\.zone: zone is "eu-1", none of us-1/);
  assert.doesNotMatch(alone.out, /max_cores/);
  assert.deepEqual(await agent.list(), []);
});
