import assert from "node:assert/strict";
import { RuntimeError } from "../../runtime/errors.ts";
import { silentLog } from "../../runtime/log.ts";
import { MemoryEngine } from "../../runtime/testing/memory_engine.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { drain, FakeClock, request, settle, startManager } from "../workloads/testing.ts";
import type { ProofBody } from "./body.ts";
import { peekLine } from "./entry.ts";
import { MAX_CONCURRENT_PROOFS, ProofKeeper, type ProofObservation, TELL_DELAY_MS } from "./keeper.ts";
import { ProofLogs } from "./log_store.ts";
import { verifyMessage } from "./message.ts";

const INTERVAL_MS = 60_000;

/** A node's workloads with their proofs; parts that are given outlive it. */
async function startKeeper(
  dir: string,
  parts: Partial<Awaited<ReturnType<typeof startManager>>> & {
    identity?: ReturnType<typeof memoryIdentity>;
  } = {},
) {
  const identity = parts.identity ?? memoryIdentity();
  const clock = parts.clock ?? new FakeClock();
  const observed: ProofObservation[] = [];
  // A clock of its own, that no test sets back.
  const monotonic = { ms: clock.nowMs };
  /** Of the time of day. */
  const skew = { ms: 0 };
  const logs = new ProofLogs({ dir: `${dir}/proofs`, log: silentLog });
  const engine = parts.engine ?? new MemoryEngine({ nowMs: () => clock.nowMs });
  let keeper!: ProofKeeper;
  let cutOff = () => {};
  /** Awaited before each event is told. */
  const slow = { events: Promise.resolve() };
  const told = { times: 0 };
  const { manager, proxy } = await startManager({
    ...parts,
    engine,
    clock,
    beforeStart(manager) {
      keeper = new ProofKeeper({
        workloads: {
          list: () => manager.list(),
          find: (id) => manager.find(id),
          async *watch(signal) {
            const cut = new AbortController();
            cutOff = () => cut.abort();
            for await (const event of manager.watch(AbortSignal.any([signal, cut.signal]))) {
              await slow.events;
              yield event;
            }
            if (!signal.aborted) throw new RuntimeError("exhausted", "Cannot follow the events: too slow");
          },
        },
        engine,
        identity,
        logs,
        log: silentLog,
        intervalMs: INTERVAL_MS,
        nowMs: () => clock.nowMs + skew.ms,
        monotonicMs: () => monotonic.ms,
        setTimer: clock.setTimer,
        onProofs: () => told.times++,
        observe: (observation) => observed.push(observation),
      });
      keeper.start();
    },
  });
  await keeper.resume();
  const quiet = async () => {
    for (let i = 0; i < 3; i++) {
      await settle();
      await keeper.settled();
    }
  };
  await quiet();
  return {
    manager,
    engine,
    proxy,
    clock,
    skew,
    identity,
    keeper,
    logs,
    observed,
    quiet,
    told,
    cutOff: () => cutOff(),
    slow,
    async pass(ms: number) {
      monotonic.ms += ms;
      clock.advance(ms);
      await quiet();
    },
    bodies: async (id: string) => (await logs.lines(id)).map((line) => peekLine(line)!.body as ProofBody),
    async stop() {
      await keeper[Symbol.asyncDispose]();
      await manager[Symbol.asyncDispose]();
    },
  };
}

async function inTempDir(test: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await test(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("a workload is proven at its start, each interval, at a crash, at its restart and at its stop", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { manager, engine, clock, keeper, identity } = node;
    const workload = await manager.spawn(request());
    await node.quiet();
    await node.pass(INTERVAL_MS);
    await node.pass(INTERVAL_MS);
    engine.exit(workload.id, 3);
    await node.quiet();
    await node.pass(1_000);
    await node.pass(INTERVAL_MS);
    assert("body" in verifyMessage(workload.proof!, { claim: identity, workload: workload.id }));
    const stopping = manager.stop(workload.id);
    await drain(clock, stopping);
    await node.quiet();
    const bodies = await node.bodies(workload.id);
    assert.deepEqual(bodies.map(({ kind }) => kind), [
      "start",
      "interval",
      "interval",
      "exit",
      "start",
      "interval",
      "stop",
    ]);
    assert.deepEqual(bodies.map(({ generation }) => generation), [1, 1, 1, 1, 2, 2, 2]);
    assert.deepEqual(bodies.map(({ wall_ms }) => wall_ms), [0, 60_000, 120_000, 120_000, 0, 60_000, 60_000]);
    assert.deepEqual(bodies.map(({ measured }) => measured), [
      "live",
      "live",
      "live",
      "last",
      "live",
      "live",
      "last",
    ]);
    assert.deepEqual([bodies[2].cpu_us, bodies[3].exit_code, bodies[6].exit_code], [60_000_000, 3, 143]);
    const verdict = await keeper.verify(workload.id);
    assert(verdict.result === "VALID", JSON.stringify(verdict));
    assert.deepEqual([verdict.summary.count, verdict.summary.wallMs], [7, 180_000]);
    assert.equal(node.observed.filter(({ kind }) => kind === "generated").length, 7);
    assert(node.observed.some(({ kind }) => kind === "aggregated"));
    await node.stop();
  }));

