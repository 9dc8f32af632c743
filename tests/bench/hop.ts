import { makeNodeCertificate } from "../../agent/proxy/hop/test_node.ts";
import { fingerprintOf, hopSecret, type Upstream } from "../../agent/proxy/mod.ts";
import { writeCertificate } from "../../agent/proxy/test_certificate.ts";
import { freePort } from "../support/free_port.ts";
import type { HopProcessOptions } from "./support/hop_process.ts";
import { cpuMs, wrk } from "./support/measure.ts";
import { type Peer, start, startNginxNode, startUpstream } from "./support/proxy_peers.ts";
import { median } from "./support/stats.ts";

/** How much effort {@linkcode hopBench} makes; the defaults take about two minutes. */
export interface HopBenchOptions {
  /** Turns of either way in every case. */
  rounds?: number;
  /** Length of one turn. */
  seconds?: number;
  /** Worker threads of each node. */
  workers?: number;
  /** Told what is going on. */
  onProgress?: (line: string) => void;
}

const FILES = { small: 100, medium: 20 * 1024, large: 1 << 20 };
const CASES = [
  { title: "100 B", scheme: "http", path: "/small" },
  { title: "20 KB", scheme: "http", path: "/medium" },
  { title: "1 MiB", scheme: "http", path: "/large" },
  { title: "100 B, TLS", scheme: "https", path: "/small" },
  { title: "20 KB, TLS", scheme: "https", path: "/medium" },
  { title: "1 MiB, TLS", scheme: "https", path: "/large" },
] as const;
const CONNECTIONS = 64;
const OWNER = "127.0.0.1", OTHER = "127.0.0.2";
const HEADER = [
  "case",
  "proxy",
  "way",
  "req/s",
  "÷ local",
  "p50 ms",
  "p99 ms",
  "CPU µs/req of the first node",
  "of the owner",
  "busiest node, ÷ local",
];

/** One turn by one way. */
interface Sample {
  requestsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  /** Of the first node and of the owner. */
  cpuMicros: [number, number];
}

/**
 * Compares a request to the node that runs the workload with one to another node that sends it there, and both with two nodes
 * of nginx that have TLS 1.3 between them. Both nodes, the load generator and the upstream share this machine's processors, so
 * the requests per second of the hop are those of half a machine a node; the processor time of the busiest node tells what two
 * machines would do. Returns Markdown.
 */
