import { BenchApi } from "./agent.ts";

/**
 * Loads an agent from inside its network, by what the third argument asks: `fill COUNT`, `list COUNT`, `empty`, or
 * `cycle COUNT LANES`. Prints JSON: the ids that were spawned, or milliseconds.
 */
const [dataDir, _namespace, task, count, lanes] = Deno.args;
const api = new BenchApi(dataDir);

/** Does the work `times` times, so many at once. */
async function inLanes(times: number, width: number, work: () => Promise<void>): Promise<void> {
  let begun = 0;
  const lane = async () => {
    while (begun++ < times) await work();
  };
  await Promise.all(Array.from({ length: width }, lane));
}

const SPAWN_LANES = 4;
const output: (string | number)[] = [];

switch (task) {
  case "fill":
    await inLanes(Number(count), SPAWN_LANES, async () => void output.push(await api.spawn()));
    break;
  case "list":
    for (let i = 0; i < Number(count); i++) {
      const beganMs = performance.now();
      await api.call("List", {});
      output.push(performance.now() - beganMs);
    }
    break;
  case "empty": {
    const { states } = await api.call<{ states: { workloads?: { id: string }[] }[] }>("List", {});
    const ids = states.flatMap(({ workloads }) => workloads ?? []).map(({ id }) => id);
    await inLanes(ids.length, SPAWN_LANES, async () => await api.stop(ids.pop()!));
    break;
  }
  case "cycle":
    await inLanes(Number(count), Number(lanes), async () => {
      const id = await api.spawn();
      output.push(id);
      await api.stop(id);
    });
    break;
  default:
    throw new Error(`Cannot do "${task}": no such task`);
}
console.log(JSON.stringify(output));
