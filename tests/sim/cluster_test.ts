import assert from "node:assert/strict";
import type { Profile } from "../../gossip/memberlist/config.ts";
import { Violation } from "./checks.ts";
import { clusterReplayCommand, runClusterScenario } from "./cluster_scenario.ts";
import { CANARIES } from "./cluster_world.ts";

const RUNS: { seed: number; nodes: number; profile: Profile; loss: number; minutes: number }[] = [
  { seed: 1, nodes: 3, profile: "lan", loss: 0.02, minutes: 10 },
  { seed: 2, nodes: 5, profile: "lan", loss: 0.1, minutes: 10 },
  { seed: 3, nodes: 5, profile: "hypercore", loss: 0.02, minutes: 10 },
  { seed: 4, nodes: 10, profile: "lan", loss: 0.05, minutes: 8 },
  { seed: 5, nodes: 20, profile: "lan", loss: 0.02, minutes: 5 },
];

for (const run of RUNS) {
  Deno.test(`simulated cluster of ${run.nodes} nodes, profile ${run.profile}, seed ${run.seed}: every property holds`, () => {
    runClusterScenario(run);
  });
}

Deno.test("simulated clusters with fresh seeds: every property holds", () => {
  for (let i = 0; i < 3; i++) {
    const seed = Math.floor(Math.random() * 0x7fff_ffff);
    const options = { seed, nodes: 6, profile: "lan", loss: 0.05, minutes: 6 } as const;
    try {
      runClusterScenario(options);
    } catch (cause) {
      throw new Error(`Seed ${seed} fails. See it again: ${clusterReplayCommand(options)}`, { cause });
    }
  }
});

Deno.test("the same seed gives the same life of a cluster", () => {
  const options = { seed: 42, nodes: 5, profile: "lan", loss: 0.05, minutes: 4 } as const;
  assert.deepEqual(runClusterScenario(options), runClusterScenario(options));
});

Deno.test("what the agents of a world have in common changes nothing about their lives", () => {
  const options = { seed: 43, nodes: 6, profile: "lan", loss: 0.05, minutes: 4 } as const;
  assert.deepEqual(runClusterScenario(options), runClusterScenario({ ...options, isApart: true }));
});

for (const canary of CANARIES) {
  Deno.test(`a broken cluster is caught: ${canary}`, () => {
    const broken = () =>
      runClusterScenario({ seed: 7, nodes: 6, profile: "lan", loss: 0.02, minutes: 8, canary });
    assert.throws(broken, Violation);
  });
}
