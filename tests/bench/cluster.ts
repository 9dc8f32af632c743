import { LiveCluster } from "../e2e/live_cluster.ts";
import type { LiveAgent } from "../e2e/live_agent.ts";
import { measureAgent, measureGossip } from "../sim/cluster_scale.ts";
import { measurePlacement } from "../sim/placement_scale.ts";
import { OFFER_WAIT_MS } from "../../agent/control/placer.ts";
import { busyboxImage } from "../support/images.ts";
import { TestLan } from "../support/lan.ts";
import { BENCH_IMAGE, machineFacts, measureInside, startBenchAgent } from "./support/agent.ts";
import { median, quantile } from "./support/stats.ts";

/** Effort, unless the environment variable of the same name says otherwise. */
const DEFAULTS = { ROUNDS: 20, BLOCKS: 4, DEATHS: 3 };
const SCRIPT = new URL("./support/cluster_inside.ts", import.meta.url);
const LOOK_MS = 100;
const DEADLINE_MS = 120_000;

function effort(name: keyof typeof DEFAULTS): number {
  return Number(Deno.env.get(name) ?? DEFAULTS[name]);
}

/** Real agents, each with its containerd, on one Ethernet; the default timing profile unless it says otherwise. Markdown. */
export async function clusterBench(): Promise<string> {
  const facts = machineFacts();
  return [
    facts,
    "",
    "| what | median | p90 | worst |",
    "|---|---|---|---|",
    ...await firstByte(),
    ...await fiveNodes(),
    ...await deaths("hypercore"),
    ...await deaths("lan"),
  ].join("\n");
}

/** The same in the simulator, where the cores are the shipping ones and the clock is not. Markdown. */
export function clusterScaleBench(): string {
  const agent = measureAgent({ nodes: 100, workloads: 100 });
  const gossip = measureGossip({ nodes: 100, workloads: 100, seed: 1, profile: "hypercore", minutes: 2 });
  const rows: string[][] = [
    ["list of 10,000 workloads on 100 nodes", `${agent.listMs.toFixed(1)} ms`],
    ["a workload found by its name", `${agent.findByNameMs.toFixed(2)} ms`],
    ["one change taken in", `${agent.deltaMs.toFixed(2)} ms`],
    ["heap of all that one agent knows of them", `${agent.heapMiB.toFixed(1)} MiB`],
    ["gossip of one node, idle", `${gossip.idleBytesPerNodeSecond} B/s`],
    ["gossip of one node, 1 % of the workloads change in a minute", `${gossip.churnBytesPerNodeSecond} B/s`],
    ["a change in all views, median and p99", `${gossip.viewMedianMs} and ${gossip.viewP99Ms} ms`],
    ["longest queue of events", String(gossip.largestEventQueue)],
  ];
  for (const loss of [0, 0.05]) {
    const { medianMs, p99Ms } = measurePlacement({
      nodes: 1_000,
      profile: "hypercore",
      seed: 1,
      loss,
      decisions: 200,
      waitMs: OFFER_WAIT_MS,
    });
    rows.push([
      `a ranked placement among 1,000 nodes, ${loss * 100} % loss, median and p99`,
      `${medianMs} and ${p99Ms} ms`,
    ]);
  }
  return [
    machineFacts(),
    "",
    "| what | figure |",
    "|---|---|",
    ...rows.map((row) => `| ${row.join(" | ")} |`),
  ]
    .join("\n");
}

/** From a spawn on the first of three nodes to the page through the third; and on a node by itself, in turns. */
async function firstByte(): Promise<string[]> {
  await using alone = await startBenchAgent();
  await using cluster = await start(3);
  const [first] = cluster.agents;
  const blocks = effort("BLOCKS");
  const rounds = Math.ceil(effort("ROUNDS") / blocks);
  const one: number[] = [];
  const three: number[] = [];
  for (let block = 0; block < blocks; block++) {
    one.push(...await measureInside<number[]>(alone, SCRIPT, ["first-byte", String(rounds), "127.0.0.1"]));
    const third = TestLan.address(2);
    three.push(...await measureInside<number[]>(first, SCRIPT, ["first-byte", String(rounds), third]));
  }
  return [
    row("spawn to first byte, one node, ms", one),
    row("spawn on A to first byte through C, three nodes, ms", three),
    `| ratio of the medians | ${(median(three) / median(one)).toFixed(2)} | | |`,
  ];
}

