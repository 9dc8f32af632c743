import { machineFacts, measureInside, startBenchAgent } from "./support/agent.ts";
import type { SpawnRound } from "./support/spawn_inside.ts";
import { median, quantile } from "./support/stats.ts";

/** Spawns of each kind, unless ROUNDS says otherwise. */
const ROUNDS = 30;

/**
 * Warm spawns through the API, each followed by one by hand on the same containerd with the same plugins: what the
 * engine, the agent and the API add. Gives Markdown.
 */
export async function spawnBench(rounds = Number(Deno.env.get("ROUNDS") ?? ROUNDS)): Promise<string> {
  await using agent = await startBenchAgent();
  const script = new URL("./support/spawn_inside.ts", import.meta.url);
  const facts = machineFacts();
  const measured = await measureInside<SpawnRound[]>(agent, script, [String(rounds)]);
  const row = (name: string, values: number[]) =>
    `| ${name} | ${median(values).toFixed(0)} | ${quantile(values, 0.1).toFixed(0)} | ${
      quantile(values, 0.9).toFixed(0)
    } |`;
  const ratio = (kind: "spawn" | "stop") =>
    (median(measured.map((round) => round[kind])) / median(measured.map((round) => round.floor[kind])))
      .toFixed(2);
  return [
    `${facts}; ${rounds} of each, one after the other in turns`,
    "",
    "| ms | median | p10 | p90 |",
    "|---|---|---|---|",
    row("spawn through the API", measured.map(({ spawn }) => spawn)),
    row("spawn by hand", measured.map(({ floor }) => floor.spawn)),
    row("stop through the API", measured.map(({ stop }) => stop)),
    row("stop by hand", measured.map(({ floor }) => floor.stop)),
    "",
    `Ratio of the medians: spawn ${ratio("spawn")}, stop ${ratio("stop")}.`,
    "",
    "| a spawn by hand, ms | median |",
    "|---|---|",
    ...Object.keys(measured[0].floor).filter((name) => name !== "spawn" && name !== "stop").map((name) =>
      `| ${name} | ${median(measured.map(({ floor }) => floor[name])).toFixed(1)} |`
    ),
  ].join("\n");
}

if (import.meta.main) console.log(await spawnBench());
