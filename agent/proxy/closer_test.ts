import assert from "node:assert/strict";
import { openProxy, type Proxy, type ProxyLimits } from "./mod.ts";
import { Closer, MAX_COLLECTED, MAX_ENDING } from "./closer.ts";
import { Counters } from "./counters.ts";
import { Deadlines } from "./deadlines.ts";
import { makeNodeCertificate, TestNode } from "./hop/test_node.ts";
import { writeCertificate } from "./test_certificate.ts";
import { freePort } from "../../tests/support/free_port.ts";
import { appRoute, recordingLog, socketsOf, TestUpstream } from "./test_support.ts";

const GET = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
const LONG = { handshakeTimeoutMs: 600_000, headTimeoutMs: 600_000, keepAliveTimeoutMs: 600_000 };
/** The head of a ClientHello of 508 bytes, and 3 bytes of it. */
const HALF_HELLO = Uint8Array.of(22, 3, 1, 2, 0, 1, 0, 1);

/** Tries until it holds; the test's own time-out is the deadline. */
async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!await holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Connections of one who says nothing, or half a ClientHello; closed in the end. */
class Strangers implements Disposable {
  readonly #conns: Deno.Conn[] = [];

  constructor(private readonly hostname: string, private readonly port: number) {}

  async open(count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      const conn = await Deno.connect({ hostname: this.hostname, port: this.port });
      this.#conns.push(conn);
      if (n % 2 === 1) await conn.write(HALF_HELLO);
    }
  }

  [Symbol.dispose](): void {
    for (const conn of this.#conns) conn.close();
  }
}

interface Https extends AsyncDisposable {
  proxy: Proxy;
  port: number;
  cert: string;
}

/** A proxy with a certificate whose workload is that upstream. */
async function https(
  upstream: { port: number },
  limits: Partial<ProxyLimits>,
  host = "127.0.0.1",
): Promise<Https> {
  const dir = await Deno.makeTempDir();
  const tls = await writeCertificate(dir, "app");
  const proxy = await openProxy({
    bindHosts: [host],
    workers: 1,
    log: recordingLog(),
    tls,
    limits: { shutdownGraceMs: 0, ...limits },
  });
  const port = freePort();
  assert.deepEqual(await proxy.apply([appRoute(port, upstream.port)]), []);
  return {
    proxy,
    port,
    cert: await Deno.readTextFile(tls.certFile),
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await Deno.remove(dir, { recursive: true });
    },
  };
}

function connect({ port, cert }: Https, hostname = "127.0.0.1"): Promise<Deno.TlsConn> {
  return Deno.connectTls({ hostname, port, caCerts: [cert] });
}

/** All that comes until the end. */
async function rest(conn: Deno.Conn): Promise<string> {
  let text = "";
  for await (const piece of conn.readable) text += new TextDecoder().decode(piece);
  return text;
}

/** An answer so long that no buffer holds it. */
async function flood(
  connection: { until(pattern: RegExp): Promise<string>; send(text: string): Promise<void> },
) {
  await connection.until(/\r\n\r\n/);
  const piece = "x".repeat(65_536);
  await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${piece.length * 1_000}\r\n\r\n`);
  for (let n = 0; n < 1_000; n++) await connection.send(piece);
}

for (const [bound, host] of [["127.0.0.1", "127.0.0.1"], ["::1", "::1"], ["::", "127.0.0.1"]]) {
  Deno.test(`rule 8: silent strangers have no more sockets of the proxy than the limit, and none after their time (${host} at ${bound})`, async () => {
    await using upstream = new TestUpstream(flood);
    for (const limits of [{ ...LONG, maxConnections: 8 }, { handshakeTimeoutMs: 100 }]) {
      await using proxied = await https(upstream, limits, bound);
      const { port } = proxied;
      using strangers = new Strangers(host, port);
      await strangers.open(100);
      const most = "maxConnections" in limits ? 8 : 0;
      await eventually(async () => (await proxied.proxy.stats()).cutConnections === 100 - most);
      await eventually(() => socketsOf(port).accepted.length === most);
    }
  });
}

Deno.test("rule 8: strangers at the hop port have no more sockets than the limit, and none after their time", async () => {
  for (
    const [limits, most] of [
      [{ ...LONG, maxHopOpenings: 8 }, 8],
      [{ ...LONG, maxHopConnections: 8, lingerTimeoutMs: 200 }, 8],
      [{ handshakeTimeoutMs: 100 }, 0],
    ] as const
  ) {
    await using node = await TestNode.open({ limits });
    const { bindHosts: [host], port } = node.identity;
    using strangers = new Strangers(host, port);
    await strangers.open(100);
    await eventually(async () => (await node.proxy.stats()).cutConnections === 100 - most);
    await eventually(() => socketsOf(port).accepted.length === most);
    assert.equal((await node.proxy.stats()).hops.refused, most === 0 ? 0 : 92);
  }
});

Deno.test("a TLS client that does not read its answer is cut in the end, also when the connection was to end with it", async () => {
  await using upstream = new TestUpstream(flood);
  const limits = { idleTimeoutMs: 100, lingerTimeoutMs: 100 };
  await using proxied = await https(upstream, limits);
  const short = "x".repeat(1 << 20);
  await using ending = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${short.length}\r\n\r\n${short}`);
  });
  for (const port of [upstream.port, ending.port]) {
    await proxied.proxy.apply([appRoute(proxied.port, port)]);
    using client = await connect(proxied);
    await client.write(new TextEncoder().encode(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")));
    await eventually(async () => (await proxied.proxy.stats()).openConnections === 0);
    await eventually(() => socketsOf(proxied.port).accepted.length === 0);
  }
});

