import assert from "node:assert/strict";
import { RuntimeError } from "../../runtime/errors.ts";
import { MemoryEngine } from "../../runtime/testing/memory_engine.ts";
import { workloadState } from "../api/convert.ts";
import { MAX_CONCURRENT_STARTS } from "./limits.ts";
import { PORT_RETRY_MAX_MS } from "./route_sync.ts";
import { drain, FakeClock, FakeProxy, request, settle, startManager } from "./testing.ts";
import type { Workload } from "./workload.ts";

Deno.test("a spawn runs, is routed and is marked complete", async () => {
  const { manager, engine, proxy } = await startManager();
  await using _manager = manager;
  const workload = await manager.spawn(request({ name: "web" }));
  assert.equal(workload.phase, "running");
  assert.equal(manager.url(workload), `http://${workload.id}.example.com:8080`);
  assert.deepEqual(proxy.routes.map((route) => [route.id, route.aliases, route.hostPort]), [[workload.id, [
    "web",
  ], 8080]]);
  assert.equal((await engine.get(workload.id)).labels["hypercore.agent/complete"], "1");
  assert.deepEqual(proxy.reserved, []);
  assert.equal(manager.get("web"), workload);
});

Deno.test("a spawn that fails leaves nothing", async () => {
  const { manager, engine, proxy } = await startManager();
  await using _manager = manager;
  engine.failNext("create", new RuntimeError("not-found", "Cannot pull image"));
  await assert.rejects(manager.spawn(request()), { code: "not-found" });
  proxy.takenPorts.add(8080);
  await assert.rejects(manager.spawn(request()), { code: "precondition", message: /8080/ });
  assert.deepEqual(manager.list(), []);
  assert.equal(manager.usage.workloads, 0);
  assert.deepEqual(await engine.list(), []);
});

Deno.test("a spawn whose completion fails is removed again", async () => {
  const { manager, engine, proxy, clock } = await startManager();
  await using _manager = manager;
  proxy.failures = [{ hostPort: 8080, reason: "taken" }];
  await assert.rejects(manager.spawn(request()), /taken/);
  await letStopsEnd(clock);
  engine.failNext("setLabels", new RuntimeError("unavailable", "gone"));
  proxy.failures = [];
  await assert.rejects(manager.spawn(request()), /gone/);
  await letStopsEnd(clock);
  assert.deepEqual(await engine.list(), []);
  assert.equal(manager.usage.workloads, 0);
  assert.deepEqual(proxy.routes, []);
});

Deno.test("rule 6d: concurrent spawns never get more than the node has", async () => {
  const { manager } = await startManager({ vcpus: 3 });
  await using _manager = manager;
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => manager.spawn(request())));
  assert.equal(results.filter((result) => result.status === "fulfilled").length, 3);
  assert.equal(manager.usage.milliCpus, 3000);
});

Deno.test("rule 8: no more starts than the limit are under way at once; the others wait their turn", async () => {
  const { manager, engine } = await startManager({ vcpus: 1000 });
  await using _manager = manager;
  let [under, most] = [0, 0];
  const full = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  engine.onStep = async (_id, step) => {
    if (step !== "network") return;
    most = Math.max(most, ++under);
    if (under === MAX_CONCURRENT_STARTS) full.resolve();
    await gate.promise;
    under--;
  };
  const small = () => request({ memory: 16, ports: {} });
  const spawns = Array.from({ length: MAX_CONCURRENT_STARTS * 2 }, () => manager.spawn(small()));
  await full.promise;
  await settle();
  const leave = new AbortController();
  const waiting = manager.spawn(small(), { signal: leave.signal });
  leave.abort(new RuntimeError("canceled", "Cannot go on: the client left"));
  await assert.rejects(waiting, { code: "canceled" });
  gate.resolve();
  await Promise.all(spawns);
  assert.equal(most, MAX_CONCURRENT_STARTS);
  assert.equal(manager.usage.workloads, spawns.length);
});

Deno.test("a dry run answers and takes nothing", async () => {
  const { manager, engine, proxy } = await startManager({ vcpus: 1 });
  await using _manager = manager;
  await manager.dryRun(request());
  await assert.rejects(manager.dryRun(request({ cores: 2 })), { code: "exhausted" });
  proxy.takenPorts.add(8080);
  await assert.rejects(manager.dryRun(request()), { code: "precondition" });
  assert.deepEqual([await engine.list(), manager.usage.workloads, proxy.reserved], [[], 0, []]);
});

