import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { ContainerSchema } from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import { RuntimeError } from "../errors.ts";
import { silentLog } from "../log.ts";
import { KeyedMutex } from "../keyed_mutex.ts";
import { cgroupHierarchies, shimId } from "./lost_processes.ts";
import { decodeLabels, decodeRecord, encodeLabels, MAX_LABELS_BYTES, recordLabels } from "./record.ts";
import { DEFAULT_STOP_SIGNAL, stopSignalNumber } from "./signals.ts";
import { runSteps } from "./steps.ts";

Deno.test("a stop signal is a name or a number; what is none counts as SIGTERM", () => {
  const cases: [string | undefined, number][] = [
    ["SIGTERM", 15],
    ["SIGQUIT", 3],
    ["quit", 3],
    ["9", 9],
    ["SIGRTMIN", 34],
    ["SIGRTMIN+3", 37],
    ["RTMAX-1", 63],
    ["SIGWINCH", 28],
    [undefined, DEFAULT_STOP_SIGNAL],
    ["", DEFAULT_STOP_SIGNAL],
    ["0", DEFAULT_STOP_SIGNAL],
    ["65", DEFAULT_STOP_SIGNAL],
    ["SIGRTMAX+1", DEFAULT_STOP_SIGNAL],
    ["; rm -rf /", DEFAULT_STOP_SIGNAL],
  ];
  for (const [text, number] of cases) assert.equal(stopSignalNumber(text), number, `${text}`);
});

Deno.test("labels of any length go through a record and come back", () => {
  const labels = {
    short: "1",
    long: "x".repeat(100_000),
    edge: "y".repeat(4092),
    "edge+1": "z".repeat(4096),
  };
  const encoded = encodeLabels("c", labels);
  assert.deepEqual(Object.keys(encoded.labels), ["short", "edge"]);
  assert.deepEqual(decodeLabels(create(ContainerSchema, { id: "c", ...encoded })), labels);
});

Deno.test("too many bytes of labels are refused by name", () => {
  assert.throws(() => encodeLabels("c", { a: "x".repeat(MAX_LABELS_BYTES) }), (error) => {
    assert.ok(error instanceof RuntimeError && error.code === "invalid");
    assert.match(
      error.message,
      /^Cannot label container "c": \d+ bytes of labels, and 1048576 are the most$/,
    );
    return true;
  });
});

Deno.test("a container without the engine's labels is not ours; one with a broken label still is", () => {
  assert.equal(decodeRecord(create(ContainerSchema, { id: "c", labels: { a: "1" } })), undefined);
  const labels = { ...recordLabels({ phase: "ready", tty: true }), "hypercore.engine/stopSignal": "{" };
  const record = decodeRecord(create(ContainerSchema, { id: "c", labels }));
  assert.deepEqual([record?.phase, record?.tty, record?.stopSignal], ["ready", true, 15]);
});

Deno.test("only a shim of this socket and namespace is ours, whatever the order of its arguments", () => {
  const owner = { socket: "/s", namespace: "n" };
  const shim = "/usr/bin/containerd-shim-runc-v2";
  assert.equal(shimId([shim, "-namespace", "n", "-id", "c", "-address", "/s", ""], owner), "c");
  assert.equal(shimId([shim, "-address", "/s", "-id", "c", "-namespace", "n"], owner), "c");
  assert.equal(shimId([shim, "-namespace", "other", "-id", "c", "-address", "/s"], owner), undefined);
  assert.equal(shimId([shim, "-namespace", "n", "-id", "c", "-address", "/t"], owner), undefined);
  assert.equal(shimId(["vi", "-namespace", "n", "-id", "c", "-address", "/s"], owner), undefined);
  assert.equal(shimId([""], owner), undefined);
});

