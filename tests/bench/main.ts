import { cyclesBench, nodeBench } from "./node.ts";
import { clusterBench, clusterScaleBench } from "./cluster.ts";
import { policyBench } from "./policy.ts";
import { hopBench } from "./hop.ts";
import { peerBench } from "./peer.ts";
import { proxyBench } from "./proxy.ts";
import { proxyMemoryBench } from "./proxy_memory.ts";
import { spawnBench } from "./spawn.ts";

const BENCHES = {
  spawn: { title: "Spawn", run: () => spawnBench() },
  node: { title: "Node", run: nodeBench },
  cycles: { title: "Spawn and stop, again and again", run: cyclesBench },
  policy: { title: "Policy", run: () => Promise.resolve(policyBench()) },
  proxy: { title: "Proxy", run: () => proxyBench() },
  memory: { title: "Memory of the proxy", run: () => proxyMemoryBench() },
  peer: { title: "Calls between nodes", run: () => peerBench() },
  hop: { title: "Remote hop", run: () => hopBench() },
  cluster: { title: "Cluster", run: clusterBench },
  scale: { title: "Large clusters, simulated", run: () => Promise.resolve(clusterScaleBench()) },
};

/** `deno task bench [NAME…]`: runs the benchmarks, all unless some are named, and prints Markdown. Needs root. */
const names = Deno.args.length > 0 ? Deno.args : Object.keys(BENCHES);
for (const name of names) {
  if (!Object.hasOwn(BENCHES, name)) {
    console.error(`Cannot run benchmark "${name}": there are ${Object.keys(BENCHES).join(", ")}`);
    Deno.exit(2);
  }
}
for (const name of names as (keyof typeof BENCHES)[]) {
  console.log(`## ${BENCHES[name].title}\n\n${await BENCHES[name].run()}\n`);
}
