import { writeCertificate } from "../../agent/proxy/test_certificate.ts";
import { freePort } from "../../agent/proxy/test_support.ts";
import { constantRate } from "./support/constant_rate.ts";
import {
  type Peer,
  start,
  startCaddy,
  startHaproxy,
  startNginxProxy,
  startUpstream,
} from "./support/proxy_peers.ts";

/**
 * Compares the proxy with nginx, Caddy and HAProxy: `deno run -A --unstable-net tests/bench/proxy.ts`. Set CADDY to a
 * Caddy binary that is not on PATH; peers that are missing are left out. ROUNDS and SECONDS change the effort.
 */
const ROUNDS = Number(Deno.env.get("ROUNDS") ?? 5);
const SECONDS = Number(Deno.env.get("SECONDS") ?? 4);
const FILES = { small: 100, medium: 20 * 1024, large: 1 << 20 };

interface Sample {
  requestsPerSecond: number;
  p99Ms: number;
}

async function wrk(url: string): Promise<Sample> {
  const { stdout } = await new Deno.Command("wrk", {
    args: ["-t1", "-c64", `-d${SECONDS}`, "--latency", "-H", "Host: app.test", url],
  }).output();
  const text = new TextDecoder().decode(stdout);
  const [, p99, unit] = /99%\s+([\d.]+)(us|ms|s)/.exec(text) ?? [];
  if (/Non-2xx|Socket errors/.test(text)) throw new Error(`Cannot measure "${url}": ${text}`);
  return {
    requestsPerSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1]),
    p99Ms: Number(p99) * { us: 0.001, ms: 1, s: 1000 }[unit as "us" | "ms" | "s"],
  };
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1]) / 1024;
}

async function startAll(
  dir: string,
  upstreamPort: number,
  tls?: { certFile: string; keyFile: string },
): Promise<Peer[]> {
  const caddy = Deno.env.get("CADDY") ?? "caddy";
  const ours = async (workers: number) => {
    const port = freePort();
    const script = new URL("./support/proxy_process.ts", import.meta.url).pathname;
    const files = tls ? [tls.certFile, tls.keyFile] : [];
    const args = [
      "run",
      "-A",
      "--unstable-net",
      script,
      `${port}`,
      `${upstreamPort}`,
      `${workers}`,
      ...files,
    ];
    return await start(`hypercore ×${workers}`, [Deno.execPath(), ...args], port);
  };
  const starters = [
    () => ours(1),
    () => ours(2),
    () => startNginxProxy({ dir, port: freePort(), upstreamPort, tls }),
    () => startHaproxy({ dir, port: freePort(), upstreamPort, tls }),
    () => startCaddy({ dir, port: freePort(), upstreamPort, tls, binary: caddy }),
  ];
  const peers: Peer[] = [];
  for (const starter of starters) {
    try {
      peers.push(await starter());
    } catch (error) {
      console.log(`left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  return peers;
}

async function throughput(title: string, peers: Peer[], scheme: string, path: string): Promise<void> {
  const samples = new Map(peers.map((peer) => [peer, [] as Sample[]]));
  const before = new Map(peers.map((peer) => [peer, rssMiB(peer.pid)]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const peer of peers) samples.get(peer)!.push(await wrk(`${scheme}://127.0.0.1:${peer.port}${path}`));
  }
  const rate = (peer: Peer) => median(samples.get(peer)!.map((sample) => sample.requestsPerSecond));
  const reference = rate(peers.find((peer) => peer.name === "nginx") ?? peers[0]);
  console.log(
    `\n### ${title}\n\n| proxy | req/s (median of ${ROUNDS}) | min–max | ÷ nginx | p99 ms | RSS MiB |\n|---|---|---|---|---|---|`,
  );
  for (const peer of peers) {
    const all = samples.get(peer)!;
    const rates = all.map((sample) => sample.requestsPerSecond);
    const span = `${Math.min(...rates).toFixed(0)}–${Math.max(...rates).toFixed(0)}`;
    const p99 = median(all.map((sample) => sample.p99Ms)).toFixed(1);
    const rss = `${before.get(peer)!.toFixed(0)} → ${rssMiB(peer.pid).toFixed(0)}`;
    console.log(
      `| ${peer.name} | ${rate(peer).toFixed(0)} | ${span} | ${
        (rate(peer) / reference).toFixed(2)
      } | ${p99} | ${rss} |`,
    );
  }
}

async function latency(peers: Peer[]): Promise<void> {
  const rate = { path: "/medium", ratePerSecond: 5000, seconds: SECONDS, connections: 64 };
  console.log(
    `\n### 20 KB at 5,000 requests/s\n\n| via | p50 ms | p99 ms (median of ${ROUNDS}) |\n|---|---|---|`,
  );
  const results = new Map(peers.map((peer) => [peer, [] as { p50: number; p99: number }[]]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const peer of peers) {
      const sorted = await constantRate({ ...rate, port: peer.port });
      const at = (share: number) => sorted[Math.floor(sorted.length * share)];
      results.get(peer)!.push({ p50: at(0.5), p99: at(0.99) });
    }
  }
  for (const [peer, all] of results) {
    const p50 = median(all.map((one) => one.p50)), p99 = median(all.map((one) => one.p99));
    console.log(`| ${peer.name} | ${p50.toFixed(2)} | ${p99.toFixed(2)} |`);
  }
}

const dir = await Deno.makeTempDir();
try {
  await Deno.chmod(dir, 0o755);
  for (const [name, bytes] of Object.entries(FILES)) {
    await Deno.writeFile(`${dir}/${name}`, new Uint8Array(bytes).fill(120));
  }
  await using upstream = await startUpstream({ dir, port: freePort(), root: dir });
  {
    await using stack = new AsyncDisposableStack();
    const peers = (await startAll(dir, upstream.port)).map((peer) => stack.use(peer));
    await throughput("100 B, 64 connections", peers, "http", "/small");
    await throughput("1 MiB, 64 connections", peers, "http", "/large");
    await latency([{ ...upstream, name: "upstream alone" }, ...peers]);
  }
  {
    await using stack = new AsyncDisposableStack();
    const tls = await writeCertificate(dir, "app.test");
    const peers = (await startAll(dir, upstream.port, tls)).map((peer) => stack.use(peer));
    await throughput("100 B, 64 connections, TLS", peers, "https", "/small");
    await throughput("1 MiB, 64 connections, TLS", peers, "https", "/large");
  }
} finally {
  await Deno.remove(dir, { recursive: true });
}