Deno.test("one who comes over TLS beyond the limit is told so, and one who stays silent then is cut", async () => {
  const asked = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    asked.resolve();
    await connection.rest();
  });
  // Time enough for a handshake, whatever else the machine does.
  await using proxied = await https(upstream, { ...LONG, maxConnections: 1, lingerTimeoutMs: 2_000 });
  using busy = await connect(proxied);
  await busy.write(new TextEncoder().encode(GET));
  await asked.promise;
  assert.match(await rest(await connect(proxied)), /^HTTP\/1\.1 503 /);
  using strangers = new Strangers("127.0.0.1", proxied.port);
  await strangers.open(10);
  await eventually(async () => (await proxied.proxy.stats()).cutConnections === 10);
  await eventually(() => socketsOf(proxied.port).accepted.length === 1);
  const stats = await proxied.proxy.stats();
  assert.equal(stats.refusedConnections, 11);
});

/** A closer, and TLS connections on which nothing is said, as accepted and as opened. */
async function accepted(count: number) {
  const stack = new AsyncDisposableStack();
  const listener = stack.use(
    Deno.listenTls({ hostname: "127.0.0.1", port: 0, ...await makeNodeCertificate() }),
  );
  const counters = new Counters();
  let nowMs = 0;
  const deadlines = new Deadlines({ sweepMs: 1_000_000, now: () => nowMs });
  stack.defer(() => deadlines.stop());
  const closer = new Closer({ deadlines, limits: { lingerTimeoutMs: 1_000 }, counters });
  const conns: Deno.Conn[] = [], clients: Deno.Conn[] = [];
  for (let n = 0; n < count; n++) {
    clients.push(stack.use(await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port })));
    conns.push(await listener.accept());
  }
  const after = (ms: number) => {
    nowMs += ms;
    deadlines.sweep();
  };
  return { closer, counters, conns, clients, after, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Whether the other side has closed. */
async function isOver(client: Deno.Conn): Promise<boolean> {
  return await client.read(new Uint8Array(1)).catch(() => null) === null;
}

Deno.test("rule 8: no more TLS connections come to their end at once than the limit: the oldest is cut", async () => {
  await using at = await accepted(MAX_ENDING + 1);
  for (const conn of at.conns) at.closer.end(conn);
  assert.equal(at.counters.cut, 1);
  at.after(0);
  assert.ok(await isOver(at.clients[0]));
  at.after(2_000_000);
  assert.equal(at.counters.cut, MAX_ENDING + 1);
  for (const client of at.clients) assert.ok(await isOver(client));
  at.closer.stop();
});

Deno.test("rule 8: connections to be cut are collected up to the limit, and cut then at the latest", async () => {
  await using at = await accepted(MAX_COLLECTED + 1);
  const [spared, ...doomed] = at.conns;
  for (const conn of doomed) at.closer.cut(conn);
  for (const client of at.clients.slice(1)) assert.ok(await isOver(client));
  // Nobody else's connection was touched.
  await at.clients[0].write(HALF_HELLO);
  at.closer.cut(spared);
  at.closer.stop();
  assert.ok(await isOver(at.clients[0]));
});
