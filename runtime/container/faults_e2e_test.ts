import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import type { Operation } from "./context.ts";
import { assertClean, EngineBench } from "./testing.ts";

const CREATE_STEPS = [
  "check",
  "image",
  "streams",
  "lease",
  "snapshot",
  "network",
  "spec",
  "container",
  "task",
  "start",
];
const RESTART_STEPS = CREATE_STEPS.filter((step) => step !== "spec");
const REMOVE_STEPS = ["mark", "stop", "network", "snapshot", "files", "record"];

/** Runs `fault` when the operation comes to that step; `reached` tells whether it did. */
function at(bench: EngineBench, operation: Operation, step: string, fault: () => unknown) {
  const seen = { reached: false };
  bench.observe = async (op, name) => {
    if (op !== operation || name !== step || seen.reached) return;
    seen.reached = true;
    await fault();
  };
  return seen;
}

const boom = () => {
  throw new RuntimeError("failed", "boom");
};

Deno.test("create has the steps that the faults below go through", async () => {
  await using bench = await EngineBench.start();
  const steps: string[] = [];
  bench.observe = (operation, step) => void steps.push(`${operation} ${step}`);
  const id = bench.id();
  await bench.engine.create(bench.spec(id));
  await bench.engine.remove(id, { graceMs: 0 });
  assert.deepEqual(steps, [
    ...CREATE_STEPS.map((step) => `create ${step}`),
    ...REMOVE_STEPS.map((step) => `remove ${step}`),
  ]);
});

Deno.test("a failure at any step of create leaves nothing behind", async () => {
  await using bench = await EngineBench.start();
  for (const step of CREATE_STEPS) {
    const seen = at(bench, "create", step, boom);
    await assert.rejects(bench.engine.create(bench.spec(bench.id())), /boom/);
    assert.ok(seen.reached, step);
    await assertClean(bench, `create failed at ${step}`);
  }
});

Deno.test("a create that is canceled at any step leaves nothing behind", async () => {
  await using bench = await EngineBench.start();
  for (const step of CREATE_STEPS) {
    const abort = new AbortController();
    at(bench, "create", step, () => abort.abort());
    const id = bench.id();
    const error = await bench.engine.create(bench.spec(id), { signal: abort.signal }).then(
      () => undefined,
      (e) => e,
    );
    // The last call may be through before the cancellation is.
    if (error === undefined) await bench.engine.remove(id, { graceMs: 0 });
    else assert.ok(error instanceof RuntimeError && error.code === "canceled", String(error));
    await assertClean(bench, `create canceled at ${step}`);
  }
});

Deno.test("a call of create whose answer is lost, as when containerd is killed, leaves nothing behind", async () => {
  await using bench = await EngineBench.start();
  const { leases, snapshots, containers, tasks } = bench.client;
  const services: [Record<string, unknown>, string][] = [
    [leases, "create"],
    [leases, "addResource"],
    [leases, "delete"],
    [snapshots, "prepare"],
    [containers, "create"],
    [containers, "update"],
    [tasks, "create"],
    [tasks, "start"],
  ];
  for (const [service, method] of services) {
    const call = service[method] as (...args: unknown[]) => Promise<unknown>;
    service[method] = async (...args: unknown[]) => {
      service[method] = call;
      await call(...args);
      throw new RuntimeError("unavailable", "the answer is lost");
    };
    const id = bench.id();
    const error = await bench.engine.create(bench.spec(id)).then(() => undefined, (e) => e);
    assert.equal(service[method], call, `${method} was called`);
    // What is done again makes up for it.
    if (error === undefined) await bench.engine.remove(id, { graceMs: 0 });
    else assert.match(String(error), /the answer is lost/);
    await assertClean(bench, `the answer to ${method} was lost`);
  }
});

Deno.test("the directory of a snapshot that a killed containerd did not live to note is in nobody's way", async () => {
  await using bench = await EngineBench.start();
  const directory = `${bench.containerd.dir}/root/io.containerd.snapshotter.v1.overlayfs/snapshots`;
  const last = Math.max(...[...Deno.readDirSync(directory)].map(({ name }) => Number(name)));
  for (let number = last + 1; number < last + 10; number++) await Deno.mkdir(`${directory}/${number}`);
  for (let round = 0; round < 3; round++) {
    const id = bench.id();
    await bench.engine.create(bench.spec(id));
    await bench.engine.remove(id, { graceMs: 0 });
  }
  await assertClean(bench, "directories were in the way");
});