Deno.test("rule 3a: a container that exits starts again under its id, on the event, with growing pauses", async () => {
  const { manager, engine, proxy, clock } = await startManager();
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  for (const [index, pauseMs] of [1000, 2000, 4000].entries()) {
    engine.exit(id, 3);
    await settle();
    assert.equal(manager.get(id).phase, "backing-off");
    assert.match(manager.get(id).reason, /exit code 3/);
    assert.deepEqual(proxy.routes, []);
    assert.deepEqual(clock.pending, [pauseMs]);
    clock.advance(pauseMs);
    await settle();
    assert.equal(manager.get(id).phase, "running");
    assert.equal(manager.get(id).record.restarts, index + 1);
    assert.equal(manager.get(id).record.generation, index + 2);
    assert.equal(proxy.routes.length, 1);
  }
  clock.advance(600_000);
  engine.oom(id);
  await settle();
  assert.deepEqual(clock.pending, [1000], "ten minutes up begin anew");
});

Deno.test("a container that ends before its spawn is through is told of as spawned, then as ended", async () => {
  const proxy = new FakeProxy();
  const { manager, engine } = await startManager({ proxy });
  await using _manager = manager;
  const apply = proxy.apply.bind(proxy);
  proxy.apply = async (routes) => {
    for (const { id } of routes) engine.exit(id, 3);
    await settle();
    return apply(routes);
  };
  const told: string[] = [];
  const leave = new AbortController();
  const watching = (async () => {
    for await (const { type } of manager.watch(leave.signal)) told.push(type);
  })();
  await manager.spawn(request());
  await settle();
  leave.abort();
  await watching.catch(() => {}); // it was left
  assert.deepEqual(told, ["spawned", "exited", "restart-scheduled"]);
});

Deno.test("a restart that fails is tried again; containerd being away costs no longer pause", async () => {
  const { manager, engine, clock } = await startManager();
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  engine.exit(id, 1);
  await settle();
  engine.failNext("restart", new RuntimeError("unavailable", "away"));
  engine.failNext("restart", new RuntimeError("failed", "broken"));
  clock.advance(1000);
  await settle();
  assert.deepEqual(clock.pending, [1000]);
  clock.advance(1000);
  await settle();
  assert.match(manager.get(id).reason, /broken/);
  assert.deepEqual(clock.pending, [2000]);
  clock.advance(2000);
  await settle();
  assert.equal(manager.get(id).phase, "running");
});

Deno.test("rule 7c: a stop withdraws the route before the container is stopped, and callers join it", async () => {
  const { manager, engine, proxy, clock } = await startManager();
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  const seen: number[] = [];
  const remove = engine.remove.bind(engine);
  engine.remove = (...args) => {
    seen.push(proxy.routes.length);
    return remove(...args);
  };
  await drain(clock, Promise.all([manager.stop(id), manager.stop(id)]));
  assert.deepEqual(seen, [0]);
  assert.throws(() => manager.get(id), { code: "not-found" });
  assert.deepEqual([await engine.list(), manager.usage.workloads], [[], 0]);
  assert.throws(() => manager.stop(id), { code: "not-found" });
});

Deno.test("a stop ends a start that is under way", async () => {
  const { manager, engine, clock } = await startManager({ ids: ["0000000000aa"] });
  await using _manager = manager;
  const entered = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  engine.onStep = (_id, step) => {
    if (step !== "network") return;
    entered.resolve();
    return gate.promise;
  };
  const spawning = manager.spawn(request());
  spawning.catch(() => {});
  await entered.promise;
  const stopping = manager.stop("0000000000aa");
  gate.resolve();
  await drain(clock, stopping);
  await assert.rejects(spawning, { code: "canceled" });
  assert.deepEqual([manager.list(), await engine.list()], [[], []]);
});

Deno.test("a stop that fails is carried on by itself", async () => {
  const { manager, engine, clock } = await startManager();
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  engine.failNext("remove", new RuntimeError("unavailable", "away"));
  await assert.rejects(drain(clock, manager.stop(id)), /away/);
  assert.equal(manager.get(id).phase, "stopping");
  clock.advance(1000);
  await letStopsEnd(clock);
  assert.deepEqual(manager.list(), []);
});