/** How long a choice takes, and how long a change needs to be in all views. */
async function fiveNodes(): Promise<string[]> {
  await using cluster = await start(5);
  const [first] = cluster.agents;
  const chosen = await measureInside<number[]>(first, SCRIPT, ["choose", String(effort("ROUNDS"))]);
  const count = effort("ROUNDS");
  const watching = Promise.all(
    cluster.agents.map((agent) =>
      measureInside<Record<string, number>>(agent, SCRIPT, ["watch", String(count)])
    ),
  );
  const owners = new Map<string, string>();
  for (let i = 0; i < count; i++) {
    const args = ["--json", "--image-ref", BENCH_IMAGE, "--mem", "16"];
    const { id, node } = JSON.parse(await first.ok("spawn", ...args));
    owners.set(id, node);
  }
  const views = await watching;
  const names = cluster.agents.map(({ name }) => name);
  const delays = [...owners].map(([id, owner]) => {
    const times = views.map((view) => view[id]);
    return Math.max(...times) - times[names.indexOf(owner)];
  });
  return [
    row("placement alone (dry run through the API), five nodes, ms", chosen),
    row("a change from the owner's list to all lists, five nodes, looked at every 20 ms, ms", delays),
  ];
}

/** From the last packet of a node to the page of its workload from elsewhere. */
async function deaths(profile: string): Promise<string[]> {
  await using cluster = await start(3, ["--respawn-on-node-failure", "--profile", profile]);
  const [first] = cluster.agents;
  const tookMs: number[] = [];
  for (let round = 0; round < effort("DEATHS"); round++) {
    const id = await spawnElsewhere(cluster);
    const [{ node }] = await first.list();
    const dead = cluster.agents.findIndex(({ name }) => name === node);
    await cluster.until("its page comes", async () => (await first.page(id)).startsWith("Hello"));
    const startMs = performance.now();
    await cluster.lan.cut([dead], cluster.agents.map((_, i) => i).filter((i) => i !== dead));
    await answers(first, id, { not: node as string });
    tookMs.push((performance.now() - startMs) / 1000);
    await cluster.lan.heal();
    await cluster.isWhole();
    await first.ok("stop", id, "--grace", "0");
    await cluster.until("nothing runs", async () => {
      const lists = await Promise.all(cluster.agents.map((agent) => agent.list()));
      return lists.every((list) => list.length === 0);
    });
  }
  return [row(`a node dies, its workload answers from another, profile ${profile}, s`, tookMs, 1)];
}

/** A workload on another node than the first. */
async function spawnElsewhere({ agents: [first] }: LiveCluster): Promise<string> {
  const args = ["--image-ref", BENCH_IMAGE, "--mem", "16", "--ports", "8080:8080"];
  return await first.spawn(...args, "--constraint", `node.name!=${first.name}`);
}

async function answers(through: LiveAgent, id: string, { not }: { not: string }): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const page = await through.curl("-m", "1", "-H", `Host: ${id}.example.com`, "http://127.0.0.1:8080/");
    const workload = (await through.list()).find((each) => each.id === id);
    if (page.startsWith("Hello") && workload?.node !== not) return;
    if (performance.now() > endMs) throw new Error(`Cannot measure: "${id}" did not come back`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

async function start(size: number, flags: readonly string[] = []): Promise<LiveCluster> {
  const cluster = await LiveCluster.start(size, { flags });
  try {
    await Promise.all(cluster.agents.map((agent) => agent.load(busyboxImage(), BENCH_IMAGE)));
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
  return cluster;
}

function row(name: string, values: readonly number[], digits = 0): string {
  const figures = [median(values), quantile(values, 0.9), Math.max(...values)];
  return `| ${name} | ${figures.map((value) => value.toFixed(digits)).join(" | ")} |`;
}

if (import.meta.main) console.log(await clusterBench());