Deno.test("an agent that starts again carries the chain on, whatever happened meanwhile", () =>
  inTempDir(async (dir) => {
    const first = await startKeeper(dir);
    const [stays, ends, vanishes] = [
      await first.manager.spawn(request()),
      await first.manager.spawn(request({ ports: {} })),
      await first.manager.spawn(request({ ports: {} })),
    ];
    await first.quiet();
    await first.pass(INTERVAL_MS);
    await first.stop();
    const { clock, engine, identity, proxy } = first;
    clock.nowMs += 30_000;
    engine.exit(ends.id, 9);
    await engine.remove(vanishes.id);
    clock.nowMs += 30_000;
    const second = await startKeeper(dir, { clock, engine, identity, proxy });
    await second.pass(INTERVAL_MS);
    const kinds = async (id: string) => (await second.bodies(id)).map(({ kind }) => kind);
    assert.deepEqual(await kinds(stays.id), ["start", "interval", "resume", "interval"]);
    assert.deepEqual(await kinds(ends.id), ["start", "interval", "exit", "start"]);
    assert.deepEqual((await second.bodies(ends.id)).map(({ wall_ms }) => wall_ms).slice(0, 4), [
      0,
      60_000,
      90_000,
      0,
    ]);
    assert.deepEqual(await kinds(vanishes.id), ["start", "interval", "gone"]);
    assert.equal((await second.bodies(ends.id))[2].exit_code, 9);
    for (const { id } of [stays, ends, vanishes]) {
      const verdict = await second.keeper.verify(id);
      assert.equal(verdict.result, "VALID", JSON.stringify(verdict));
    }
    assert.equal((await second.bodies(stays.id))[3].wall_ms, 180_000);
    await second.stop();
    // What is gone stays gone.
    const third = await startKeeper(dir, { clock, engine, identity, proxy });
    assert.deepEqual(await kinds(vanishes.id), ["start", "interval", "gone"]);
    await third.stop();
  }));

Deno.test("a clock that is set back, or far ahead, makes no proof contradict another", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    await node.pass(INTERVAL_MS);
    for (const jumpMs of [-1_000_000, 50_000_000, -3_600_000]) {
      node.skew.ms += jumpMs;
      await node.pass(INTERVAL_MS);
    }
    node.engine.exit(id, 1);
    await node.quiet();
    const bodies = await node.bodies(id);
    assert.equal(bodies.length, 6);
    assert(bodies.every(({ at_ms }, i) => i === 0 || at_ms >= bodies[i - 1].at_ms));
    const verdict = await node.keeper.verify(id);
    assert.equal(verdict.result, "VALID", JSON.stringify(verdict));
    await node.stop();
  }));

Deno.test("a workload that cannot be measured is proven without figures, and no figure shrinks", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    await node.pass(INTERVAL_MS);
    node.engine.failNext("metrics", new RuntimeError("timeout", "Cannot call: no answer"));
    await node.pass(INTERVAL_MS);
    node.engine.use(id, { cpuUs: 5, memoryPeakBytes: undefined, memoryBytes: 7 });
    await node.pass(INTERVAL_MS);
    const [, second, third, fourth] = await node.bodies(id);
    assert.deepEqual([third.measured, third.cpu_us, third.wall_ms], ["none", second.cpu_us, 120_000]);
    assert.deepEqual([fourth.cpu_us, fourth.memory_bytes], [second.cpu_us, 7]);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    await node.stop();
  }));

