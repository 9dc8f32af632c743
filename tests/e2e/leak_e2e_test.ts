import assert from "node:assert/strict";
import { measureInside, startBenchAgent } from "../bench/support/agent.ts";
import { until } from "./live_agent.ts";
import { agentPid, residueOf, rssMiB } from "./residue.ts";

/** Spawns and stops; CYCLES asks for more. */
const CYCLES = Number(Deno.env.get("CYCLES") ?? 30);
const LANES = 3;
/** First the caches fill: connections, compiled code, chains of the plugins. */
const WARM_UP = 6;
/** Memory may move by this much and is no leak for it, in MiB; a cycle may keep none of it. */
const RSS_SLACK_MIB = 64;

Deno.test("spawns and stops leave nothing: no files, processes, networks, rules, cgroups or memory", async () => {
  await using agent = await startBenchAgent();
  const script = new URL("../bench/support/node_inside.ts", import.meta.url);
  const cycle = (count: number) =>
    measureInside<string[]>(agent, script, ["cycle", String(count), String(LANES)]);
  const ids = await cycle(WARM_UP);
  const pid = agentPid(agent);
  const settled = (seen: { last: string }) => async () => {
    const now = JSON.stringify(await residueOf(agent, ids));
    const isSame = now === seen.last;
    seen.last = now;
    return isSame;
  };
  await until("the machine is at rest", settled({ last: "" }));
  const before = await residueOf(agent, ids);
  assert.deepEqual(
    [before.containers, before.netns, before.shims, before.cgroups, before.mounts, before.shimSockets],
    [[], [], [], [], [], []],
  );
  const beforeMiB = rssMiB(pid);
  ids.push(...await cycle(CYCLES));
  let after = await residueOf(agent, ids);
  // containerd removes what it no longer needs in its own time.
  await until("everything is as before", async () => {
    after = await residueOf(agent, ids);
    return JSON.stringify(after) === JSON.stringify(before);
  }).catch(() => {});
  assert.deepEqual(after, before, `after ${CYCLES} cycles`);
  assert.ok(
    rssMiB(pid) < beforeMiB + RSS_SLACK_MIB,
    `the agent grew from ${beforeMiB} to ${rssMiB(pid)} MiB`,
  );
});