Deno.test("a failed step is undone with all before it, in reverse", async () => {
  const done: string[] = [];
  const step = (name: string, error?: Error) => ({
    name,
    run: () => error ? Promise.reject(error) : Promise.resolve(),
    undo: () => Promise.resolve(void done.push(name)),
  });
  const options = { signal: new AbortController().signal, log: silentLog };
  await assert.rejects(
    runSteps([step("a"), step("b"), step("c", new Error("no")), step("d")], options),
    /no/,
  );
  assert.deepEqual(done, ["c", "b", "a"]);
});

Deno.test("a step that finds its thing there already is not undone: it is another's", async () => {
  const done: string[] = [];
  const taken = new RuntimeError("already-exists", "taken");
  const steps = ["a", "b"].map((name) => ({
    name,
    run: () => name === "b" ? Promise.reject(taken) : Promise.resolve(),
    undo: () => Promise.resolve(void done.push(name)),
  }));
  await assert.rejects(runSteps(steps, { signal: new AbortController().signal, log: silentLog }), taken);
  assert.deepEqual(done, ["a"]);
});

Deno.test("an undo that fails is logged and keeps none of the others from being done", async () => {
  const done: string[] = [];
  const errors: unknown[] = [];
  const log = { ...silentLog, error: (_message: string, fields?: unknown) => void errors.push(fields) };
  const steps = ["a", "b", "c"].map((name) => ({
    name,
    run: () => name === "c" ? Promise.reject(new Error("no")) : Promise.resolve(),
    undo: () => name === "b" ? Promise.reject(new Error("stuck")) : Promise.resolve(void done.push(name)),
  }));
  await assert.rejects(runSteps(steps, { signal: new AbortController().signal, log }), /no/);
  assert.deepEqual(done, ["c", "a"]);
  assert.deepEqual(errors, [{ step: "b", error: "Error: stuck" }]);
});

Deno.test("operations on one key follow each other, those on two keys do not wait", async () => {
  const mutex = new KeyedMutex();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = mutex.run("a", async () => {
    await gate.promise;
    order.push("a1");
  });
  const second = mutex.run("a", () => Promise.resolve(void order.push("a2")));
  await mutex.run("b", () => Promise.resolve(void order.push("b")));
  gate.resolve();
  await Promise.all([first, second]);
  assert.deepEqual(order, ["b", "a1", "a2"]);
  await mutex.idle();
});

Deno.test("who stops waiting for a key does not let the next one past the one that runs", async () => {
  const mutex = new KeyedMutex();
  const gate = Promise.withResolvers<void>();
  const abort = new AbortController();
  let isRunning = true;
  const first = mutex.run("a", async () => {
    await gate.promise;
    isRunning = false;
  });
  const second = mutex.run("a", () => Promise.resolve(), { signal: abort.signal });
  const third = mutex.run("a", () => Promise.resolve(isRunning));
  abort.abort();
  await assert.rejects(second, (error) => error instanceof RuntimeError && error.code === "canceled");
  gate.resolve();
  assert.equal(await third, false);
  await first;
  await mutex.idle();
});

Deno.test("a watch sees the keys that are busy and those that become so, but not its own", async () => {
  const mutex = new KeyedMutex();
  const gate = Promise.withResolvers<void>();
  const work = mutex.run("before", () => gate.promise);
  {
    using busy = mutex.watch();
    await mutex.run("during", () => Promise.resolve());
    await mutex.run("own", () => Promise.resolve(), { unseenBy: busy });
    assert.deepEqual([...busy.seen], ["before", "during"]);
  }
  gate.resolve();
  await work;
  await mutex.idle();
});

Deno.test("with cgroup v2 alone the cgroups right below the root are no hierarchies; with v1 the mount points are", async () => {
  const root = await Deno.makeTempDir();
  try {
    for (const name of ["memory", "unified"]) await Deno.mkdir(`${root}/${name}`);
    const mounted = [root, `${root}/memory`, `${root}/unified`];
    assert.deepEqual((await cgroupHierarchies(root)).sort(), mounted);
    await Deno.writeTextFile(`${root}/cgroup.controllers`, "cpu io memory pids\n");
    assert.deepEqual(await cgroupHierarchies(root), [root]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
