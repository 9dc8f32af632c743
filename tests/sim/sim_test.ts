import assert from "node:assert/strict";
import type { Profile } from "../../gossip/memberlist/config.ts";
import { CANARIES } from "./canary.ts";
import { Violation } from "./checks.ts";
import { massRestart } from "./mass_restart.ts";
import { replayCommand, type Report, runScenario, type ScenarioOptions } from "./scenario.ts";

const FRESH_SEEDS = 5;

const RUNS: { seed: number; nodes: number; profile: Profile; loss: number }[] = [
  { seed: 1, nodes: 3, profile: "lan", loss: 0.1 },
  { seed: 2, nodes: 10, profile: "lan", loss: 0.25 },
  { seed: 3, nodes: 40, profile: "lan", loss: 0.1 },
  { seed: 4, nodes: 10, profile: "hypercore", loss: 0.1 },
  { seed: 5, nodes: 40, profile: "hypercore", loss: 0.2 },
  { seed: 6, nodes: 20, profile: "wan", loss: 0.1 },
  { seed: 7, nodes: 20, profile: "local", loss: 0.1 },
  { seed: 8, nodes: 100, profile: "lan", loss: 0.2 },
];

/** Runs a life; what fails says how to see it again. */
function live(options: Omit<ScenarioOptions, "tamper">): Report {
  try {
    return runScenario(options);
  } catch (cause) {
    throw new Error(`Seed ${options.seed} fails. See it again: ${replayCommand(options)}`, { cause });
  }
}

for (const run of RUNS) {
  Deno.test(`simulated life of ${run.nodes} nodes, profile ${run.profile}, seed ${run.seed}: every property holds`, () => {
    live({ ...run, minutes: 15 });
  });
}

Deno.test("simulated lives with fresh seeds: every property holds", () => {
  for (let i = 0; i < FRESH_SEEDS; i++) {
    const seed = Math.floor(Math.random() * 0x7fff_ffff);
    const nodes = 3 + seed % 20;
    live({ seed, nodes, profile: "lan", loss: (seed % 26) / 100, minutes: 12 });
  }
});

Deno.test("300 nodes that start within five seconds, none knowing who is up, are one cluster soon", () => {
  const { wholeAfterMs } = massRestart({ seed: 5, nodes: 300 });
  assert.ok(wholeAfterMs <= 20_000, `it took ${wholeAfterMs} ms`);
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
