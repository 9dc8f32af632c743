import { writeCertificate } from "../../agent/proxy/test_certificate.ts";
import { freePort } from "../support/free_port.ts";
import { proxyMemoryBench } from "./proxy_memory.ts";
import { constantRate } from "./support/constant_rate.ts";
import {
  type Peer,
  start,
  startCaddy,
  startHaproxy,
  startNginxProxy,
  startUpstream,
} from "./support/proxy_peers.ts";
import { cpuMs, rssMiB, wrk } from "./support/measure.ts";
import { median } from "./support/stats.ts";

/** How much effort {@linkcode proxyBench} makes; the defaults take about four minutes. */
export interface ProxyBenchOptions {
  /** Turns of every proxy in every case. */
  rounds?: number;
  /** Length of one turn. */
  seconds?: number;
  /** Caddy's executable. */
  caddy?: string;
  /** Told what is going on. */
  onProgress?: (line: string) => void;
}

type Effort = Required<ProxyBenchOptions>;

const FILES = { small: 100, medium: 20 * 1024, large: 1 << 20 };
const CONNECTIONS = 64;
const RATE_PER_SECOND = 5000;
const HEADER = [
  "case",
  "proxy",
  "req/s",
  "min–max",
  "÷ nginx",
  "÷ Caddy",
  "p50 ms",
  "p99 ms",
  "p99 − upstream's",
  "CPU µs/req",
  "RSS MiB before → after",
];

/** One turn of one proxy. */
interface Sample {
  requestsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  cpuMicros: number;
}

/** All turns of one proxy in one case. */
interface Series {
  peer: Peer;
  samples: Sample[];
  rssBefore: number;
  rssAfter: number;
}

/**
 * Compares the proxy with nginx, HAProxy and Caddy in front of one static nginx, taking turns; peers that are not installed
 * are left out. Returns one Markdown table of medians. CPU per request counts the proxy's process alone, so it tells most
 * on a machine with other work.
 */