Deno.test("an agent killed at any step of create leaves what the next one's garbage collection removes", async () => {
  await using bench = await EngineBench.start();
  for (const step of CREATE_STEPS) {
    const stuck = Promise.withResolvers<void>();
    at(bench, "create", step, () => {
      stuck.resolve();
      return new Promise(() => {});
    });
    const id = bench.id();
    void bench.engine.create(bench.spec(id));
    await stuck.promise;
    const engine = await bench.newAgent();
    assert.deepEqual(await engine.list(), [], "a half-made container is not shown");
    await engine.collectGarbage();
    // Leases that an agent leaves end by themselves.
    const { leases } = await bench.client.leases.list({});
    for (const lease of leases) {
      assert.ok(lease.labels["containerd.io/gc.expire"], "a lease that never ends");
      await bench.client.leases.delete({ id: lease.id });
    }
    await assertClean(bench, `agent killed at create ${step}`);
  }
});

Deno.test("containerd killed at any step of create: it works out or leaves nothing", async () => {
  await using bench = await EngineBench.start();
  for (const step of CREATE_STEPS) {
    let back: Promise<void> | undefined;
    const seen = at(bench, "create", step, async () => {
      await bench.containerd.kill9();
      back = bench.containerd.start();
    });
    const id = bench.id();
    const error = await bench.engine.create(bench.spec(id)).then(() => undefined, (e) => e);
    await back;
    assert.ok(seen.reached, step);
    if (error === undefined) await bench.engine.remove(id, { graceMs: 0 });
    else assert.ok(error instanceof RuntimeError && error.code === "unavailable", String(error));
    await bench.engine.collectGarbage();
    await assertClean(bench, `containerd killed at create ${step}: ${error}`);
  }
});

