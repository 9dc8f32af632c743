import http from "node:http";
import { BenchApi } from "./agent.ts";

/**
 * What a benchmark of a cluster measures in one node's network. Arguments: data directory and namespace of the agent, then
 * `first-byte ROUNDS HOST…` (milliseconds from the call of Spawn to the page, through the proxies of these hosts in turns),
 * `choose ROUNDS` (milliseconds of a dry run) or `watch COUNT` (when each of the next so many workloads is seen running by this
 * node, by id, milliseconds since 1970). Prints JSON.
 */
const WARM_UP_ROUNDS = 2;
const PROXY_PORT = 8080;
/** Between two looks: at the page, and at the list. */
const LOOK_MS = 2;
const WATCH_MS = 20;
const DEADLINE_MS = 60_000;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const [dataDir, , what, count, ...hosts] = Deno.args;
const api = new BenchApi(dataDir);
const measures: Record<string, () => Promise<unknown>> = { "first-byte": firstByte, choose, watch };
console.log(JSON.stringify(await measures[what]()));
Deno.exit(0);

async function firstByte(): Promise<number[]> {
  const tookMs: number[] = [];
  for (let round = -WARM_UP_ROUNDS; round < Number(count); round++) {
    const host = hosts[(round + WARM_UP_ROUNDS) % hosts.length];
    const startMs = performance.now();
    const id = await api.spawn();
    while (await status(host, id) !== 200) {
      if (performance.now() - startMs > DEADLINE_MS) throw new Error(`no page of "${id}" through ${host}`);
      await pause(LOOK_MS);
    }
    if (round >= 0) tookMs.push(performance.now() - startMs);
    await api.stop(id);
  }
  return tookMs;
}

async function choose(): Promise<number[]> {
  const tookMs: number[] = [];
  for (let round = -WARM_UP_ROUNDS; round < Number(count); round++) {
    const startMs = performance.now();
    await api.spawn({ dry_run: true });
    if (round >= 0) tookMs.push(performance.now() - startMs);
  }
  return tookMs;
}

async function watch(): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  const endMs = Date.now() + DEADLINE_MS;
  while (Object.keys(seen).length < Number(count) && Date.now() < endMs) {
    const { states = [] } = await api.call<{ states?: { workloads?: { id: string; status?: string }[] }[] }>(
      "List",
      {},
    );
    const nowMs = performance.timeOrigin + performance.now();
    for (const { workloads = [] } of states) {
      for (const { id, status } of workloads) if (status === "running") seen[id] ??= nowMs;
    }
    await pause(WATCH_MS);
  }
  return seen;
}

/** Of the page of a workload; undefined where nobody listens yet. */
function status(host: string, id: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const headers = { host: `${id}.example.com` };
    const request = http.get({ host, port: PROXY_PORT, headers, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("error", () => resolve(undefined));
  });
}
