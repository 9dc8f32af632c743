import assert from "node:assert/strict";
import { closeQuietly, writeAll } from "../sink.ts";
import { echo, exchangeRaw, RawConnection, TestUpstream } from "../test_support.ts";
import {
  CLAIM_ACCEPTED,
  claimLength,
  encodeGreeting,
  HOP_ALPN,
  HOP_MUX_ALPN,
  hopSecret,
  NONCE_BYTES,
} from "./protocol.ts";
import type { HopIdentity } from "./contract.ts";
import { STREAMS_BEFORE_NEXT } from "./sessions.ts";
import { eventually, pair, type TestNodeOptions } from "./test_node.ts";
import { TestRelay } from "./test_relay.ts";

const GET = "GET /p HTTP/1.1\r\nHost: app.test\r\n\r\n";
const LAST_GET = "GET /p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const LAST_POST = "POST /p HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/** Two nodes with a relay between them: what `a` sends to `b` passes it. */
async function relayed(upstream: { port: number }, options: TestNodeOptions = {}) {
  await using stack = new AsyncDisposableStack();
  const nodes = stack.use(await pair(upstream, options));
  const { port, bindHosts: [hostname] } = nodes.b.identity;
  const relay = stack.use(new TestRelay({ hostname, port }));
  const viaRelay = nodes.b.asUpstream({ hostname: "127.0.0.1", port: relay.port });
  await nodes.a.serve(viaRelay);
  const owned = stack.move();
  return { ...nodes, relay, viaRelay, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** An upstream that answers nobody before `release`. */
class Gate {
  waiting = 0;
  readonly #opened = Promise.withResolvers<void>();
  release = () => this.#opened.resolve();
  readonly serve = async (connection: RawConnection): Promise<void> => {
    for (;;) {
      await connection.until(/\r\n\r\n/);
      this.waiting++;
      await this.#opened.promise;
      await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
  };
}

Deno.test("requests to one node share a connection, however many are in flight; those of many get company", async () => {
  const gate = new Gate();
  await using upstream = new TestUpstream(gate.serve);
  await using nodes = await relayed(upstream);
  const { relay } = nodes;
  const ask = (count: number) => Array.from({ length: count }, () => exchangeRaw(nodes.port, LAST_GET));
  const few = ask(STREAMS_BEFORE_NEXT);
  await eventually(() => gate.waiting === STREAMS_BEFORE_NEXT);
  // Before it one was made for the certificate alone.
  assert.deepEqual([relay.accepted, relay.open], [2, 1]);
  const more = ask(8);
  await eventually(() => gate.waiting === STREAMS_BEFORE_NEXT + 8 && relay.open === 2);
  gate.release();
  for (const answer of await Promise.all([...few, ...more])) assert.match(answer, /^HTTP\/1\.1 200 [^]*ok$/);
  assert.equal(relay.accepted, 3);
});

Deno.test("a connection between nodes that nobody uses any more is closed, and so is one to a node that no route leads to", async () => {
  await using upstream = new TestUpstream(echo);
  {
    await using nodes = await relayed(upstream, { limits: { upstreamIdleTimeoutMs: 50 } });
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
    await eventually(() => nodes.relay.open === 0);
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  }
  await using nodes = await relayed(upstream);
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  await nodes.a.proxy.apply([]);
  await eventually(() => nodes.relay.open === 0);
  assert.equal((await nodes.b.proxy.stats()).cutConnections, 0);
});

Deno.test("a node closes connections of others that have long been idle", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await relayed(upstream, { limits: { keepAliveTimeoutMs: 100 } });
  for (let n = 0; n < 2; n++) {
    assert.match(await exchangeRaw(nodes.port, LAST_POST), /^HTTP\/1\.1 200 /);
    await eventually(() => nodes.relay.open === 0);
  }
  // An end in good order is none that had to be cut.
  assert.equal((await nodes.b.proxy.stats()).cutConnections, 0);
});

Deno.test("a connection between nodes that breaks costs no request that may be sent again, and none that comes after", async () => {
  let asked = 0;
  const first = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    if (asked++ === 1) {
      first.resolve();
      await connection.rest();
    }
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
  });
  await using nodes = await relayed(upstream);
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  const inFlight = exchangeRaw(nodes.port, LAST_GET);
  await first.promise;
  nodes.relay.cut();
  assert.match(await inFlight, /^HTTP\/1\.1 200 [^]*ok$/);
  await eventually(() => nodes.relay.open === 1);
  assert.match(await exchangeRaw(nodes.port, LAST_POST), /^HTTP\/1\.1 200 [^]*ok$/);
  assert.equal(asked, 4);
});

