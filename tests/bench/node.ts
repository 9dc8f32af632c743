import { LiveAgent } from "../e2e/live_agent.ts";
import { agentPid, cpuMs, residueOf, rssMiB } from "../e2e/residue.ts";
import { collectedHeap, machineFacts, measureInside, startBenchAgent } from "./support/agent.ts";
import { median, quantile } from "./support/stats.ts";

/** Effort, unless the environment variable of the same name says otherwise. */
const DEFAULTS = { STARTS: 5, WORKLOADS: 100, IDLE_SECONDS: 30, LISTS: 200, CYCLES: 1000, LANES: 4 };
/** Time for what a spawn or stop sets off to end, in milliseconds. */
const SETTLE_MS = 5_000;
/** Looks at the memory while the cycles go on. */
const BATCHES = 10;
const START_DEADLINE_MS = 60_000;
const ROOT = new URL("../../", import.meta.url).pathname;
const SCRIPT = new URL("./support/node_inside.ts", import.meta.url);

function effort(name: keyof typeof DEFAULTS): number {
  return Number(Deno.env.get(name) ?? DEFAULTS[name]);
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Milliseconds from exec to the first 200 of /readyz: with nothing there, and again beside the running containerd. */
async function start(program: string, args: readonly string[]): Promise<{ first: number; again: number }> {
  await using place = await LiveAgent.prepare();
  const once = async () => {
    const beganMs = performance.now();
    const log = `${place.dir}/start.log`;
    const child = place.host.spawn("/bin/sh", [
      "-c",
      'log=$1; shift; exec "$@" >>"$log" 2>&1',
      "agent",
      log,
      program,
      ...args,
      ...place.agentArgs,
    ], { stdin: "null" });
    while (!await place.isReady()) {
      if (performance.now() - beganMs > START_DEADLINE_MS) {
        throw new Error(`Cannot start "${program}": ${await Deno.readTextFile(log)}`);
      }
    }
    const tookMs = performance.now() - beganMs;
    child.kill("SIGTERM");
    await child.status;
    return tookMs;
  };
  return { first: await once(), again: await once() };
}

async function starts(): Promise<string[]> {
  const kinds: [name: string, program: string, args: string[]][] = [
    ["deno run main.ts", Deno.execPath(), ["run", "-A", "--no-check", `${ROOT}main.ts`]],
  ];
  const binary = `${ROOT}hypercore`;
  if (await Deno.stat(binary).then(() => true, () => false)) kinds.unshift(["./hypercore", binary, []]);
  const lines = [
    "| start to ready, ms | first, median | first, worst | again, median | again, worst |",
    "|---|---|---|---|---|",
  ];
  for (const [name, program, args] of kinds) {
    const all = [];
    for (let i = 0; i < effort("STARTS"); i++) all.push(await start(program, args));
    const cells = [all.map(({ first }) => first), all.map(({ again }) => again)]
      .flatMap((values) => [median(values), Math.max(...values)]);
    lines.push(`| ${name} | ${cells.map((value) => value.toFixed(0)).join(" | ")} |`);
  }
  return lines;
}

/** Memory and processor share of agent and containerd while nobody asks anything. */
async function idle(agent: LiveAgent, name: string): Promise<string> {
  await pause(SETTLE_MS);
  const pids = [agentPid(agent), agent.containerdPid];
  const before = pids.map(cpuMs);
  const ms = effort("IDLE_SECONDS") * 1000;
  await pause(ms);
  const cells = pids.flatMap((pid, i) => [
    `${rssMiB(pid).toFixed(0)} MiB`,
    `${((cpuMs(pid) - before[i]) / ms * 100).toFixed(2)} %`,
  ]);
  return `| ${name} | ${cells.join(" | ")} |`;
}

/** What one node costs: start, idling, listing. Gives Markdown. */
export async function nodeBench(): Promise<string> {
  const facts = machineFacts();
  const begun = await starts();
  await using agent = await startBenchAgent();
  const count = effort("WORKLOADS");
  const none = await idle(agent, "0 workloads");
  await measureInside(agent, SCRIPT, ["fill", String(count)]);
  const full = await idle(agent, `${count} workloads`);
  await measureInside(agent, SCRIPT, ["list", "20"]); // warm
  const lists = await measureInside<number[]>(agent, SCRIPT, ["list", String(effort("LISTS"))]);
  await measureInside(agent, SCRIPT, ["empty"]);
  return [
    `${facts}; ${effort("STARTS")} starts of each kind, ${
      effort("IDLE_SECONDS")
    } s of idling, ${lists.length} lists`,
    "",
    ...begun,
    "",
    "| idle | agent RSS | agent CPU | containerd RSS | containerd CPU |",
    "|---|---|---|---|---|",
    none,
    full,
    "",
    `List of ${count} workloads through the API: median ${median(lists).toFixed(1)} ms, ` +
    `p90 ${quantile(lists, 0.9).toFixed(1)} ms, p99 ${quantile(lists, 0.99).toFixed(1)} ms.`,
  ].join("\n");
}

/** Many spawns and stops: what is there before, between and after them. Gives Markdown. */
export async function cyclesBench(): Promise<string> {
  const facts = machineFacts();
  await using agent = await startBenchAgent({ inspector: true });
  const lanes = effort("LANES");
  const count = effort("CYCLES");
  const batch = Math.ceil(count / BATCHES);
  const cycle = (count: number) =>
    measureInside<string[]>(agent, SCRIPT, ["cycle", String(count), String(lanes)]);
  const pid = agentPid(agent);
  const mebibytes = (bytes: number) => (bytes / 1_048_576).toFixed(1);
  /** A row of memory: as found, and what the garbage collection leaves. */
  const memory = async (name: string, seconds: number) => {
    await pause(SETTLE_MS);
    const found = rssMiB(pid);
    const held = await collectedHeap(agent);
    const cells = [found, rssMiB(pid), rssMiB(agent.containerdPid)].map((value) => value.toFixed(0));
    const sizes = [held.heapUsed, held.external].map(mebibytes);
    return `| ${name} | ${seconds.toFixed(0)} | ${sizes.join(" | ")} | ${cells[1]} | ${cells[0]} | ${
      cells[2]
    } |`;
  };
  const sizes = async () =>
    Object.entries(await residueOf(agent, ids)).map(([name, value]): [string, number] => [
      name,
      typeof value === "number" ? value : value.length,
    ]);
  const ids = await cycle(lanes * 2);
  const rows = [await memory("0", 0)];
  const before = await sizes();
  for (let done = 0; done < count; done += batch) {
    const beganMs = performance.now();
    ids.push(...await cycle(Math.min(batch, count - done)));
    rows.push(
      await memory(String(Math.min(done + batch, count)), (performance.now() - beganMs) / 1000),
    );
  }
  const after = new Map(await sizes());
  return [
    `${facts}; ${count} cycles, ${lanes} at a time`,
    "",
    "| cycles | s | agent: JS heap after GC, MiB | buffers of it | RSS after GC | RSS as found | containerd RSS |",
    "|---|---|---|---|---|---|---|",
    ...rows,
    "",
    "| what is there | before | after |",
    "|---|---|---|",
    ...before.map(([name, value]) => `| ${name} | ${value} | ${after.get(name)} |`),
  ].join("\n");
}

if (import.meta.main) {
  const parts = Deno.args.length > 0 ? Deno.args : ["node", "cycles"];
  if (parts.includes("node")) console.log(await nodeBench());
  if (parts.includes("cycles")) console.log(`\n${await cyclesBench()}`);
}
