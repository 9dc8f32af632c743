import assert from "node:assert/strict";
import type { ContainerEvent } from "../engine.ts";
import { assertClean, EngineBench } from "./testing.ts";

/** Reads events until one matches. */
async function until(
  events: AsyncIterator<ContainerEvent>,
  matches: (event: ContainerEvent) => boolean,
): Promise<ContainerEvent> {
  for (;;) {
    const { value, done } = await events.next();
    assert.ok(!done, "the events ended");
    if (matches(value)) return value;
  }
}

Deno.test("a container is created, listed, restarted and removed, and leaves nothing", async () => {
  await using bench = await EngineBench.start();
  const { engine } = bench;
  const id = bench.id();
  const steps: string[] = [];
  const info = await engine.create(bench.spec(id, { labels: { a: "1" } }), {
    onStep: (step) => steps.push(step),
  });
  assert.deepEqual(steps, ["unpacking", "network", "starting"]);
  assert.equal(info.status, "running");
  assert.match(info.address!, /^192\.168\.127\.\d+$/);
  assert.deepEqual(await engine.list(), [await engine.get(id)]);
  assert.deepEqual({ ...await engine.get(id) }, info);
  const end = new AbortController();
  const events = engine.watch(end.signal)[Symbol.asyncIterator]();
  await until(events, (event) => event.type === "resync");
  Deno.kill(info.pid, "SIGKILL");
  const exit = await until(events, (event) => event.type === "exit" && event.id === id);
  assert.ok(exit.type === "exit" && exit.exitCode === 137 && exit.pid === info.pid);
  end.abort();
  assert.equal((await engine.get(id)).status, "stopped");
  const again = await engine.restart(id, { labels: { b: "2" } });
  assert.deepEqual([again.status, again.address, again.labels], ["running", info.address, {
    a: "1",
    b: "2",
  }]);
  await engine.remove(id);
  assert.deepEqual(await engine.list(), []);
  await engine.remove(id);
  assert.deepEqual(await bench.leftovers(), []);
});

Deno.test("an exit while containerd is away is heard of when it is back, and seen in the list", async () => {
  await using bench = await EngineBench.start();
  const { engine } = bench;
  const id = bench.id();
  const { pid } = await engine.create(bench.spec(id));
  const end = new AbortController();
  const events = engine.watch(end.signal)[Symbol.asyncIterator]();
  await until(events, (event) => event.type === "resync");
  await bench.containerd.kill9();
  Deno.kill(pid, "SIGKILL");
  await bench.containerd.start();
  await until(events, (event) => event.type === "resync");
  // Either the list says so now, or the shim's event is still to come: nothing falls in between.
  if ((await engine.get(id)).status === "running") {
    await until(events, (event) => event.type === "exit" && event.id === id);
  }
  // 1.6 keeps the ended task, later ones delete it when they find its process gone.
  assert.match((await engine.get(id)).status, /^(stopped|no-task)$/);
  end.abort();
  await engine.restart(id);
  await engine.remove(id, { graceMs: 0 });
  await assertClean(bench, "an exit while containerd was away");
});

Deno.test("a container whose shim was killed has no task, and can be restarted", async () => {
  await using bench = await EngineBench.start();
  const { engine } = bench;
  const id = bench.id();
  await engine.create(bench.spec(id));
  const end = new AbortController();
  const events = engine.watch(end.signal)[Symbol.asyncIterator]();
  await until(events, (event) => event.type === "resync");
  for (const shim of bench.containerd.shims(id)) Deno.kill(shim, "SIGKILL");
  await until(events, (event) => event.type === "exit" && event.id === id);
  end.abort();
  const restarted = await engine.restart(id);
  assert.equal(restarted.status, "running");
  await engine.remove(id, { graceMs: 0 });
  await assertClean(bench, "the shim was killed");
});

Deno.test("a task whose record somebody deleted is removed all the same, by name and by garbage collection", async () => {
  await using bench = await EngineBench.start();
  const { engine } = bench;
  for (const remove of [(id: string) => engine.remove(id, { graceMs: 0 }), () => engine.collectGarbage()]) {
    const id = bench.id();
    await engine.create(bench.spec(id));
    await bench.client.containers.delete({ id });
    await remove(id);
    await (await bench.newAgent()).collectGarbage();
    assert.deepEqual(await bench.leftovers(), []);
  }
});

Deno.test("a paused container, and one that ignores its stop signal, are removed", async () => {
  await using bench = await EngineBench.start();
  const { engine } = bench;
  const [paused, deaf] = [bench.id(), bench.id()];
  await engine.create(bench.spec(paused));
  await bench.client.tasks.pause({ containerId: paused });
  assert.equal((await engine.get(paused)).status, "paused");
  await engine.remove(paused);
  await engine.create(bench.spec(deaf, { args: ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"] }));
  await engine.remove(deaf, { graceMs: 50 });
  assert.deepEqual(await bench.leftovers(), []);
});

Deno.test("closing the engine undoes what is being created and lets containers run", async () => {
  await using bench = await EngineBench.start();
  const [running, creating] = [bench.id(), bench.id()];
  await bench.engine.create(bench.spec(running));
  const reached = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  bench.observe = (_operation, step) => {
    if (step !== "task") return;
    reached.resolve();
    return release.promise;
  };
  const created = bench.engine.create(bench.spec(creating)).then(() => undefined, (error) => error);
  await reached.promise;
  const closed = bench.engine[Symbol.asyncDispose]();
  release.resolve();
  await closed;
  assert.equal((await created).code, "canceled");
  bench.observe = undefined;
  const engine = await bench.newAgent();
  assert.deepEqual((await engine.list()).map(({ id, status }) => [id, status]), [[running, "running"]]);
  await engine.remove(running, { graceMs: 0 });
  assert.deepEqual(await bench.leftovers(), []);
});

Deno.test("another's container in the same namespace is neither shown nor collected", async () => {
  await using bench = await EngineBench.start();
  const spec = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", value: new Uint8Array() };
  const container = { id: "theirs", runtime: { name: "io.containerd.runc.v2" }, spec };
  await bench.client.containers.create({ container });
  assert.deepEqual(await bench.engine.list(), []);
  await bench.engine.collectGarbage();
  await bench.client.containers.get({ id: "theirs" });
});
