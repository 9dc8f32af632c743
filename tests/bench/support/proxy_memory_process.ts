import process from "node:process";
import { createInterface } from "node:readline";
import { openProxy } from "../../../agent/proxy/mod.ts";
import { collectGarbage, type Held, MEMORY_CHANNEL } from "./collect_garbage.ts";

/** Where the proxy listens and what is behind. */
export interface MemoryProcessOptions {
  plainPort: number;
  tlsPort: number;
  upstreamPort: number;
  workers: number;
  tls: { certFile: string; keyFile: string };
}

/** What is told of the proxy after its garbage was collected and freed memory given back. */
export interface ProxyMemory extends Held {
  /** Answered since the start. */
  requests: number;
  openConnections: number;
}

// Our proxy in a process of its own, as the agent runs it. Argument: the options as JSON. Each line of input has all its
// threads collect their garbage, and prints a ProxyMemory; the end of the input is its end.
const { plainPort, tlsPort, upstreamPort, workers, tls } = JSON.parse(Deno.args[0]) as MemoryProcessOptions;
const log = { debug() {}, info() {}, warn: console.error, error: console.error };
const proxy = await openProxy({
  bindHosts: ["127.0.0.1"],
  workers,
  log,
  tls,
  plainPorts: [plainPort],
  createWorker: () => new Worker(new URL("proxy_memory_worker.ts", import.meta.url), { type: "module" }),
});
const failures = await proxy.apply([plainPort, tlsPort].map((hostPort) => ({
  id: "app",
  aliases: [],
  hostPort,
  upstream: { kind: "tcp", hostname: "127.0.0.1", port: upstreamPort },
})));
if (failures.length > 0) throw new Error(`Cannot open port "${failures[0].hostPort}": ${failures[0].reason}`);
const libc = Deno.dlopen("libc.so.6", { malloc_trim: { parameters: ["usize"], result: "i32" } });
const channel = new BroadcastChannel(MEMORY_CHANNEL);
for await (const _ of createInterface({ input: process.stdin })) console.log(JSON.stringify(await memory()));
channel.close();
await proxy[Symbol.asyncDispose]();
Deno.exit(0);

async function memory(): Promise<ProxyMemory> {
  const held: Held[] = [];
  await new Promise<void>((resolve) => {
    channel.onmessage = ({ data }) => {
      held.push(data);
      if (held.length === workers) resolve();
    };
    channel.postMessage("collect");
  });
  held.push(await collectGarbage());
  // What the C library keeps of what was freed says nothing of what is held.
  libc.symbols.malloc_trim(0n);
  const sum = (of: (one: Held) => number) => held.map(of).reduce((total, value) => total + value);
  const { requests, openConnections } = await proxy.stats();
  return {
    heapUsed: sum((one) => one.heapUsed),
    external: sum((one) => one.external),
    requests: Object.values(requests).reduce((total, value) => total + value),
    openConnections,
  };
}
