import type { Profile } from "../../gossip/memberlist/config.ts";
import { CANARIES } from "./canary.ts";
import { replayCommand, runScenario } from "./scenario.ts";

const PROFILES: readonly string[] = ["hypercore", "lan", "wan", "local"];

/** Command line of the simulator; exits with 1 where a property fails, and says how to see it again. */
function main(args: readonly string[]): number {
  const flags = new Map<string, string>();
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].replace(/^--/, "").split("=");
    flags.set(name, inline ?? args[++i] ?? "");
  }
  const number = (name: string, fallback: number) => flags.has(name) ? Number(flags.get(name)) : fallback;
  const seed = number("seed", Math.floor(Math.random() * 0x7fff_ffff));
  const nodes = number("nodes", 100);
  const minutes = number("minutes", 15);
  const loss = number("loss", 0.1);
  const profile = flags.get("profile") ?? "lan";
  const canary = flags.get("canary");
  if (!PROFILES.includes(profile) || ![seed, nodes, minutes, loss].every(Number.isFinite)) {
    console.error(`Cannot run: --profile is one of ${PROFILES.join(", ")}; the other flags are numbers`);
    return 2;
  }
  if (canary !== undefined && !Object.hasOwn(CANARIES, canary)) {
    console.error(`Cannot run: --canary is one of ${Object.keys(CANARIES).join(", ")}`);
    return 2;
  }
  const startMs = performance.now();
  const options = { seed, nodes, minutes, loss, profile: profile as Profile };
  try {
    const report = runScenario({ ...options, tamper: canary ? CANARIES[canary] : undefined });
    console.log(JSON.stringify({ seed, nodes, minutes, loss, profile, ...report }));
    console.log(`ok in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
    return 0;
  } catch (error) {
    console.error(error);
    console.error(`Seed ${seed} fails. See it again: ${replayCommand({ ...options, canary })}`);
    return 1;
  }
}

Deno.exit(main(Deno.args));