Deno.test("ports that could not be opened are tried again by themselves, with growing pauses", async () => {
  const { manager, engine, proxy, clock } = await startManager();
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  engine.setReachable(false);
  proxy.failures = [{ hostPort: 8080, reason: "taken" }];
  engine.setReachable(true);
  await settle();
  for (const pauseMs of [1_000, 2_000, 4_000]) {
    assert.deepEqual(clock.pending, [pauseMs]);
    clock.advance(pauseMs);
    await settle();
  }
  proxy.failures = [];
  clock.advance(8_000);
  await settle();
  assert.deepEqual(clock.pending, [], "they are open");
  assert.equal(manager.get(id).phase, "running");
});

Deno.test("the pause before ports are tried again has a limit, and dispose ends the tries", async () => {
  const { manager, engine, proxy, clock } = await startManager();
  await manager.spawn(request());
  proxy.failures = [{ hostPort: 8080, reason: "taken" }];
  engine.setReachable(false);
  engine.setReachable(true);
  await settle();
  for (let i = 0; i < 10; i++) {
    clock.advance(clock.pending[0]);
    await settle();
  }
  assert.deepEqual(clock.pending, [PORT_RETRY_MAX_MS]);
  await manager[Symbol.asyncDispose]();
  assert.deepEqual(clock.pending, []);
});

Deno.test("rule 5b: a workload that backs off shows the exit code of its newest run, also to the next agent", async () => {
  const clock = new FakeClock();
  const engine = new MemoryEngine({ nowMs: () => clock.nowMs });
  const first = await startManager({ engine, clock });
  const { id } = await first.manager.spawn(request());
  engine.exit(id, 7);
  await settle();
  assert.deepEqual(shown(first.manager.get(id)), ["backing-off", 7]);
  await first.manager[Symbol.asyncDispose]();
  const { manager } = await startManager({ engine, clock });
  await using _manager = manager;
  await settle();
  assert.deepEqual(shown(manager.get(id)), ["backing-off", 7]);
  clock.advance(1_000);
  await settle();
  assert.deepEqual(shown(manager.get(id)), ["running", 7]);
  function shown(workload: Workload) {
    const { status, exitCode } = workloadState(workload, "");
    return [status, exitCode];
  }
});

Deno.test("rule 1b: the next agent adopts, restarts, cleans up and carries on", async () => {
  const clock = new FakeClock();
  const engine = new MemoryEngine({ nowMs: () => clock.nowMs });
  const first = await startManager({ engine, clock });
  const [runs, died, stops] = [
    await first.manager.spawn(request()),
    await first.manager.spawn(request()),
    await first.manager.spawn(request({ name: "going" })),
  ];
  engine.exit(died.id, 1);
  await settle();
  clock.advance(1000);
  await settle();
  await first.manager[Symbol.asyncDispose]();
  engine.exit(died.id, 9);
  await engine.setLabels(stops.id, { "hypercore.agent/stopping": "1" });
  const half = { ...(await engine.get(runs.id)).labels, "hypercore.agent/complete": "0" };
  await engine.create({ ...bare("00000000ffff"), labels: half });
  await engine.create({ ...bare("foreign"), labels: {} });

  const { manager, proxy } = await startManager({ engine, clock, ids: ["0000000000bb"] });
  await using _manager = manager;
  for (let i = 0; i < 4; i++) {
    await settle();
    clock.advance(0);
  }
  assert.equal(manager.get(runs.id).phase, "running");
  assert.equal(manager.get(died.id).phase, "backing-off");
  assert.equal(manager.get(died.id).record.restarts, 1);
  assert.deepEqual(clock.pending, [2000], "the back-off goes on where it was");
  assert.deepEqual((await engine.list()).map((each) => each.id).sort(), [died.id, "foreign", runs.id].sort());
  assert.deepEqual(proxy.routes.map((route) => route.id), [runs.id]);
  clock.advance(2000);
  await settle();
  assert.equal(manager.get(died.id).record.generation, 3);
});

