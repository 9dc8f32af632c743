import { ContainerdClient } from "../../../runtime/containerd/client.ts";
import { BenchApi } from "./agent.ts";
import { Floor } from "./floor.ts";

/** What is measured of one round, in milliseconds. */
export interface SpawnRound {
  /** The API's answer to Spawn, and to Stop. */
  spawn: number;
  stop: number;
  /** By hand: `spawn`, `stop`, and each call. */
  floor: Record<string, number>;
}

const WARM_UP_ROUNDS = 3;
const CNI_PATH = ["/opt/cni/bin", "/usr/lib/cni"];

const [dataDir, namespace, rounds] = Deno.args;
const api = new BenchApi(dataDir);
await using client = new ContainerdClient({ socket: `${dataDir}/containerd.sock`, namespace });
const dir = await Deno.makeTempDir({ prefix: "hc-floor-" });
try {
  const template = await api.spawn({ ports: { 8081: 8080 } });
  const floor = new Floor({ client, cniPath: CNI_PATH, dir, template });
  const measured: SpawnRound[] = [];
  for (let round = -WARM_UP_ROUNDS; round < Number(rounds); round++) {
    const beganMs = performance.now();
    const id = await api.spawn();
    const spawnedMs = performance.now();
    await api.stop(id);
    const stoppedMs = performance.now();
    const byHand = await floor.cycle(crypto.randomUUID().slice(0, 8));
    if (round < 0) continue;
    measured.push({ spawn: spawnedMs - beganMs, stop: stoppedMs - spawnedMs, floor: byHand });
  }
  await api.stop(template);
  console.log(JSON.stringify(measured));
} finally {
  await Deno.remove(dir, { recursive: true });
}
