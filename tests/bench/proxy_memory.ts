import http2 from "node:http2";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { writeCertificate } from "../../agent/proxy/test_certificate.ts";
import { freePort } from "../support/free_port.ts";
import { machineFacts } from "./support/agent.ts";
import { rssMiB, wrk } from "./support/measure.ts";
import type { MemoryProcessOptions, ProxyMemory } from "./support/proxy_memory_process.ts";
import { startUpstream } from "./support/proxy_peers.ts";

/** How long {@linkcode proxyMemoryBench} goes on. */
export interface ProxyMemoryOptions {
  /** Two samples each; 5 by default. */
  minutes?: number;
  /** Threads of the proxy; 2 by default. */
  workers?: number;
  /** Told of each row as it comes. */
  onProgress?: (line: string) => void;
}

/** One kind of load, for some seconds. */
type Turn = (ports: { plain: number; tls: number }, seconds: number) => Promise<void>;

const CONNECTIONS = 64;
const SMALL_BYTES = 100;
const LARGE_BYTES = 1 << 20;
const SAMPLE_SECONDS = 30;
/** Requests of an HTTP/2 connection at once, before it is closed and another opened. */
const STREAMS = 50;
const READ_BYTES = 64 * 1024;
const MAX_ANSWER_SECONDS = 15;
/** Time for connections of the turn before to end, in milliseconds. */
const SETTLE_MS = 500;

const TURNS: Turn[] = [
  ({ plain }, seconds) => load(`http://127.0.0.1:${plain}/small`, { seconds }),
  ({ plain }, seconds) => load(`http://127.0.0.1:${plain}/large`, { seconds }),
  ({ plain }, seconds) =>
    load(`http://127.0.0.1:${plain}/small`, { seconds, headers: ["Connection: close"] }),
  ({ plain }, seconds) => inLanes(seconds, () => leaveWithin(plain)),
  ({ plain }, seconds) => inLanes(seconds, () => askByHttp2(plain)),
  ({ tls }, seconds) => load(`https://127.0.0.1:${tls}/small`, { seconds }),
  ({ tls }, seconds) => load(`https://127.0.0.1:${tls}/large`, { seconds }),
  ({ tls }, seconds) => load(`https://127.0.0.1:${tls}/small`, { seconds, headers: ["Connection: close"] }),
];

/**
 * Whether the proxy's memory stays where it is under load: small and large answers over kept connections, a connection for
 * each request, clients that leave within an answer, HTTP/2 connections that come and go, and the same with TLS, in turns.
 * Each half minute its memory is read as found, and again when all its threads have collected their garbage and the C
 * library has given back what it keeps of what was freed. Gives Markdown.
 */
export async function proxyMemoryBench(options: ProxyMemoryOptions = {}): Promise<string> {
  const { minutes = 5, workers = 2, onProgress = () => {} } = options;
  const facts = machineFacts();
  const dir = await Deno.makeTempDir();
  const rows = [
    "| minutes | requests | RSS as found, MiB | RSS after GC and trim | JS heap after GC | buffers of it | connections |",
    "|---|---|---|---|---|---|---|",
  ];
  try {
    await Deno.chmod(dir, 0o755); // for nginx's workers
    await Deno.writeFile(`${dir}/small`, new Uint8Array(SMALL_BYTES).fill(120));
    await Deno.writeFile(`${dir}/large`, new Uint8Array(LARGE_BYTES).fill(120));
    const tls = await writeCertificate(dir, "app.test");
    await using upstream = await startUpstream({ dir, port: freePort(), root: dir });
    const ports = { plain: freePort(), tls: freePort() };
    await using proxy = new MeasuredProxy({
      plainPort: ports.plain,
      tlsPort: ports.tls,
      upstreamPort: upstream.port,
      workers,
      tls,
    });
    const sample = async (minute: number) => {
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      const found = rssMiB(proxy.pid);
      const { requests, heapUsed, external, openConnections } = await proxy.collect();
      const mebibytes = [heapUsed, external].map((bytes) => (bytes / 1_048_576).toFixed(1));
      const cells = [
        minute,
        requests,
        found.toFixed(0),
        rssMiB(proxy.pid).toFixed(0),
        ...mebibytes,
        openConnections,
      ];
      rows.push(`| ${cells.join(" | ")} |`);
      onProgress(rows.at(-1)!);
    };
    await proxy.collect(); // it listens
    for (const turn of TURNS) await turn(ports, 1); // compiled, and the buffers are there
    await sample(0);
    const samples = minutes * 60 / SAMPLE_SECONDS;
    for (let n = 1; n <= samples; n++) {
      for (const turn of TURNS) await turn(ports, Math.floor(SAMPLE_SECONDS / TURNS.length));
      await sample(n * SAMPLE_SECONDS / 60);
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
  return [`${facts}; ${CONNECTIONS} connections, ${workers} workers`, "", ...rows].join("\n");
}

async function load(url: string, options: { seconds: number; headers?: readonly string[] }): Promise<void> {
  // How long an answer takes says nothing of memory.
  await wrk(url, { connections: CONNECTIONS, timeoutSeconds: MAX_ANSWER_SECONDS, ...options });
}

/** Does something again and again on as many lanes as there are connections, until the time is over. */
async function inLanes(seconds: number, work: () => Promise<void>): Promise<void> {
  const endMs = performance.now() + seconds * 1000;
  const lane = async () => {
    while (performance.now() < endMs) await work();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, lane));
}

/** Asks for a large answer and leaves when the first of it is there. */
async function leaveWithin(port: number): Promise<void> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode("GET /large HTTP/1.1\r\nHost: app.test\r\n\r\n"));
  await connection.read(new Uint8Array(READ_BYTES));
}

/** One connection with many small requests at once, closed in order. */
async function askByHttp2(port: number): Promise<void> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  const closed = new Promise<void>((resolve, reject) => session.on("close", resolve).on("error", reject));
  const ask = () =>
    new Promise<void>((resolve, reject) => {
      const stream = session.request({ ":path": "/small", ":authority": "app.test" });
      stream.on("end", resolve).on("error", reject).resume();
    });
  await Promise.all(Array.from({ length: STREAMS }, ask));
  session.close();
  await closed;
}

/** The proxy as a process of its own that can be made to collect its garbage. */
class MeasuredProxy implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;

  constructor(options: MemoryProcessOptions) {
    const script = new URL("./support/proxy_memory_process.ts", import.meta.url).pathname;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--unstable-net", "--v8-flags=--expose-gc", script, JSON.stringify(options)],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    // deno-lint-ignore no-explicit-any -- two types of the same thing
    const input = Readable.fromWeb(this.#child.stdout as any);
    this.#answers = createInterface({ input })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid;
  }

  async collect(): Promise<ProxyMemory> {
    await this.#input.write(new TextEncoder().encode("\n"));
    const { value, done } = await this.#answers.next();
    if (done) throw new Error("Cannot measure the proxy: it has ended");
    return JSON.parse(value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {}); // it may have ended
    await this.#child.status;
  }
}
