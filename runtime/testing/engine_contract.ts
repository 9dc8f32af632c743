import assert from "node:assert/strict";
import type { ContainerEngine, ContainerEvent, ContainerSpec } from "../engine.ts";
import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";

/** An engine under test, and what the tests can't do through its interface. */
export interface EngineUnderTest extends AsyncDisposable {
  engine: ContainerEngine;
  /** An id nobody else has. */
  id(): string;
  /** A container that runs until it is stopped. */
  spec(id: string, options?: Partial<ContainerSpec>): ContainerSpec;
  /** Kills the container's init process. */
  crash(id: string): Promise<void>;
  /** Makes the container use more memory than it may. */
  exhaustMemory(id: string): Promise<void>;
  /** Takes containerd away and brings it back. */
  restartContainerd(): Promise<void>;
}

/** Registers the tests that every {@linkcode ContainerEngine} passes. */
export function engineContract(name: string, open: () => Promise<EngineUnderTest>): void {
  const test = (sentence: string, body: (under: EngineUnderTest) => Promise<void>) =>
    Deno.test(`${name}: ${sentence}`, async () => {
      await using under = await open();
      await body(under);
    });

  test("a created container runs, and is listed with what it was created with", async ({ engine, id, spec }) => {
    const [a, b] = [id(), id()];
    const info = await engine.create(spec(a, { labels: { k: "v" } }));
    await engine.create(spec(b));
    assert.equal(info.status, "running");
    assert.ok(info.pid > 0 && info.address !== undefined && info.createdAtMs > 0);
    assert.deepEqual(info.labels, { k: "v" });
    assert.deepEqual((await engine.list()).map((container) => container.id).sort(), [a, b].sort());
    assert.deepEqual(await engine.get(a), info);
    assert.equal((await engine.spec(a)).hostname, a);
  });

  test("network rules are kept, also over a restart, and can be changed", async ({ engine, id, spec, crash }) => {
    const a = id();
    const rules = { egress: [{ cidr: "10.0.0.0/8", protocol: "any" as const }] };
    const info = await engine.create(spec(a, { networkRules: rules }));
    assert.deepEqual(info.networkRules, rules);
    await crash(a);
    assert.deepEqual((await engine.restart(a)).networkRules, rules);
    await engine.setNetworkRules(a, { ingressPorts: [] });
    assert.deepEqual((await engine.get(a)).networkRules, { ingressPorts: [] });
    await engine.setNetworkRules(a, undefined);
    assert.equal((await engine.get(a)).networkRules, undefined);
  });

  test("an id can be had once, also by two at the same time", async ({ engine, id, spec }) => {
    const a = id();
    const results = await Promise.allSettled([engine.create(spec(a)), engine.create(spec(a))]);
    assert.deepEqual(results.map((result) => result.status), ["fulfilled", "rejected"]);
    assertCode((results[1] as PromiseRejectedResult).reason, "already-exists");
    await rejects(engine.create(spec(a)), "already-exists");
    assert.equal((await engine.get(a)).status, "running");
  });

  test("what is no id is refused everywhere and changes nothing", async ({ engine, spec }) => {
    for (const bad of ["", "../../etc/shadow", "a/b", "-a", "a b", "a\0", "x".repeat(77)]) {
      await rejects(engine.create(spec(bad)), "invalid");
      await rejects(engine.restart(bad), "invalid");
      await rejects(engine.remove(bad), "invalid");
      await rejects(engine.get(bad), "invalid");
      await rejects(engine.spec(bad), "invalid");
      await rejects(engine.setLabels(bad, {}), "invalid");
      await rejects(engine.setNetworkRules(bad, undefined), "invalid");
      await rejects(engine.metrics(bad), "invalid");
      await rejects(engine.exec(bad, { args: ["true"] }), "invalid");
      await rejects(engine.attach(bad, {}), "invalid");
      await rejects(engine.logs(bad)[Symbol.asyncIterator]().next(), "invalid");
    }
    assert.deepEqual(await engine.list(), []);
  });

  test("what is not there is not found, and removing it is fine", async ({ engine, id }) => {
    const a = id();
    await rejects(engine.get(a), "not-found");
    await rejects(engine.spec(a), "not-found");
    await rejects(engine.restart(a), "not-found");
    await rejects(engine.setLabels(a, { k: "v" }), "not-found");
    await rejects(engine.setNetworkRules(a, { egress: [] }), "not-found");
    await rejects(engine.metrics(a), "not-found");
    await rejects(engine.exec(a, { args: ["true"] }), "not-found");
    await rejects(engine.attach(a, {}), "not-found");
    await rejects(engine.logs(a)[Symbol.asyncIterator]().next(), "not-found");
    await engine.remove(a);
  });

  test("an image that can't be had leaves no container", async ({ engine, id, spec }) => {
    const a = id();
    await rejects(engine.create(spec(a, { image: "127.0.0.1:1/missing:1" })), "not-found", "unavailable");
    assert.deepEqual(await engine.list(), []);
    await engine.create(spec(a));
  });

  test("a create that is canceled leaves no container", async ({ engine, id, spec }) => {
    const abort = new AbortController();
    const a = id();
    await rejects(
      engine.create(spec(a), { signal: abort.signal, onStep: () => abort.abort(new Error("enough")) }),
      "canceled",
    );
    await rejects(engine.create(spec(a), { signal: AbortSignal.abort() }), "canceled");
    assert.deepEqual(await engine.list(), []);
  });

  test("users are told how a start goes", async ({ engine, id, spec }) => {
    const steps: string[] = [];
    await engine.create(spec(id()), { onStep: (step) => steps.push(step) });
    assert.deepEqual(steps, ["unpacking", "network", "starting"]);
  });

  test("labels are merged, of any length, and survive a restart", async (under) => {
    const { engine, id, spec } = under;
    const a = id();
    const long = "x".repeat(20_000);
    await engine.create(spec(a, { labels: { a: "1", long } }));
    await engine.setLabels(a, { b: "2", a: "3" });
    assert.deepEqual((await engine.get(a)).labels, { a: "3", b: "2", long });
    await under.crash(a);
    await engine.restart(a, { labels: { b: "4" } });
    assert.deepEqual((await engine.get(a)).labels, { a: "3", b: "4", long });
  });

  test("a crash is an exit event, and the container can be restarted where it was", async (under) => {
    const { engine, id, spec } = under;
    const a = id();
    const before = await engine.create(spec(a));
    await using events = watch(engine);
    assert.deepEqual(await events.next(), { type: "resync" });
    await rejects(engine.restart(a), "precondition");
    await under.crash(a);
    const exit = await events.until("exit", a);
    assert.deepEqual([exit.exitCode, exit.pid], [137, before.pid]);
    const stopped = await engine.get(a);
    assert.deepEqual([stopped.status, stopped.exitCode, stopped.exitedAtMs], ["stopped", 137, exit.atMs]);
    await rejects(engine.exec(a, { args: ["true"] }), "precondition");
    const after = await engine.restart(a);
    assert.equal(after.status, "running");
    assert.equal(after.address, before.address);
    assert.equal(after.createdAtMs, before.createdAtMs);
    assert.notEqual(after.pid, before.pid);
  });

  test("a running container is measured, and its figures only grow", async ({ engine, id, spec }) => {
    const a = id();
    const { pid } = await engine.create(spec(a));
    const first = await engine.metrics(a);
    assert.deepEqual([first.pid, first.isLast, first.exitCode], [pid, false, undefined]);
    assert.ok(first.atMs > 0 && first.ageMs !== undefined && first.memoryBytes > 0 && first.pids > 0);
    let next = first;
    while (next.cpuUs === first.cpuUs) next = await engine.metrics(a);
    assert.ok(next.cpuUs > first.cpuUs && next.cpuKernelUs >= first.cpuKernelUs);
    assert.ok(next.ageMs! >= first.ageMs && next.ioWriteBytes >= first.ioWriteBytes);
    assert.ok((next.memoryPeakBytes ?? next.memoryBytes) >= next.memoryBytes);
  });

  test("the last figures of a task outlive it: its exit, its restart and its removal", async (under) => {
    const { engine, id, spec } = under;
    const a = id();
    await engine.create(spec(a));
    const before = await engine.metrics(a);
    await under.crash(a);
    const ended = await engine.metrics(a);
    assert.deepEqual([ended.pid, ended.isLast, ended.exitCode, ended.ageMs], [
      before.pid,
      true,
      137,
      undefined,
    ]);
    assert.ok(ended.cpuUs >= before.cpuUs);
    const { pid } = await engine.restart(a);
    const again = await engine.metrics(a);
    assert.deepEqual([again.pid, again.isLast], [pid, false]);
    await engine.remove(a);
    const last = await engine.metrics(a);
    assert.deepEqual([last.pid, last.isLast], [pid, true]);
    assert.ok(last.cpuUs >= again.cpuUs);
  });

  test("running out of memory is an oom event and an exit with 137", async (under) => {
    const { engine, id, spec } = under;
    const a = id();
    await engine.create(spec(a, { memoryBytes: 16 << 20 }));
    await using events = watch(engine);
    assert.deepEqual(await events.next(), { type: "resync" });
    await under.exhaustMemory(a);
    // The kernel kills before it tells, so the two come in either order.
    const exitCodes: Partial<Record<ContainerEvent["type"], number>> = {};
    while (!("oom" in exitCodes && "exit" in exitCodes)) {
      const event = await events.next();
      if (event.type !== "resync" && event.id === a) {
        exitCodes[event.type] = event.type === "exit" ? event.exitCode : 0;
      }
    }
    assert.equal(exitCodes.exit, 137);
  });

  test("a restart of containerd loses no container, and watchers hear of it", async (under) => {
    const { engine, id, spec } = under;
    const a = id();
    const before = await engine.create(spec(a));
    await using events = watch(engine);
    assert.deepEqual(await events.next(), { type: "resync" });
    await under.restartContainerd();
    assert.deepEqual(await events.next(), { type: "resync" });
    assert.deepEqual(await engine.get(a), before);
    await under.crash(a);
    await events.until("exit", a);
    await engine.restart(a);
  });

  test("remove stops what runs and can be done again, by two at the same time too", async (under) => {
    const { engine, id, spec } = under;
    const [a, b] = [id(), id()];
    await engine.create(spec(a));
    await engine.create(spec(b));
    await Promise.all([engine.remove(a), engine.remove(a)]);
    await under.crash(b);
    await engine.remove(b);
    await engine.remove(b);
    assert.deepEqual(await engine.list(), []);
    await engine.create(spec(a));
  });

  test("create and remove of one id at the same time follow each other", async ({ engine, id, spec }) => {
    const a = id();
    await Promise.all([
      engine.create(spec(a)),
      engine.remove(a, { graceMs: 0 }),
      engine.create(spec(a)),
      engine.remove(a, { graceMs: 0 }),
    ]);
    assert.deepEqual(await engine.list(), []);
  });

  test("garbage collection leaves containers and creations alone", async ({ engine, id, spec }) => {
    const [a, b] = [id(), id()];
    await engine.create(spec(a));
    const creating = engine.create(spec(b));
    await Promise.all([engine.collectGarbage(), engine.collectGarbage(), creating, engine.collectGarbage()]);
    assert.deepEqual((await engine.list()).map((container) => container.status), ["running", "running"]);
    const report = await engine.collectGarbage();
    assert.ok(Object.values(report).every((count) => count === 0), JSON.stringify(report));
  });

  test("runc is among the runtimes that work", async ({ engine }) => {
    assert.ok((await engine.runtimes()).includes("runc"));
  });

  test("its health names containerd's version", async ({ engine }) => {
    const { version, socket } = await engine.health();
    assert.ok(version !== "" && socket.startsWith("/"));
  });
}

