import assert from "node:assert/strict";
import { whenFree } from "./when_free.ts";

Deno.test("what is in use is tried again, for a while; any other error ends it at once", async () => {
  let tries = 0;
  const failing = (times: number, error: Error) => () => {
    if (++tries > times) return "bound";
    throw error;
  };
  const inUse = new Deno.errors.AddrInUse("in use");
  assert.equal(await whenFree(failing(3, inUse)), "bound");
  assert.equal(tries, 4);
  await assert.rejects(whenFree(failing(Infinity, inUse)), inUse);
  tries = 0;
  const denied = new Deno.errors.PermissionDenied("denied");
  await assert.rejects(whenFree(failing(Infinity, denied)), denied);
  assert.equal(tries, 1);
});
