import assert from "node:assert/strict";
import type { Profile } from "../../gossip/memberlist/config.ts";
import { CANARIES } from "./canary.ts";
import { Violation } from "./checks.ts";
import { runScenario } from "./scenario.ts";

const RUNS: { seed: number; nodes: number; profile: Profile; loss: number }[] = [
  { seed: 1, nodes: 3, profile: "lan", loss: 0.1 },
  { seed: 2, nodes: 10, profile: "lan", loss: 0.25 },
  { seed: 3, nodes: 40, profile: "lan", loss: 0.1 },
  { seed: 4, nodes: 10, profile: "hypercore", loss: 0.1 },
  { seed: 5, nodes: 40, profile: "hypercore", loss: 0.2 },
  { seed: 6, nodes: 20, profile: "wan", loss: 0.1 },
  { seed: 7, nodes: 20, profile: "local", loss: 0.1 },
];

for (const run of RUNS) {
  Deno.test(`simulated life of ${run.nodes} nodes, profile ${run.profile}, seed ${run.seed}: every property holds`, () => {
    runScenario({ ...run, minutes: 15 });
  });
}

Deno.test("simulated lives with fresh seeds: every property holds", () => {
  for (let i = 0; i < 3; i++) {
    const seed = Math.floor(Math.random() * 0x7fff_ffff);
    try {
      runScenario({ seed, nodes: 15, profile: "lan", loss: 0.15, minutes: 12 });
    } catch (cause) {
      const replay = `deno task sim --seed ${seed} --nodes 15 --loss 0.15 --minutes 12 --profile lan`;
      throw new Error(`Seed ${seed} fails. See it again: ${replay}`, { cause });
    }
  }
});

Deno.test("the same seed gives the same life", () => {
  const options = { seed: 42, nodes: 12, profile: "lan", loss: 0.1, minutes: 12 } as const;
  assert.deepEqual(runScenario(options), runScenario(options));
});

for (const [name, tamper] of Object.entries(CANARIES)) {
  Deno.test(`a broken build is caught: ${name}`, () => {
    const broken = () => runScenario({ seed: 7, nodes: 30, profile: "lan", loss: 0.1, minutes: 12, tamper });
    assert.throws(broken, Violation);
  });
}
