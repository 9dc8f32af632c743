import assert from "node:assert/strict";
import type { ContainerEvent } from "../engine.ts";
import { EngineBench } from "./testing.ts";

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