Deno.test("what could not be undone while containerd was away is collected as soon as it answers again", async () => {
  await using bench = await EngineBench.start({ absenceMs: 50 });
  const isAway = (error: unknown) => error instanceof RuntimeError && error.code === "unavailable";
  for (const step of ["snapshot", "container", "task", "start"]) {
    const seen = at(bench, "create", step, () => bench.containerd.kill9());
    await assert.rejects(bench.engine.create(bench.spec(bench.id())), isAway);
    assert.ok(seen.reached);
    await bench.containerd.start();
    await assertClean(bench, `containerd was away from create ${step} on`);
  }
  const id = bench.id();
  await bench.engine.create(bench.spec(id, { args: ["true"] }));
  while ((await bench.engine.get(id)).status === "running") {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  at(bench, "restart", "task", () => bench.containerd.kill9());
  await assert.rejects(bench.engine.restart(id), isAway);
  await bench.containerd.start();
  while ((await bench.client.leases.list({})).leases.length > 0) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await bench.engine.restart(id);
  await bench.engine.remove(id, { graceMs: 0 });
  await assertClean(bench, "containerd was away from a restart on");
});

Deno.test("containerd killed in the middle of creating a task or starting it converges with no leak", async () => {
  await using bench = await EngineBench.start();
  for (const step of ["container", "task", "start"]) {
    for (const delayMs of [5, 20, 50, 100]) {
      let back: Promise<void> | undefined;
      at(bench, "create", step, () => {
        setTimeout(() => back = bench.containerd.kill9().then(() => bench.containerd.start()), delayMs);
      });
      const id = bench.id();
      const error = await bench.engine.create(bench.spec(id)).then(() => undefined, (e) => e);
      while (back === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
      await back;
      if (error === undefined) await bench.engine.remove(id, { graceMs: 0 });
      await bench.engine.collectGarbage();
      await assertClean(bench, `containerd killed ${delayMs} ms into create ${step}: ${error}`);
    }
  }
});

Deno.test("the shim killed before start: create fails and leaves nothing", async () => {
  await using bench = await EngineBench.start();
  const id = bench.id();
  at(bench, "create", "start", () => bench.containerd.shims(id).forEach((pid) => Deno.kill(pid, "SIGKILL")));
  await assert.rejects(bench.engine.create(bench.spec(id)), RuntimeError);
  await assertClean(bench, "shim killed before start");
});

Deno.test("the container killed before start: create fails or shows it as stopped, and remove leaves nothing", async () => {
  await using bench = await EngineBench.start();
  const id = bench.id();
  at(bench, "create", "start", async () => {
    const { process } = await bench.client.tasks.get({ containerId: id });
    Deno.kill(process!.pid, "SIGKILL");
  });
  await bench.engine.create(bench.spec(id)).catch((error) => assert.ok(error instanceof RuntimeError));
  await bench.engine.remove(id);
  await assertClean(bench, "container killed before start");
});

Deno.test("a remove that fails at any step is hidden, and finished by garbage collection", async () => {
  await using bench = await EngineBench.start();
  for (const step of REMOVE_STEPS) {
    const id = bench.id();
    await bench.engine.create(bench.spec(id));
    at(bench, "remove", step, boom);
    await assert.rejects(bench.engine.remove(id, { graceMs: 0 }), /boom/);
    const shown = (await bench.engine.list()).map((info) => info.id);
    assert.deepEqual(shown, step === "mark" ? [id] : [], step);
    if (step === "mark") await bench.engine.remove(id, { graceMs: 0 });
    else await (await bench.newAgent()).collectGarbage();
    await assertClean(bench, `remove failed at ${step}`);
  }
});

for (const victim of ["containerd", "shim", "container"] as const) {
  Deno.test(`${victim} killed at any step of remove: it is removed all the same`, async () => {
    await using bench = await EngineBench.start();
    for (const step of REMOVE_STEPS) {
      const id = bench.id();
      const { pid } = await bench.engine.create(bench.spec(id));
      let back: Promise<void> | undefined;
      const seen = at(bench, "remove", step, async () => {
        if (victim === "containerd") {
          await bench.containerd.kill9();
          back = bench.containerd.start();
        } else if (victim === "shim") {
          bench.containerd.shims(id).forEach((shim) => Deno.kill(shim, "SIGKILL"));
        } else if (REMOVE_STEPS.indexOf(step) <= REMOVE_STEPS.indexOf("stop")) {
          Deno.kill(pid, "SIGKILL");
        }
      });
      await bench.engine.remove(id, { graceMs: 200 });
      await back;
      assert.ok(seen.reached);
      await assertClean(bench, `${victim} killed at remove ${step}`);
    }
  });
}

Deno.test("containerd or the shim killed while a container takes its time to stop: it is removed all the same", async () => {
  await using bench = await EngineBench.start();
  for (const victim of ["containerd", "shim"]) {
    const id = bench.id();
    const args = ["sh", "-c", "trap : TERM; echo up; while :; do sleep 0.05; done"];
    await bench.engine.create(bench.spec(id, { args }));
    for await (const _ of bench.engine.logs(id, { follow: true })) break;
    const removed = bench.engine.remove(id, { graceMs: 300 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (victim === "containerd") {
      await bench.containerd.kill9();
      await bench.containerd.start();
    } else bench.containerd.shims(id).forEach((shim) => Deno.kill(shim, "SIGKILL"));
    await removed;
    await assertClean(bench, `${victim} killed during the grace period`);
  }
});

Deno.test("restart failed or interrupted at any step leaves a container that can be restarted and removed", async () => {
  await using bench = await EngineBench.start();
  const id = bench.id();
  await bench.engine.create(bench.spec(id, { args: ["true"] }));
  for (const step of RESTART_STEPS) {
    while ((await bench.engine.get(id)).status === "running") {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const seen = at(bench, "restart", step, boom);
    await assert.rejects(bench.engine.restart(id), /boom/);
    assert.ok(seen.reached, step);
    assert.match((await bench.engine.get(id)).status, /^(stopped|no-task)$/);
    assert.deepEqual((await bench.client.leases.list({})).leases, [], step);
    await bench.engine.restart(id);
  }
  await bench.engine.remove(id);
  await assertClean(bench, "restarts failed");
});