/** Events one by one; dispose ends the watch. */
function watch(engine: ContainerEngine) {
  const end = new AbortController();
  const events = engine.watch(end.signal)[Symbol.asyncIterator]();
  const next = async (): Promise<ContainerEvent> => {
    const { value, done } = await events.next();
    assert.ok(!done, "the events ended");
    return value;
  };
  return {
    next,
    async until<T extends "exit" | "oom">(
      type: T,
      id: string,
    ): Promise<Extract<ContainerEvent, { type: T }>> {
      for (;;) {
        const event = await next();
        if (event.type === type && event.id === id) return event as Extract<ContainerEvent, { type: T }>;
      }
    },
    async [Symbol.asyncDispose]() {
      end.abort();
      while (!(await events.next()).done);
    },
  };
}

async function rejects(promise: Promise<unknown>, ...codes: RuntimeErrorCode[]): Promise<void> {
  assertCode(await promise.then(() => undefined, (error) => error), ...codes);
}

function assertCode(error: unknown, ...codes: RuntimeErrorCode[]): void {
  assert.ok(error instanceof RuntimeError, `expected ${codes}, got ${error}`);
  assert.ok(codes.includes(error.code), `expected ${codes}, got ${error.code}: ${error.message}`);
  assert.match(error.message, /^Cannot /);
}
