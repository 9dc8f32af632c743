import assert from "node:assert/strict";
import { createSerf, rotateKey, type Serf } from "./mod.ts";

const [OLD, OLDER, FRESH] = [1, 2, 3].map((fill) => new Uint8Array(32).fill(fill));

function member(name: string, keys: Uint8Array[] = [OLD, OLDER]): Promise<Serf> {
  return createSerf({ name, bind: { host: "127.0.0.1", port: 0 }, profile: "lan", keys });
}

Deno.test("a rotation leaves every member with the new key alone", async () => {
  await using a = await member("a");
  await using b = await member("b");
  await b.join([`127.0.0.1:${a.local.port}`]);
  const { ok, step } = await rotateKey(a, FRESH, { timeoutMs: 10_000 });
  assert.deepEqual([ok, step, a.keys(), b.keys()], [true, "remove", [FRESH], [FRESH]]);
});

Deno.test("a rotation stops before anybody is cut off, says who is missing, and can be taken up again", async () => {
  await using a = await member("a");
  await using b = await member("b");
  const c = await member("c");
  for (const other of [b, c]) await other.join([`127.0.0.1:${a.local.port}`]);
  await c[Symbol.asyncDispose]();
  const { ok, step, result } = await rotateKey(a, FRESH, { timeoutMs: 200 });
  assert.deepEqual([ok, step, result.missing, a.keys()], [false, "install", ["c"], [OLD, OLDER, FRESH]]);
  await using _again = await createSerf({
    name: "c",
    bind: { host: "127.0.0.1", port: c.local.port },
    profile: "lan",
    keys: [OLD],
  }).then(async (back) => {
    await back.join([`127.0.0.1:${a.local.port}`]);
    return back;
  });
  assert.equal((await rotateKey(a, FRESH, { timeoutMs: 10_000 })).ok, true);
  assert.deepEqual(b.keys(), [FRESH]);
});

Deno.test("there is nothing to rotate where gossip is not encrypted", async () => {
  await using plain = await member("plain", []);
  await assert.rejects(() => rotateKey(plain, FRESH), /Cannot rotate "gossip key": gossip is not encrypted/);
});
