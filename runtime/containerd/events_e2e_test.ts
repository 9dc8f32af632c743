import assert from "node:assert/strict";
import { startContainerd } from "../../tests/support/containerd.ts";
import { silentLog } from "../log.ts";
import { taskEvents } from "./events.ts";

Deno.test("task events begin with resync, and with it again after each restart of containerd", async () => {
  await using containerd = await startContainerd();
  const end = new AbortController();
  const events = taskEvents(containerd.client(), { signal: end.signal, log: silentLog });
  assert.deepEqual((await events.next()).value, { type: "resync" });
  let next = events.next();
  await containerd.kill9();
  await containerd.start();
  assert.deepEqual((await next).value, { type: "resync" });
  next = events.next();
  await containerd.restart();
  assert.deepEqual((await next).value, { type: "resync" });
  next = events.next();
  end.abort();
  assert.deepEqual(await next, { value: undefined, done: true });
});

Deno.test("task events wait for a containerd that is not there yet", async () => {
  await using containerd = await startContainerd();
  await containerd.kill9();
  const end = new AbortController();
  const events = taskEvents(containerd.client(), { signal: end.signal, log: silentLog });
  const next = events.next();
  await containerd.start();
  assert.deepEqual((await next).value, { type: "resync" });
  end.abort();
  await events.return(undefined);
});
