import assert from "node:assert/strict";
import { freePort } from "../../tests/support/free_port.ts";
import { WindowBudget } from "./hop/mux/windows.ts";
import { HopListener } from "./hop/hop_listener.ts";
import { makeNodeCertificate } from "./hop/test_node.ts";
import { Listeners } from "./listeners.ts";
import { whenFree } from "./when_free.ts";

/** Nobody connects. */
const UNUSED = { context: {} as never, maxConnections: 1 };
const HOST = "127.0.0.1";

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

Deno.test("a worker waits for a port that is in use for another moment, of a route as of the hop", async () => {
  const port = freePort();
  const listeners = new Listeners({ ...UNUSED, http2: true, plainPorts: [], bindHosts: [HOST] });
  assert.deepEqual(await whileInUse(port, () => listeners.apply([port])), []);
  await listeners.stop(0);
  const hops = new HopListener({ ...UNUSED, maxOpenings: 1, budget: new WindowBudget() });
  const certificate = await makeNodeCertificate();
  const identity = { node: "node", certificate, secrets: [], bindHosts: [HOST], port: freePort() };
  await whileInUse(identity.port, () => hops.setIdentity(identity));
  await hops.stop(0);
});

/** What opens the port has found it in use when that ends. */
async function whileInUse<T>(port: number, open: () => Promise<T>): Promise<T> {
  const holder = Deno.listen({ hostname: HOST, port });
  const opened = open();
  // Its first try takes no more than microtasks, its next a timer that is due later than this one.
  await new Promise((resolve) => setTimeout(resolve, 0));
  holder.close();
  return await opened;
}
