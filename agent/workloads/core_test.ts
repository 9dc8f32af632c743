import assert from "node:assert/strict";
import type { ContainerInfo } from "../../runtime/engine.ts";
import { MAX_WORKLOADS } from "./limits.ts";
import { AdmissionLedger } from "./admission.ts";
import { BACKOFF_MAX_MS, BACKOFF_RESET_MS, planRestart } from "./backoff.ts";
import { EventHub, MAX_QUEUED_EVENTS, MAX_WATCHERS } from "./events.ts";
import { KeyedQueue } from "./keyed_queue.ts";
import { decodeLabels, encodeLabels, LABEL_PREFIX, MAX_LABEL_BYTES, PAYLOAD_LABEL } from "./labels.ts";
import { type Belief, reconcile } from "./reconcile.ts";
import { planRoutes, workloadUrl } from "./routes.ts";
import { request } from "./testing.ts";

const claim = { milliCpus: 1000, memoryBytes: 100, ports: [] };

Deno.test("rule 6b: admission gives away no more than there is", () => {
  const ledger = new AdmissionLedger({ milliCpus: 2000, memoryBytes: 1000 });
  ledger.reserve("a", claim);
  assert.throws(() => ledger.reserve("b", { ...claim, milliCpus: 1001 }), {
    code: "exhausted",
    message: /1.001 vCPUs/,
  });
  assert.throws(() => ledger.reserve("b", { ...claim, memoryBytes: 901 }), {
    code: "exhausted",
    message: /memory/,
  });
  ledger.reserve("b", { ...claim, memoryBytes: 900 });
  ledger.release("b");
  assert.deepEqual(ledger.usage, { milliCpus: 1000, memoryBytes: 100, workloads: 1 });
});

Deno.test("admission refuses a name that is taken", () => {
  const ledger = new AdmissionLedger({ milliCpus: 9000, memoryBytes: 1000 });
  ledger.reserve("a", { ...claim, name: "web" });
  assert.throws(() => ledger.reserve("b", { ...claim, name: "web" }), {
    code: "already-exists",
    message: /belongs to a/,
  });
});

Deno.test("admission bounds the workloads of a node", () => {
  const ledger = new AdmissionLedger({ milliCpus: 1e9, memoryBytes: 1e12 });
  for (let i = 0; i < MAX_WORKLOADS; i++) ledger.adopt(`w${i}`, { ...claim, ports: [] });
  assert.throws(() => ledger.reserve("more", { ...claim, ports: [] }), {
    code: "exhausted",
    message: /4096 workloads, its limit/,
  });
  ledger.release("w0");
  ledger.reserve("more", { ...claim, ports: [] });
});

Deno.test("rule 6b: admission bounds the open host ports of a node", () => {
  const ledger = new AdmissionLedger({ milliCpus: 1e9, memoryBytes: 1e12 });
  for (let i = 0; i < 1024; i++) {
    ledger.reserve(`w${i}`, { ...claim, ports: [{ hostPort: i + 1, containerPort: 1 }] });
  }
  ledger.reserve("same", { ...claim, ports: [{ hostPort: 7, containerPort: 1 }] });
  assert.throws(
    () => ledger.reserve("x", { ...claim, ports: [{ hostPort: 2000, containerPort: 1 }] }),
    /host ports/,
  );
});