Deno.test("a rotation of the node's key is carried into the running logs", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    await node.identity.rotate(1);
    await node.pass(INTERVAL_MS);
    const keys = (await node.logs.lines(id)).map((line) => peekLine(line)!.key);
    assert.equal(new Set(keys).size, 2);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    await node.stop();
  }));

Deno.test("what somebody does to a log on the disk is seen, a cut end too", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    for (let i = 0; i < 3; i++) await node.pass(INTERVAL_MS);
    const path = `${dir}/proofs/${id}.jsonl`;
    const text = await Deno.readTextFile(path);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    assert.equal((await node.keeper.verify(id, { wantedHash: "0".repeat(64) })).result, "UNKNOWN");
    const lines = text.split("\n");
    const changes = [
      text.replace('"cpu_us":3', '"cpu_us":4'),
      lines.toSpliced(1, 1).join("\n"),
      lines.toSpliced(-2, 1).join("\n"),
    ];
    for (const changed of changes) {
      await Deno.writeTextFile(path, changed);
      assert.equal((await node.keeper.verify(id)).result, "INVALID");
    }
    await Deno.writeTextFile(path, text);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    await node.stop();
  }));

Deno.test("a disk that takes no proof costs that proof only", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    await Deno.rename(`${dir}/proofs`, `${dir}/away`);
    await node.pass(INTERVAL_MS);
    assert.equal(node.observed.filter(({ kind }) => kind === "failed").length, 1);
    await Deno.rename(`${dir}/away`, `${dir}/proofs`);
    await node.pass(INTERVAL_MS);
    assert.deepEqual((await node.bodies(id)).map(({ seq }) => seq), [1, 2]);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    await node.stop();
  }));

Deno.test("the logs of stopped workloads go when their time is over", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    await drain(node.clock, node.manager.stop(id));
    await node.quiet();
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    // The file's time is the machine's.
    node.clock.nowMs = Date.now() + 25 * 3_600_000;
    await node.pass(10 * INTERVAL_MS);
    // Nobody waits for that work.
    while ((await node.logs.ids()).length > 0) await node.quiet();
    assert.equal((await node.keeper.verify(id)).result, "UNKNOWN");
    await node.stop();
  }));

Deno.test("however many workloads are due, so many are measured at once", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    for (let i = 0; i < 3 * MAX_CONCURRENT_PROOFS; i++) {
      await node.manager.spawn(request({ ports: {}, milliCpus: 100 }));
    }
    await node.quiet();
    let atOnce = 0;
    let most = 0;
    const measure = node.engine.metrics.bind(node.engine);
    node.engine.metrics = async (id) => {
      most = Math.max(most, ++atOnce);
      await settle();
      atOnce--;
      return await measure(id);
    };
    await node.pass(INTERVAL_MS);
    for (const { id } of node.manager.list()) {
      while ((await node.bodies(id)).length < 2) await node.quiet();
    }
    assert.equal(most, MAX_CONCURRENT_PROOFS);
    // The starts were told of once, and so is the round.
    assert.equal(node.told.times, 1);
    await node.pass(TELL_DELAY_MS);
    assert.equal(node.told.times, 2);
    await node.stop();
  }));

Deno.test("a run begins with its start, and has one, when the timer comes before what tells of it", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { promise, resolve } = Promise.withResolvers<void>();
    node.slow.events = promise;
    const { id } = await node.manager.spawn(request());
    await node.pass(INTERVAL_MS);
    assert.deepEqual((await node.bodies(id)).map(({ kind }) => kind), ["start"]);
    resolve();
    await node.quiet();
    await node.pass(INTERVAL_MS);
    assert.deepEqual((await node.bodies(id)).map(({ kind }) => kind), ["start", "interval"]);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    await node.stop();
  }));

Deno.test("a keeper that was cut off from the events notices what has gone meanwhile", () =>
  inTempDir(async (dir) => {
    const node = await startKeeper(dir);
    const { id } = await node.manager.spawn(request());
    await node.quiet();
    const { nodeId } = node.identity;
    assert.equal((await node.bodies(id))[0].node, nodeId);
    node.engine.exit(id, 1);
    await node.quiet();
    node.cutOff();
    await drain(node.clock, node.manager.stop(id));
    await node.quiet();
    await node.pass(1_000);
    await node.quiet();
    assert.deepEqual((await node.bodies(id)).map(({ kind }) => kind), ["start", "exit", "gone"]);
    assert.equal((await node.keeper.verify(id)).result, "VALID");
    await node.stop();
  }));