export async function hopBench(options: HopBenchOptions = {}): Promise<string> {
  const { rounds = 4, seconds = 2, workers = 1, onProgress = () => {} } = options;
  const loadBefore = Deno.loadavg()[0];
  const rows: string[][] = [HEADER, HEADER.map(() => "---")];
  const dir = await Deno.makeTempDir();
  try {
    await Deno.chmod(dir, 0o755); // for nginx's workers
    for (const [name, bytes] of Object.entries(FILES)) {
      await Deno.writeFile(`${dir}/${name}`, new Uint8Array(bytes).fill(120));
    }
    await using upstream = await startUpstream({ dir, port: freePort(), root: dir });
    const tls = await writeCertificate(dir, "app.test");
    for (const scheme of ["http", "https"] as const) {
      const frontTls = scheme === "https" ? tls : undefined;
      await using ours = await startNodes({ upstreamPort: upstream.port, workers, tls: frontTls });
      await using nginx = await startNginxNodes({ dir, upstreamPort: upstream.port, tls: frontTls });
      const all = [{ name: `hypercore ×${workers}`, nodes: ours }, { name: "nginx", nodes: nginx }];
      for (const { title, path } of CASES.filter((one) => one.scheme === scheme)) {
        const series = all.map((one) => ({ ...one, local: [] as Sample[], remote: [] as Sample[] }));
        for (let round = 1; round <= rounds; round++) {
          onProgress(`remote hop, ${title}: round ${round} of ${rounds}`);
          for (const { nodes, local, remote } of series) {
            local.push(await measure(`${scheme}://${OWNER}:${nodes.port}${path}`, nodes, seconds));
            remote.push(await measure(`${scheme}://${OTHER}:${nodes.port}${path}`, nodes, seconds));
          }
        }
        for (const { name, local, remote } of series) {
          rows.push(
            row([title, name, "local"], local, local),
            row([title, name, "remote hop"], remote, local),
          );
        }
      }
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
  const load = `${loadBefore.toFixed(1)} before, ${Deno.loadavg()[0].toFixed(1)} after`;
  return `Two nodes, ${CONNECTIONS} kept connections; medians of ${rounds} turns of ` +
    `${seconds} s; load average ${load}.\n\n` + rows.map((cells) => `| ${cells.join(" | ")} |`).join("\n") +
    "\n";
}

async function measure(url: string, { first, owner }: Nodes, seconds: number): Promise<Sample> {
  const before = [cpuMs(first.pid), cpuMs(owner.pid)];
  const { requests, ...rest } = await wrk(url, { seconds, connections: CONNECTIONS });
  const micros = (peer: Peer, was: number) => (cpuMs(peer.pid) - was) * 1000 / requests;
  return { ...rest, cpuMicros: [micros(first, before[0]), micros(owner, before[1])] };
}

function row(names: [string, string, way: string], samples: Sample[], local: Sample[]): string[] {
  const middle = (of: (sample: Sample, round: number) => number) => median(samples.map(of));
  const busiest = (sample: Sample) => Math.max(...sample.cpuMicros);
  return [
    ...names,
    middle((sample) => sample.requestsPerSecond).toFixed(0),
    middle((sample, round) => sample.requestsPerSecond / local[round].requestsPerSecond).toFixed(2),
    middle((sample) => sample.p50Ms).toFixed(1),
    middle((sample) => sample.p99Ms).toFixed(1),
    samples === local ? "" : middle((sample) => sample.cpuMicros[0]).toFixed(1),
    middle((sample) => sample.cpuMicros[1]).toFixed(1),
    middle((sample, round) => busiest(local[round]) / busiest(sample)).toFixed(2),
  ];
}

interface Nodes extends AsyncDisposable {
  port: number;
  first: Peer;
  owner: Peer;
}

async function startNodes(
  { upstreamPort, workers, tls }: {
    upstreamPort: number;
    workers: number;
    tls?: { certFile: string; keyFile: string };
  },
): Promise<Nodes> {
  const port = freePort();
  const secrets = [hopSecret(new Uint8Array(32))];
  await using stack = new AsyncDisposableStack();
  const startNode = async (address: string, upstream: Upstream) => {
    const identity = {
      node: address,
      certificate: await makeNodeCertificate(),
      secrets,
      bindHosts: [address],
      port: freePort(),
    };
    const options: HopProcessOptions = { port, upstream, workers, identity, tls };
    const script = new URL("./support/hop_process.ts", import.meta.url).pathname;
    const command = [Deno.execPath(), "run", "-A", "--unstable-net", script, JSON.stringify(options)];
    return { identity, peer: stack.use(await start(address, command, port, { hostname: address })) };
  };
  const owner = await startNode(OWNER, { kind: "tcp", hostname: "127.0.0.1", port: upstreamPort });
  const first = await startNode(OTHER, {
    kind: "peer",
    node: OWNER,
    hostname: OWNER,
    port: owner.identity.port,
    fingerprint: fingerprintOf(owner.identity.certificate.cert),
  });
  const started = stack.move();
  return {
    port,
    first: first.peer,
    owner: owner.peer,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

/** The same of nginx: one process a node. */
async function startNginxNodes(
  { dir, upstreamPort, tls }: {
    dir: string;
    upstreamPort: number;
    tls?: { certFile: string; keyFile: string };
  },
): Promise<Nodes> {
  const { cert, key } = await makeNodeCertificate();
  const hopTls = { certFile: `${dir}/node.pem`, keyFile: `${dir}/node.key` };
  await Deno.writeTextFile(hopTls.certFile, cert);
  await Deno.writeTextFile(hopTls.keyFile, key);
  const port = freePort();
  const hop = { hostname: OWNER, port: freePort(), tls: hopTls };
  await using stack = new AsyncDisposableStack();
  const owner = stack.use(
    await startNginxNode({
      dir: await nodeDir(dir, "owner"),
      front: { hostname: OWNER, port, tls },
      hop,
      upstream: { hostname: "127.0.0.1", port: upstreamPort },
    }),
  );
  const first = stack.use(
    await startNginxNode({
      dir: await nodeDir(dir, "first"),
      front: { hostname: OTHER, port, tls },
      upstream: hop,
    }),
  );
  const started = stack.move();
  return { port, first, owner, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

async function nodeDir(dir: string, name: string): Promise<string> {
  await Deno.mkdir(`${dir}/${name}`, { recursive: true });
  return `${dir}/${name}`;
}

// Alone: `deno run -A --unstable-net tests/bench/hop.ts`; ROUNDS, SECONDS and WORKERS change what it does.
if (import.meta.main) {
  const { ROUNDS, SECONDS, WORKERS } = Deno.env.toObject();
  const table = await hopBench({
    ...(ROUNDS ? { rounds: Number(ROUNDS) } : {}),
    ...(SECONDS ? { seconds: Number(SECONDS) } : {}),
    ...(WORKERS ? { workers: Number(WORKERS) } : {}),
    onProgress: (line) => console.error(line),
  });
  console.log(table);
}
