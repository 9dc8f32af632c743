import assert from "node:assert/strict";
import { collectedHeap, measureInside, startBenchAgent } from "../bench/support/agent.ts";
import { until } from "./live_agent.ts";
import { agentPid, type Residue, residueOf, rssMiB } from "./residue.ts";

/** Spawns and stops; CYCLES asks for more. */
const CYCLES = Number(Deno.env.get("CYCLES") ?? 30);
const LANES = 3;
/** First the caches fill: connections, compiled code, chains of the plugins. */
const WARM_UP = 12;
/**
 * What may stay of all cycles together when the garbage is collected, in MiB: code that was compiled meanwhile, and on
 * the C library's side what its allocator does not give back. A cycle may keep none of it: with CYCLES=1000 a leak of
 * 4 KiB a cycle shows.
 */
const HEAP_SLACK_MIB = 4;
const RSS_SLACK_MIB = 32;

Deno.test("spawns and stops leave nothing: no files, processes, networks, rules, cgroups or memory", async () => {
  await using agent = await startBenchAgent({ inspector: true });
  const script = new URL("../bench/support/node_inside.ts", import.meta.url);
  const cycle = (count: number) =>
    measureInside<string[]>(agent, script, ["cycle", String(count), String(LANES)]);
  const ids = await cycle(WARM_UP);
  const pid = agentPid(agent);
  let before: Residue = {};
  await until("the machine is at rest", async () => {
    const now = await residueOf(agent, ids);
    const isSame = JSON.stringify(now) === JSON.stringify(before);
    before = now;
    return isSame;
  });
  assert.deepEqual(
    [before.containers, before.netns, before.shims, before.cgroups, before.mounts, before.shimSockets],
    [[], [], [], [], [], []],
  );
  const memory = async () => {
    const { heapUsed, external } = await collectedHeap(agent);
    return { heap: (heapUsed + external) / 1_048_576, rss: rssMiB(pid) };
  };
  const memoryBefore = await memory();
  ids.push(...await cycle(CYCLES));
  let after = await residueOf(agent, ids);
  // containerd removes what it no longer needs in its own time.
  await until("everything is as before", async () => {
    after = await residueOf(agent, ids);
    return JSON.stringify(after) === JSON.stringify(before);
  }).catch(() => {});
  assert.deepEqual(after, before, `after ${CYCLES} cycles`);
  const memoryAfter = await memory();
  const grown = { heap: memoryAfter.heap - memoryBefore.heap, rss: memoryAfter.rss - memoryBefore.rss };
  assert.ok(grown.heap < HEAP_SLACK_MIB, `the agent's heap grew by ${grown.heap} MiB`);
  assert.ok(grown.rss < RSS_SLACK_MIB, `the agent grew by ${grown.rss} MiB`);
});