export async function proxyBench(options: ProxyBenchOptions = {}): Promise<string> {
  const effort: Effort = { rounds: 5, seconds: 1, caddy: "caddy", onProgress: () => {}, ...options };
  const loadBefore = Deno.loadavg()[0];
  const dir = await Deno.makeTempDir();
  const rows: string[][] = [HEADER, HEADER.map(() => "---")];
  try {
    await Deno.chmod(dir, 0o755); // for nginx's workers
    for (const [name, bytes] of Object.entries(FILES)) {
      await Deno.writeFile(`${dir}/${name}`, new Uint8Array(bytes).fill(120));
    }
    await using upstream = await startUpstream({ dir, port: freePort(), root: dir });
    {
      await using peers = await startAll(dir, upstream.port, effort);
      rows.push(...await throughput("100 B", peers.all, "http", "/small", effort));
      rows.push(...await throughput("1 MiB", peers.all, "http", "/large", effort));
      rows.push(...await latency([{ ...upstream, name: "none: upstream alone" }, ...peers.all], effort));
    }
    {
      const tls = await writeCertificate(dir, "app.test");
      await using peers = await startAll(dir, upstream.port, effort, tls);
      rows.push(...await throughput("100 B, TLS", peers.all, "https", "/small", effort));
      rows.push(...await throughput("1 MiB, TLS", peers.all, "https", "/large", effort));
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
  const load = `${loadBefore.toFixed(1)} before, ${Deno.loadavg()[0].toFixed(1)} after`;
  return `${CONNECTIONS} kept connections; medians of ${effort.rounds} turns of ${effort.seconds} s; load average ${load}.\n\n` +
    rows.map((cells) => `| ${cells.join(" | ")} |`).join("\n") + "\n";
}

/** wrk, as fast as it goes. */
async function throughput(
  title: string,
  peers: Peer[],
  scheme: string,
  path: string,
  effort: Effort,
): Promise<string[][]> {
  const all = await takeTurns(title, peers, effort, async (peer) => {
    const url = `${scheme}://127.0.0.1:${peer.port}${path}`;
    const cpuBefore = cpuMs(peer.pid);
    const { requests, ...rest } = await wrk(url, { seconds: effort.seconds, connections: CONNECTIONS });
    return { ...rest, cpuMicros: (cpuMs(peer.pid) - cpuBefore) * 1000 / requests };
  });
  const rates = ({ samples }: Series) => samples.map((one) => one.requestsPerSecond);
  const named = (name: string) => all.find(({ peer }) => peer.name === name);
  return all.map((series) => {
    // Of the same round, so that both had the same machine.
    const over = (name: string) => {
      const reference = named(name);
      return reference
        ? median(rates(series).map((rate, round) => rate / rates(reference)[round])).toFixed(2)
        : "";
    };
    const own = rates(series);
    const span = `${Math.min(...own).toFixed(0)}–${Math.max(...own).toFixed(0)}`;
    return row(title, series, [median(own).toFixed(0), span, over("nginx"), over("Caddy")], "");
  });
}

/** 20 KB at a constant rate; the first peer is the upstream itself, whose latency is the floor of the same round. */
async function latency(peers: Peer[], effort: Effort): Promise<string[][]> {
  const { seconds } = effort;
  const title = `20 KB at ${RATE_PER_SECOND}/s`;
  const rate = { path: "/medium", ratePerSecond: RATE_PER_SECOND, seconds, connections: CONNECTIONS };
  const all = await takeTurns(title, peers, effort, async (peer) => {
    const cpuBefore = cpuMs(peer.pid);
    const startMs = performance.now();
    const { sorted, requests } = await constantRate({ ...rate, port: peer.port });
    const at = (share: number) => sorted[Math.floor(sorted.length * share)];
    return {
      requestsPerSecond: requests * 1000 / (performance.now() - startMs),
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      cpuMicros: (cpuMs(peer.pid) - cpuBefore) * 1000 / requests,
    };
  });
  return all.map((series) => {
    const added = series.samples.map((one, round) => one.p99Ms - all[0].samples[round].p99Ms);
    return row(title, series, ["", "", "", ""], series === all[0] ? "" : median(added).toFixed(1));
  });
}

/** Each peer once a round, so that what else the machine does falls on all alike. */
async function takeTurns(
  title: string,
  peers: Peer[],
  { rounds, onProgress }: Effort,
  measure: (peer: Peer) => Promise<Sample>,
): Promise<Series[]> {
  const all = peers.map((peer): Series => ({ peer, samples: [], rssBefore: rssMiB(peer.pid), rssAfter: 0 }));
  for (let round = 1; round <= rounds; round++) {
    onProgress(`${title}: round ${round} of ${rounds}`);
    for (const { peer, samples } of all) samples.push(await measure(peer));
  }
  for (const series of all) series.rssAfter = rssMiB(series.peer.pid);
  return all;
}

function row(title: string, series: Series, rates: string[], addedP99: string): string[] {
  const { peer, samples, rssBefore, rssAfter } = series;
  const middle = (of: (sample: Sample) => number) => median(samples.map(of)).toFixed(1);
  return [
    title,
    peer.name,
    ...rates,
    middle((sample) => sample.p50Ms),
    middle((sample) => sample.p99Ms),
    addedP99,
    middle((sample) => sample.cpuMicros),
    `${rssBefore.toFixed(0)} → ${rssAfter.toFixed(0)}`,
  ];
}

interface Peers extends AsyncDisposable {
  all: Peer[];
}

async function startAll(
  dir: string,
  upstreamPort: number,
  { caddy, onProgress }: Effort,
  tls?: { certFile: string; keyFile: string },
): Promise<Peers> {
  const starters = [
    () => startOurs({ upstreamPort, workers: 1, tls }),
    () => startOurs({ upstreamPort, workers: 2, tls }),
    () => startNginxProxy({ dir, port: freePort(), upstreamPort, tls }),
    () => startHaproxy({ dir, port: freePort(), upstreamPort, tls }),
    () => startCaddy({ dir, port: freePort(), upstreamPort, tls, binary: caddy }),
  ];
  await using stack = new AsyncDisposableStack();
  const all: Peer[] = [];
  for (const starter of starters) {
    try {
      all.push(stack.use(await starter()));
    } catch (error) {
      onProgress(`left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  const started = stack.move();
  return { all, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

async function startOurs(
  { upstreamPort, workers, tls }: {
    upstreamPort: number;
    workers: number;
    tls?: { certFile: string; keyFile: string };
  },
): Promise<Peer> {
  const port = freePort();
  const script = new URL("./support/proxy_process.ts", import.meta.url).pathname;
  const files = tls ? [tls.certFile, tls.keyFile] : [];
  const args = [script, `${port}`, `${upstreamPort}`, `${workers}`, ...files];
  return await start(
    `hypercore ×${workers}`,
    [Deno.execPath(), "run", "-A", "--unstable-net", ...args],
    port,
  );
}

// Alone: `deno run -A --unstable-net tests/bench/proxy.ts`; ROUNDS, SECONDS and CADDY change what it does, and PROXY_CPU=1
// behind `taskset -c 0` gives each proxy a processor of its own. With `memory` it looks at the proxy's memory instead, for
// MINUTES with WORKERS.
if (import.meta.main) {
  const { ROUNDS, SECONDS, CADDY, MINUTES, WORKERS } = Deno.env.toObject();
  const onProgress = (line: string) => console.error(line);
  console.log(
    Deno.args[0] === "memory"
      ? await proxyMemoryBench({
        ...(MINUTES ? { minutes: Number(MINUTES) } : {}),
        ...(WORKERS ? { workers: Number(WORKERS) } : {}),
        onProgress,
      })
      : await proxyBench({
        ...(ROUNDS ? { rounds: Number(ROUNDS) } : {}),
        ...(SECONDS ? { seconds: Number(SECONDS) } : {}),
        ...(CADDY ? { caddy: CADDY } : {}),
        onProgress,
      }),
  );
}
