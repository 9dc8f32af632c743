import assert from "node:assert/strict";
import { RuntimeError } from "../../runtime/errors.ts";
import { type Log, silentLog } from "../../runtime/log.ts";
import { FakeClock } from "../workloads/testing.ts";
import { MAX_CACHED_POLICIES, MAX_POLICY_BYTES } from "./limits.ts";
import type { PolicyObservation } from "./observation.ts";
import { POLICY_POLL_MS, PolicyStore } from "./store.ts";

const text = (name: string, rest = "") => `{"name":"${name}","mode":"enforce"${rest}}`;

/** A folder with a policy, a store on it, and what the store told. */
async function setUp(content = text("first")) {
  const dir = await Deno.makeTempDir({ prefix: "hc-policy-" });
  const file = `${dir}/cluster.json`;
  await Deno.writeTextFile(file, content);
  const clock = new FakeClock();
  const observed: PolicyObservation[] = [];
  const errors: string[] = [];
  const log: Log = { ...silentLog, error: (message, fields) => errors.push(`${message}: ${fields?.error}`) };
  const store = new PolicyStore({
    clusterPolicyFile: file,
    policyDir: dir,
    log,
    nowMs: () => clock.nowMs,
    setTimer: clock.setTimer,
    observe: (observation) => observed.push(observation),
  });
  const reloads = () => observed.flatMap((each) => each.kind === "reload" ? [each.outcome] : []);
  return {
    dir,
    file,
    clock,
    store,
    errors,
    reloads,
    /** Lets the next look at the file happen, and what comes of it. */
    async look() {
      clock.advance(POLICY_POLL_MS);
      while (clock.pending.length === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await Deno.remove(dir, { recursive: true });
    },
  };
}

/** Replaces a file as editors and operators do. */
async function replace(file: string, content: string): Promise<void> {
  await Deno.writeTextFile(`${file}.new`, content);
  await Deno.rename(`${file}.new`, file);
}

Deno.test("a policy is read at start and again when its file changes", async () => {
  await using test = await setUp();
  const { store, file, clock } = test;
  await store.start();
  assert.equal(store.current?.policy.name, "first");
  assert.equal(store.current?.source, file);
  const changes: string[] = [];
  store.onChange(() => changes.push(store.current!.policy.name));
  await test.look();
  assert.deepEqual(test.reloads(), [], "nothing has changed");
  await replace(file, text("second"));
  await test.look();
  assert.equal(store.current?.policy.name, "second");
  assert.equal(store.current?.loadedAtMs, clock.nowMs);
  assert.deepEqual(changes, ["second"]);
  assert.deepEqual(test.reloads(), ["ok"]);
});

Deno.test("a file that has become bad, or has gone, leaves the policy as it is and is told once", async () => {
  await using test = await setUp();
  const { store, file, errors } = test;
  await store.start();
  await replace(file, '{\n"name": "second",\n"mode": "maybe"}');
  await test.look();
  await test.look();
  assert.equal(store.current?.policy.name, "first");
  assert.match(store.reloadError, /line 3, mode: must be "enforce" or "permissive"/);
  assert.equal(errors.length, 1);
  assert.match(errors[0], /the new policy is not taken, the old one stays: .*line 3, mode/);
  await Deno.remove(file);
  await test.look();
  await test.look();
  assert.equal(store.current?.policy.name, "first");
  assert.match(store.reloadError, /No such file/);
  assert.equal(errors.length, 2);
  await replace(file, text("third"));
  await test.look();
  assert.equal(store.current?.policy.name, "third");
  assert.equal(store.reloadError, "");
  assert.deepEqual(test.reloads(), ["failed", "failed", "ok"]);
});

Deno.test("a reload that is asked for reads the file at once", async () => {
  await using test = await setUp();
  const { store, file } = test;
  await store.start();
  await replace(file, text("second"));
  assert.equal(await store.reload(), true);
  assert.equal(store.current?.policy.name, "second");
  await replace(file, "{");
  assert.equal(await store.reload(), false);
  assert.equal(store.current?.policy.name, "second");
});

Deno.test("a bad policy at start is an error that names file, line and key", async () => {
  await using test = await setUp('{"name":"a",\n"mode":"enforce",\n"rules":{"max_latency_ms":"x"}}');
  await assert.rejects(
    test.store.start(),
    new RegExp(`Cannot use policy "${test.file}": line 3, rules.max_latency_ms: must be a number`),
  );
});

Deno.test("a file that is too large is not read", async () => {
  await using test = await setUp(" ".repeat(MAX_POLICY_BYTES + 1));
  await assert.rejects(test.store.start(), /at most 262144 are read/);
});

Deno.test("without a file there is no policy, and nothing to reload", async () => {
  const clock = new FakeClock();
  await using store = new PolicyStore({
    policyDir: "/nonexistent",
    log: silentLog,
    nowMs: () => 0,
    setTimer: clock.setTimer,
  });
  await store.start();
  assert.equal(store.current, undefined);
  assert.equal(await store.reload(), true);
  assert.deepEqual(clock.pending, []);
});

Deno.test("policies are found by name in the folder, read again when they change, and never outside it", async () => {
  await using test = await setUp();
  const { store, dir } = test;
  await Deno.writeTextFile(`${dir}/strict.json`, text("strict"));
  const first = await store.named("strict");
  assert.equal(first.policy.name, "strict");
  assert.equal(await store.named("strict"), first, "an unchanged file is not read again");
  await replace(`${dir}/strict.json`, text("strict", ',"description":"new"'));
  assert.equal((await store.named("strict")).policy.description, "new");
  const rejects = (name: string, code: string) =>
    assert.rejects(
      store.named(name),
      (error: unknown) => error instanceof RuntimeError && error.code === code,
    );
  await rejects("none", "not-found");
  for (const name of ["../cluster", "a/b", "", ".", "..", "a..b", "x".repeat(129)]) {
    await rejects(name, "invalid");
  }
  await Deno.writeTextFile(`${dir}/bad.json`, "{");
  await rejects("bad", "invalid");
});

Deno.test("so many policies are kept, and no more", async () => {
  await using test = await setUp();
  const { store, dir } = test;
  for (let i = 0; i <= MAX_CACHED_POLICIES; i++) await Deno.writeTextFile(`${dir}/p${i}.json`, text(`p${i}`));
  const first = await store.named("p0");
  for (let i = 1; i < MAX_CACHED_POLICIES; i++) await store.named(`p${i}`);
  assert.equal(await store.named("p0"), first);
  await store.named(`p${MAX_CACHED_POLICIES}`);
  assert.notEqual(await store.named("p0"), first);
});
