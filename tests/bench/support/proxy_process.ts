import { openProxy } from "../../../agent/proxy/mod.ts";

// Our proxy in a process of its own, as the agent runs it. Arguments: port, upstream port, workers, [cert, key].
const [port, upstreamPort, workers, certFile, keyFile] = Deno.args;
const log = { debug() {}, info() {}, warn: console.error, error: console.error };
const tls = certFile ? { certFile, keyFile } : undefined;
const proxy = await openProxy({ bindHosts: ["127.0.0.1"], workers: Number(workers), log, tls });
const failures = await proxy.apply([{
  id: "app",
  aliases: [],
  hostPort: Number(port),
  upstream: { kind: "tcp", hostname: "127.0.0.1", port: Number(upstreamPort) },
}]);
if (failures.length > 0) throw new Error(`Cannot open port "${port}": ${failures[0].reason}`);
const stopped = Promise.withResolvers<void>();
Deno.addSignalListener("SIGTERM", () => stopped.resolve());
await stopped.promise;
await proxy[Symbol.asyncDispose]();
Deno.exit(0);
