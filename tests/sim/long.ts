import type { Profile } from "../../gossip/memberlist/config.ts";
import { clusterReplayCommand, type ClusterScenarioOptions, runClusterScenario } from "./cluster_scenario.ts";
import { massRestart } from "./mass_restart.ts";
import { replayCommand, runScenario, type ScenarioOptions } from "./scenario.ts";
import { World } from "./world.ts";

/**
 * The long suite (`deno task sim:long`, a quarter of an hour and 8 GB): lives of many seeds and sizes, an idle cluster of a
 * thousand nodes, mass restarts of a thousand and of 4,500. Prints Markdown; exits with 1 where a property fails.
 * `--seed` gives the first seed of the fresh ones, `--only lives|idle|restarts` one part. `--only clusters` are lives of
 * whole agents, the last of them of a thousand: that takes long, and is run only when asked for.
 */
const SIZES: readonly { nodes: number; seeds: number; minutes: number }[] = [
  { nodes: 3, seeds: 20, minutes: 20 },
  { nodes: 12, seeds: 20, minutes: 20 },
  { nodes: 60, seeds: 6, minutes: 20 },
  { nodes: 150, seeds: 3, minutes: 15 },
  { nodes: 300, seeds: 1, minutes: 12 },
];
const PROFILES: readonly Profile[] = ["lan", "hypercore", "local", "wan"];
const RESTARTS = [1_000, 4_500];
const CLUSTERS: readonly { nodes: number; minutes: number; profile: Profile }[] = [
  { nodes: 60, minutes: 10, profile: "lan" },
  { nodes: 60, minutes: 10, profile: "hypercore" },
  { nodes: 300, minutes: 3, profile: "hypercore" },
  { nodes: 1_000, minutes: 3, profile: "hypercore" },
];

interface Failure {
  command: string;
  error: unknown;
}

function main(args: readonly string[]): number {
  const flag = (name: string) => args[args.indexOf(`--${name}`) + 1];
  const only = args.includes("--only") ? flag("only") : undefined;
  const seed = args.includes("--seed") ? Number(flag("seed")) : Math.floor(Math.random() * 0x3fff_ffff);
  const failures: Failure[] = [];
  if (only === undefined || only === "lives") lives(seed, failures);
  if (only === undefined || only === "idle") idle();
  if (only === undefined || only === "restarts") restarts(failures);
  if (only === "clusters") clusters(seed, failures);
  for (const { command, error } of failures) {
    console.error(error);
    console.error(`It fails. See it again: ${command}`);
  }
  return failures.length === 0 ? 0 : 1;
}

/** Half of the seeds are the same in every run, half are fresh. */
function lives(freshSeed: number, failures: Failure[]): void {
  console.log(`Fresh seeds from ${freshSeed} on.\n`);
  console.log(
    "| nodes | lives | node-hours | whole, slowest | event to all | death known | healed | failures |",
  );
  console.log("|---|---|---|---|---|---|---|---|");
  for (const { nodes, seeds, minutes } of SIZES) {
    const slowest = { bootMs: 0, eventMs: 0, detectionMs: 0, healMs: 0 };
    let failed = 0;
    for (let i = 0; i < seeds; i++) {
      const options: ScenarioOptions = {
        seed: i % 2 === 0 ? 1_000 + i : freshSeed + i,
        nodes,
        minutes,
        loss: (i % 6) * 0.05,
        profile: PROFILES[i % PROFILES.length],
      };
      try {
        const report = runScenario(options);
        for (const key of Object.keys(slowest) as (keyof typeof slowest)[]) {
          slowest[key] = Math.max(slowest[key], report[key]);
        }
      } catch (error) {
        failed++;
        failures.push({ command: replayCommand(options), error });
      }
    }
    const s = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
    const hours = Math.round(nodes * seeds * minutes / 60);
    console.log(
      `| ${nodes} | ${seeds} | ${hours} | ${s(slowest.bootMs)} | ${s(slowest.eventMs)} | ${
        s(slowest.detectionMs)
      } ` +
        `| ${s(slowest.healMs)} | ${failed} |`,
    );
  }
}

function idle(): void {
  const startMs = performance.now();
  const world = new World({ seed: 1, nodes: 1_000, profile: "lan", eager: true });
  world.startKnown();
  world.advance(600_000);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  console.log(`\n1,000 idle nodes, 10 virtual minutes: ${seconds} s, ${world.network.packets} packets.`);
}

function restarts(failures: Failure[]): void {
  console.log(
    "\n| nodes start cold within 5 s | all views whole after the last start | packets a node | messages a node | exchanges a node | took |",
  );
  console.log("|---|---|---|---|---|---|");
  for (const nodes of RESTARTS) {
    const startMs = performance.now();
    try {
      const report = massRestart({ seed: 5, nodes });
      const took = ((performance.now() - startMs) / 1000).toFixed(0);
      console.log(
        `| ${nodes} | ${
          (report.wholeAfterMs / 1000).toFixed(2)
        } s | ${report.packetsPerNode} | ${report.messagesPerNode} ` +
          `| ${report.exchangesPerNode} | ${took} s |`,
      );
    } catch (error) {
      failures.push({ command: "deno task sim:long --only restarts", error });
    }
  }
}

function clusters(seed: number, failures: Failure[]): void {
  console.log(`\nSeed ${seed}.\n`);
  console.log("| nodes | profile | minutes of trouble | repaired | healed | reschedules | moves | took |");
  console.log("|---|---|---|---|---|---|---|---|");
  for (const { nodes, minutes, profile } of CLUSTERS) {
    const startMs = performance.now();
    const options: ClusterScenarioOptions = { seed, nodes, minutes, profile, loss: 0.02 };
    try {
      const { repairMs, healMs, reschedules, moves } = runClusterScenario(options);
      const took = ((performance.now() - startMs) / 60_000).toFixed(1);
      const [repaired, healed] = [repairMs, healMs].map((ms) => `${ms / 1_000} s`);
      console.log(
        `| ${nodes} | ${profile} | ${minutes} | ${repaired} | ${healed} | ${reschedules} | ${moves} | ${took} min |`,
      );
    } catch (error) {
      failures.push({ command: clusterReplayCommand(options), error });
    }
  }
}

Deno.exit(main(Deno.args));
