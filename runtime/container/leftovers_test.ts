import assert from "node:assert/strict";
import type { ContainerdClient } from "../containerd/client.ts";
import type { GarbageReport } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { silentLog } from "../log.ts";
import { Leftovers } from "./leftovers.ts";

const NOTHING: GarbageReport = { netns: 0, addresses: 0, veths: 0, rules: 0, snapshots: 0, logs: 0 };
const away = new RuntimeError("unavailable", "containerd is away");

/** A containerd that answers from the look of that number on, and the collections there were. */
function scene(collect: (nth: number) => Promise<GarbageReport>, answersFrom = 1) {
  const seen = { looks: 0, collections: 0 };
  const version = () => ++seen.looks < answersFrom ? Promise.reject(away) : Promise.resolve({ version: "1" });
  const leftovers = new Leftovers({
    client: { version: { version } } as unknown as ContainerdClient,
    collect: () => collect(++seen.collections),
    log: silentLog,
  });
  return { leftovers, seen };
}

Deno.test("leftovers are collected once containerd answers, and again when it went away meanwhile", async () => {
  const { leftovers, seen } = scene((nth) => nth < 2 ? Promise.reject(away) : Promise.resolve(NOTHING), 3);
  await Promise.all([leftovers.add(), leftovers.add()]);
  assert.deepEqual(seen, { looks: 4, collections: 2 });
  await leftovers.add();
  assert.equal(seen.collections, 3);
});

Deno.test("what cannot be collected for another reason, or again and again, waits for the next regular collection", async () => {
  const failed = scene(() => Promise.reject(new RuntimeError("failed", "it is stuck")));
  await failed.leftovers.add();
  assert.equal(failed.seen.collections, 1);
  const lost = scene(() => Promise.reject(away));
  await lost.leftovers.add();
  assert.equal(lost.seen.collections, 5);
});

Deno.test("leftovers are looked for no longer when the engine is closed", async () => {
  const { leftovers, seen } = scene(() => Promise.resolve(NOTHING), Infinity);
  const added = leftovers.add();
  await leftovers[Symbol.asyncDispose]();
  await added;
  await leftovers.add();
  assert.equal(seen.collections, 0);
});