Deno.test("a node that falls silent is given up: what waits for it and may be sent again is, the rest is told, and who comes goes elsewhere", async () => {
  let asked = 0;
  await using upstream = new TestUpstream(async (connection) => {
    for (;;) {
      await connection.until(/\r\n\r\n(hello)?/);
      asked++;
      await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
  });
  const limits = { hopSilenceMs: 600, connectTimeoutMs: 300 };
  await using nodes = await relayed(upstream, { limits });
  await nodes.a.serve(nodes.viaRelay, nodes.b.asUpstream());
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  nodes.relay.stall();
  const answers = await Promise.all([LAST_GET, LAST_POST].map((text) => exchangeRaw(nodes.port, text)));
  assert.match(answers[0], /^HTTP\/1\.1 200 [^]*ok$/);
  assert.match(answers[1], /^HTTP\/1\.1 502 /);
  assert.equal(asked, 2);
  assert.match(await exchangeRaw(nodes.port, LAST_POST), /^HTTP\/1\.1 200 [^]*ok$/);
});

Deno.test("a client that reads slowly holds up nobody else between the nodes", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    const isLarge = /^GET \/large/.test(await connection.until(/\r\n\r\n/));
    const bytes = isLarge ? 64 << 20 : 2;
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\nConnection: close\r\n\r\n`);
    await writeAll(connection.conn, new Uint8Array(bytes).fill(0x6f));
  });
  await using nodes = await relayed(upstream);
  using slow = await RawConnection.open(nodes.port);
  await slow.send(GET.replace("/p", "/large"));
  await slow.until(/\r\n\r\n/);
  for (let n = 0; n < 20; n++) {
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 [^]*oo$/);
  }
  assert.equal(nodes.relay.open, 1);
});

Deno.test("rule 8: a node takes as many streams as connections of other nodes: what is beyond is tried elsewhere", async () => {
  const gate = new Gate();
  await using upstream = new TestUpstream(gate.serve);
  await using other = new TestUpstream(echo);
  // The first may have to stand beside the one that was made for the certificate.
  await using nodes = await relayed(upstream, { limits: { maxHopConnections: 2 } });
  await nodes.a.serve(nodes.viaRelay, { kind: "tcp", hostname: "127.0.0.1", port: other.port });
  const first = [1, 2].map(() => exchangeRaw(nodes.port, LAST_GET));
  await eventually(() => gate.waiting === 2);
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 [^]*GET \/p /);
  gate.release();
  for (const answer of await Promise.all(first)) assert.match(answer, /ok$/);
  assert.equal((await nodes.b.proxy.stats()).hops.refused, 1);
});

Deno.test("no request is lost while the cluster changes its keys, whatever its method", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { a, b } = nodes;
  const secrets = [1, 2, 3, 4, 5].map((n) => hopSecret(new Uint8Array(32).fill(n)));
  let isOver = false, answered = 0;
  const client = async () => {
    using connection = await RawConnection.open(nodes.port);
    while (!isOver) {
      await connection.send("POST /p HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello");
      assert.match(await connection.until(/\r\n\r\nPOST [^]*\r\n\r\nhello/), /^HTTP\/1\.1 200 /);
      answered++;
    }
  };
  const clients = Promise.all(Array.from({ length: 8 }, client));
  let [old] = a.identity.secrets;
  for (const next of secrets) {
    const before = answered;
    await eventually(() => answered > before + 20);
    for (const ring of [[old, next], [next, old], [next]]) {
      for (const node of [a, b]) await node.proxy.setHop({ ...node.identity, secrets: ring });
    }
    old = next;
  }
  isOver = true;
  await clients;
  assert.deepEqual(a.stale, []);
});

/** Takes the connections of members at that node's address, with its certificate; what follows is up to `serve`. */
class StandIn implements AsyncDisposable {
  /** Members so far. */
  accepted = 0;
  readonly port: number;
  readonly #listener: Deno.TlsListener;
  readonly #conns: Deno.Conn[] = [];
  readonly #running: Promise<void>[] = [];

  constructor(
    { certificate, bindHosts: [hostname] }: HopIdentity,
    alpn: string,
    private readonly serve: (connection: RawConnection) => Promise<void>,
  ) {
    this.#listener = Deno.listenTls({ hostname, port: 0, ...certificate, alpnProtocols: [alpn] });
    this.port = this.#listener.addr.port;
    this.#running.push(this.#accept());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    closeQuietly(this.#listener);
    this.#conns.forEach(closeQuietly);
    await Promise.all(this.#running);
  }

  async #accept(): Promise<void> {
    try {
      for await (const conn of this.#listener) {
        this.#conns.push(conn);
        this.#running.push(this.#take(conn));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #take(conn: Deno.TlsConn): Promise<void> {
    using connection = new RawConnection(conn);
    try {
      await conn.handshake();
      await writeAll(conn, encodeGreeting(new Uint8Array(NONCE_BYTES)));
      let length: number | undefined;
      while (length === undefined || connection.text.length < length) {
        if (!await connection.readOnce()) return; // came for the certificate
        length = claimLength(Uint8Array.from(connection.text, (char) => char.charCodeAt(0)));
      }
      connection.text = connection.text.slice(length);
      await writeAll(conn, Uint8Array.of(CLAIM_ACCEPTED));
      this.accepted++;
      await this.serve(connection);
    } catch {
      // The other side, or the test, has closed it.
    }
  }
}

Deno.test("a node of a version that knows no streams is asked as it used to be; when it knows them it gets them", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  let port: number;
  {
    await using old = new StandIn(nodes.b.identity, HOP_ALPN, echo);
    port = old.port;
    await nodes.a.serve(nodes.b.asUpstream({ port }));
    const answers = await Promise.all(Array.from({ length: 4 }, () => exchangeRaw(nodes.port, LAST_POST)));
    for (const answer of answers) assert.match(answer, /^HTTP\/1\.1 200 [^]*Hypercore-Hop: app [^]*hello$/);
    assert.ok(old.accepted >= 1);
  }
  // The next version of it comes up at the same address.
  await nodes.b.proxy.setHop({ ...nodes.b.identity, port });
  for (let n = 0; n < 4; n++) {
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 [^]*X-Forwarded-For: /);
  }
});

Deno.test("a node that ends each connection at once is tried so many times, then the request is answered", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  await using other = new StandIn(nodes.b.identity, HOP_MUX_ALPN, () => Promise.resolve());
  await nodes.a.serve(nodes.b.asUpstream({ port: other.port }));
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 502 /);
  assert.ok(other.accepted >= 1 && other.accepted <= 4, `${other.accepted}`);
});
