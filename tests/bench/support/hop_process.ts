import { type HopIdentity, openProxy, type Upstream } from "../../../agent/proxy/mod.ts";

/** One node of several: what its process is told. */
export interface HopProcessOptions {
  /** Host port of the workload `app`, the same on all nodes. */
  port: number;
  /** Where it leads from here. */
  upstream: Upstream;
  workers: number;
  identity: HopIdentity;
  tls?: { certFile: string; keyFile: string };
}

// A proxy in a process of its own that takes hops from others or sends them there. Argument: the options as JSON.
const { port, upstream, workers, identity, tls } = JSON.parse(Deno.args[0]) as HopProcessOptions;
const log = { debug() {}, info() {}, warn: console.error, error: console.error };
const proxy = await openProxy({ bindHosts: identity.bindHosts, workers, log, tls, onStale: console.error });
await proxy.setHop(identity);
const failures = await proxy.apply([{ id: "app", aliases: [], hostPort: port, upstream }]);
if (failures.length > 0) throw new Error(`Cannot open port "${port}": ${failures[0].reason}`);
const stopped = Promise.withResolvers<void>();
Deno.addSignalListener("SIGTERM", () => stopped.resolve());
await stopped.promise;
await proxy[Symbol.asyncDispose]();
Deno.exit(0);
