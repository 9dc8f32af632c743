import assert from "node:assert/strict";
import { Progress } from "./cluster_progress.ts";
import { type ClusterScenarioOptions, runClusterScenario } from "./cluster_scenario.ts";

Deno.test("a life that is followed is the same; there is a line for each of its parts and one every ten seconds of wall time", () => {
  const options: ClusterScenarioOptions = { seed: 44, nodes: 4, profile: "lan", loss: 0.02, minutes: 1 };
  const lines: string[] = [];
  let [looks, parts] = [0, 0];
  const progress = new Progress({
    nowMs: () => 100 * looks++,
    memory: () => ({ heapUsed: 3 << 20, rss: 5 << 20 }),
    write: (line) => lines.push(line),
  });
  const followed = runClusterScenario({
    ...options,
    observe: (world) => progress.observe(world),
    phase: (name) => {
      parts++;
      progress.phase(name);
    },
  });
  assert.deepEqual(followed, runClusterScenario(options));
  assert.match(lines[0], /^0\.0 s, assembling; wall time \d+ s, heap 3 MiB, process 5 MiB$/);
  assert.match(lines.at(-1)!, /calm again/);
  // Each look took a tenth of a second, and a part's line begins the ten seconds anew.
  const expected = parts + looks / 100;
  assert.ok(
    lines.length <= expected && lines.length > expected - parts - 1,
    `${lines.length} of ${expected}`,
  );
});
