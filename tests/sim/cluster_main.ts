import type { Profile } from "../../gossip/memberlist/config.ts";
import { CANARIES, type Canary } from "./cluster_world.ts";
import { Progress } from "./cluster_progress.ts";
import { clusterReplayCommand, type ClusterScenarioOptions, runClusterScenario } from "./cluster_scenario.ts";

const PROFILES: readonly string[] = ["hypercore", "lan", "wan", "local"];

/** Command line of the cluster's simulator; exits with 1 where a property fails, and says how to see it again. */
function main(args: readonly string[]): number {
  const flags = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].replace(/^--/, "").split("=");
    flags.set(name, inline ?? args[++i] ?? "");
  }
  const number = (name: string, fallback: number) => flags.has(name) ? Number(flags.get(name)) : fallback;
  const firstSeed = number("seed", Math.floor(Math.random() * 0x7fff_ffff));
  const runs = number("runs", 1);
  const [nodes, minutes, loss] = [number("nodes", 10), number("minutes", 10), number("loss", 0.02)];
  const profile = flags.get("profile") ?? "lan";
  const canary = flags.get("canary");
  if (!PROFILES.includes(profile) || ![firstSeed, runs, nodes, minutes, loss].every(Number.isFinite)) {
    console.error(`Cannot run: --profile is one of ${PROFILES.join(", ")}; the other flags are numbers`);
    return 2;
  }
  if (canary !== undefined && !CANARIES.some((each) => each === canary)) {
    console.error(`Cannot run: --canary is one of ${CANARIES.join(", ")}`);
    return 2;
  }
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    const startMs = performance.now();
    const progress = new Progress({
      nowMs: () => performance.now(),
      memory: () => Deno.memoryUsage(),
      write: (line) => console.error(line),
    });
    const options: ClusterScenarioOptions = {
      seed,
      nodes,
      minutes,
      loss,
      profile: profile as Profile,
      canary: canary as Canary | undefined,
      observe: (world) => progress.observe(world),
      phase: (name) => progress.phase(name),
    };
    try {
      const report = runClusterScenario(options);
      console.log(JSON.stringify({ seed, nodes, minutes, loss, profile, ...report }));
      console.log(`ok in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
    } catch (error) {
      console.error(error);
      console.error(`Seed ${seed} fails. See it again: ${clusterReplayCommand(options)}`);
      return 1;
    }
  }
  return 0;
}

Deno.exit(main(Deno.args));