Deno.test("what happens while containerd is away is found when it is back", async () => {
  const { manager, engine, clock, proxy } = await startManager();
  await using _manager = manager;
  const [a, b] = [await manager.spawn(request()), await manager.spawn(request())];
  await engine.remove(b.id);
  await settle();
  engine.setReachable(false);
  engine.setReachable(true);
  await settle();
  assert.deepEqual(manager.list().map((each) => each.id), [a.id]);
  clock.advance(10_000);
  await settle();
  assert.deepEqual(proxy.routes.map((route) => route.id), [a.id]);
});

Deno.test("the end of an earlier run does not end the current one", async () => {
  const { manager, engine, clock } = await startManager();
  await using _manager = manager;
  const { id } = await manager.spawn(request());
  engine.exit(id, 1);
  await settle();
  clock.advance(1000);
  await settle();
  const { pid } = manager.get(id).container!;
  engine.setReachable(false);
  engine.setReachable(true);
  await settle();
  assert.equal(manager.get(id).container!.pid, pid);
  assert.equal(manager.get(id).phase, "running");
});

Deno.test("any history of faults converges: belief, routes and capacity match containerd", async () => {
  for (let seed = 1; seed <= 20; seed++) await runHistory(seed);
});

async function runHistory(seed: number): Promise<void> {
  const random = generator(seed);
  const clock = new FakeClock();
  const engine = new MemoryEngine({ nowMs: () => clock.nowMs });
  const proxy = new FakeProxy();
  let now = await startManager({ engine, clock, proxy, ids: ids(random) });
  const background: Promise<unknown>[] = [];
  const away: RuntimeError = new RuntimeError("unavailable", "away");
  for (let step = 0; step < 30; step++) {
    const all = await engine.list().catch(() => []);
    const one = all[Math.floor(random() * all.length)];
    const dice = Math.floor(random() * 9);
    if (dice <= 1) background.push(now.manager.spawn(request()).catch(() => {}));
    else if (dice === 2 && one) background.push(stop(now.manager, one.id));
    else if (dice === 3 && one?.status === "running") engine.exit(one.id, 1);
    else if (dice === 4 && one?.status === "running") engine.loseTask(one.id);
    else if (dice === 5) {
      engine.failNext((["create", "restart", "remove", "setLabels"] as const)[step % 4], away);
    } else if (dice === 6) clock.advance(Math.floor(random() * 5000));
    else if (dice === 7) {
      engine.setReachable(false);
      if (random() < 0.5) await settle();
      engine.setReachable(true);
    } else if (dice === 8) {
      await now.manager[Symbol.asyncDispose]();
      now = await startManager({ engine, clock, proxy, ids: ids(random) });
    }
    if (random() < 0.6) await settle();
  }
  for (let i = 0; i < 12; i++) {
    await settle();
    clock.advance(300_000);
  }
  await settle();
  await Promise.all(background);
  const containers = await engine.list();
  const running = containers.filter((each) => each.status === "running").map((each) => each.id).sort();
  const where = `seed ${seed}`;
  assert.deepEqual(
    now.manager.list().map((each) => each.id).sort(),
    containers.map((each) => each.id).sort(),
    where,
  );
  assert.deepEqual(now.manager.list().map((each) => each.phase), containers.map(() => "running"), where);
  assert.deepEqual(proxy.routes.map((route) => route.id).sort(), running, where);
  assert.equal(now.manager.usage.workloads, containers.length, where);
  assert(containers.every((each) => each.labels["hypercore.agent/complete"] === "1"), where);
  await now.manager[Symbol.asyncDispose]();
}

async function letStopsEnd(clock: FakeClock): Promise<void> {
  for (let i = 0; i < 4; i++) {
    await settle();
    clock.advance(0);
  }
}

function stop(manager: { stop(id: string): Promise<void> }, id: string): Promise<void> {
  try {
    return manager.stop(id).catch(() => {});
  } catch {
    return Promise.resolve(); // not known to this agent: nothing to stop
  }
}

function ids(random: () => number): string[] {
  return Array.from({ length: 40 }, () => Math.floor(random() * 2 ** 47).toString(16).padStart(12, "0"));
}

/** mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function bare(id: string) {
  return {
    id,
    image: "web:1",
    milliCpus: 1000,
    memoryBytes: 1,
    pidsLimit: 1,
    env: [],
    args: [],
    tty: false,
    stdin: false,
    hostname: id,
    runtime: { name: "runc", options: {} },
  };
}