Deno.test("rule 5a: restarts back off from 1 s, doubling to 5 min, and begin anew after 10 min up", () => {
  let failures = 0;
  const delays: number[] = [];
  for (let i = 0; i < 12; i++) {
    const plan = planRestart({ failures, startedAtMs: 0, endedAtMs: 10 });
    delays.push(plan.delayMs / 1000);
    failures = plan.failures;
  }
  assert.deepEqual(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  const rested = planRestart({ failures, startedAtMs: 0, endedAtMs: BACKOFF_RESET_MS });
  assert.deepEqual(rested, { failures: 1, delayMs: 1000, restartAtMs: BACKOFF_RESET_MS + 1000 });
  assert.equal(planRestart({ failures: 1e9, endedAtMs: 0 }).delayMs, BACKOFF_MAX_MS);
});

const record = {
  request: request(),
  isComplete: true,
  isStopping: false,
  generation: 3,
  restarts: 2,
  failures: 1,
  createdAtMs: 5,
  startedAtMs: 6,
  exitCode: 137,
};

Deno.test("rule 1a: labels carry a workload through, whatever is in its request", () => {
  const values = ["x", "ü€😀", '"\\\n', "y".repeat(90_000), "\u2028\u007f"];
  for (const value of values) {
    const given = { ...record, request: request({ env: [`A=${value}`] }) };
    const labels = encodeLabels(given);
    for (const [key, text] of Object.entries(labels)) {
      assert(new TextEncoder().encode(key + text).length <= MAX_LABEL_BYTES, key);
    }
    const read = decodeLabels(labels);
    assert(read !== undefined && !(read instanceof Error));
    assert.deepEqual({ ...read, request: read.request.env }, { ...given, request: given.request.env });
    assert.equal(JSON.parse(labels[PAYLOAD_LABEL]).image_ref, "web:1");
  }
});

Deno.test("foreign labels are nobody's, damaged ones an error", () => {
  assert.equal(decodeLabels({}), undefined);
  assert.equal(decodeLabels({ [PAYLOAD_LABEL]: "{}" }), undefined);
  const labels = encodeLabels(record);
  assert(decodeLabels({ ...labels, [PAYLOAD_LABEL]: "{" }) instanceof Error);
  assert(decodeLabels({ ...labels, [`${LABEL_PREFIX}payload-chunks`]: "999999" }) instanceof Error);
});

function container(fields: Partial<ContainerInfo> = {}, labels = {}): ContainerInfo {
  return {
    id: "c1",
    image: "web:1",
    imageDigest: "",
    runtime: "runc",
    labels: encodeLabels({ ...record, ...labels }),
    status: "running",
    pid: 7,
    address: "10.0.0.2",
    createdAtMs: 0,
    tty: false,
    logPath: "",
    ...fields,
  };
}
const belief: Belief = { id: "c1", phase: "running", pid: 7, address: "10.0.0.2", isBusy: false };
const kinds = (containers: ContainerInfo[], beliefs: Belief[] = []) =>
  reconcile(containers, beliefs).map((action) => action.kind);

Deno.test("the reconciler plans what belief and containerd call for", () => {
  assert.deepEqual(kinds([container()]), ["run"], "adopts what runs");
  assert.deepEqual(kinds([container()], [belief]), [], "is content when they agree");
  assert.deepEqual(kinds([container({ pid: 8 })], [belief]), ["run"], "takes over a new run");
  assert.deepEqual(kinds([container({ status: "stopped" })], [belief]), ["ended"]);
  assert.deepEqual(kinds([container({ status: "no-task" })]), ["ended"]);
  assert.deepEqual(kinds([container({ status: "created" })]), ["ended"]);
  assert.deepEqual(kinds([container({}, { isComplete: false })]), ["remove"]);
  assert.deepEqual(kinds([container({}, { isStopping: true })]), ["stop"]);
  assert.deepEqual(kinds([container({}, { isStopping: true, isComplete: false })]), ["stop"]);
  assert.deepEqual(kinds([], [belief]), ["forget"]);
  assert.deepEqual(kinds([], [{ ...belief, isBusy: true }]), [], "leaves a busy one alone");
  assert.deepEqual(kinds([container({}, { isComplete: false })], [{ ...belief, isBusy: true }]), []);
  assert.deepEqual(kinds([container({ status: "stopped" })], [{ ...belief, phase: "backing-off" }]), []);
  assert.deepEqual(kinds([{ ...container(), labels: { x: "y" } }]), [], "leaves foreign containers alone");
  assert.deepEqual(kinds([container({ labels: { ...container().labels, [PAYLOAD_LABEL]: "{" } })]), [
    "report",
  ]);
});

Deno.test("only running workloads are routed, by id and name", () => {
  const ports = [{ hostPort: 80, containerPort: 8080 }];
  const routes = planRoutes([{ id: "a", name: "web", ports, address: "10.0.0.2" }, { id: "b", ports }]);
  const upstream = { kind: "tcp", hostname: "10.0.0.2", port: 8080 };
  assert.deepEqual(routes, [{ id: "a", aliases: ["web"], hostPort: 80, upstream }]);
});

Deno.test("a URL names 443, else 80, else the lowest port, and leaves out the scheme's own", () => {
  const url = (hostPorts: number[], tls = false) =>
    workloadUrl({ id: "a", ports: hostPorts.map((hostPort) => ({ hostPort, containerPort: 1 })) }, {
      baseUrl: "x.io",
      tls,
    });
  assert.equal(url([]), "");
  assert.equal(url([443, 80], true), "https://a.x.io");
  assert.equal(url([8080, 80], true), "http://a.x.io");
  assert.equal(url([443]), "http://a.x.io:443");
  assert.equal(url([8080, 80]), "http://a.x.io");
  assert.equal(url([9090, 8080], true), "https://a.x.io:8080");
});

Deno.test("a keyed queue keeps order per key and has a limit", async () => {
  const queue = new KeyedQueue(2);
  const order: number[] = [];
  const gate = Promise.withResolvers<void>();
  const first = queue.run("a", () => gate.promise.then(() => void order.push(1)));
  const second = queue.run("a", () => Promise.resolve(void order.push(2)));
  await assert.rejects(queue.run("a", () => Promise.resolve()), { code: "exhausted" });
  await queue.run("b", () => Promise.resolve(void order.push(3)));
  gate.resolve();
  await Promise.all([first, second]);
  assert.deepEqual(order, [3, 1, 2]);
  assert.equal(queue.isBusy("a"), false);
});

Deno.test("rule 8: an event reader that lags is cut off, and readers are limited", async () => {
  const hub = new EventHub();
  const end = new AbortController();
  const slow = hub.watch(end.signal)[Symbol.asyncIterator]();
  const event = { atMs: 1, id: "a", type: "spawned", detail: "" } as const;
  for (let i = 0; i <= MAX_QUEUED_EVENTS + 1; i++) hub.emit(event);
  for (let i = 0; i < MAX_QUEUED_EVENTS; i++) await slow.next();
  await assert.rejects(Promise.resolve(slow.next()), { code: "exhausted" });
  assert.equal(hub.watchers, 0);
  assert.equal(hub.cutOff, 1);
  for (let i = 0; i < MAX_WATCHERS; i++) hub.watch(end.signal);
  assert.throws(() => hub.watch(end.signal), { code: "exhausted" });
  end.abort();
});
