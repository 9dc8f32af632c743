import assert from "node:assert/strict";
import { freePort } from "../../../tests/support/free_port.ts";
import { once } from "node:events";
import tls from "node:tls";
import { echo, exchangeRaw, RawConnection, TestUpstream } from "../test_support.ts";
import { writeAll } from "../sink.ts";
import {
  CLAIM_ACCEPTED,
  CLAIM_REFUSED,
  encodeClaim,
  fingerprintOf,
  GREETING_BYTES,
  HOP_ALPN,
  HOP_MUX_ALPN,
  HOP_SERVER_NAME,
  hopSecret,
  MAX_NODE_ID_BYTES,
  parseGreeting,
} from "./protocol.ts";
import { eventually, local, makeNodeCertificate, pair, TestNode } from "./test_node.ts";

const LAST_GET = "GET /p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const KEY = hopSecret(new Uint8Array(32)), OTHER_KEY = hopSecret(new Uint8Array(32).fill(1));

/** A connection to a node's hop port, with the greeting read; the node is taken for what it says. */
class Dialled implements Disposable {
  private constructor(readonly conn: Deno.Conn, readonly greeting: Uint8Array) {}

  static async open(node: TestNode, alpn = [HOP_ALPN]): Promise<Dialled> {
    const { certificate: { cert }, bindHosts: [hostname], port } = node.identity;
    const tcp = await Deno.connect({ hostname, port });
    const conn = await Deno.startTls(tcp, {
      hostname: HOP_SERVER_NAME,
      caCerts: [cert],
      alpnProtocols: alpn,
    });
    const greeting = new Uint8Array(GREETING_BYTES);
    for (let at = 0; at < greeting.length;) {
      const count = await conn.read(greeting.subarray(at));
      if (count === null) break;
      at += count;
    }
    return new Dialled(conn, greeting);
  }

  claim(node: TestNode, secret: string): Uint8Array {
    const serverFingerprint = fingerprintOf(node.identity.certificate.cert);
    return encodeClaim({ nonce: parseGreeting(this.greeting)!, serverFingerprint, node: "me" }, secret);
  }

  /** What the node says to these bytes; ends when it closes the connection. */
  async answer(bytes: Uint8Array): Promise<number[]> {
    const seen: number[] = [];
    const buffer = new Uint8Array(1024);
    try {
      await writeAll(this.conn, bytes);
      for (let count = await this.conn.read(buffer); count !== null; count = await this.conn.read(buffer)) {
        seen.push(...buffer.subarray(0, count));
        if (seen[0] === CLAIM_ACCEPTED) break;
      }
    } catch (error) {
      assert.ok(error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.UnexpectedEof);
    }
    return seen;
  }

  [Symbol.dispose](): void {
    this.conn.close();
  }
}

Deno.test("a stranger with network access takes no hop, whatever he sends", async (t) => {
  await using node = await TestNode.open();
  const overheard = await (async () => {
    using member = await Dialled.open(node);
    const claim = member.claim(node, KEY);
    assert.deepEqual(await member.answer(claim), [CLAIM_ACCEPTED]);
    return claim;
  })();
  const request = new TextEncoder().encode(
    `GET / HTTP/1.1\r\nHost: app\r\nHypercore-Hop: app 80 6.6.6.6 https\r\n\r\n`,
  );
  const cases: [what: string, bytes: (dialled: Dialled) => Uint8Array][] = [
    ["a request without a claim", () => request],
    ["a claim under another key", (dialled) => dialled.claim(node, OTHER_KEY)],
    ["a claim under no key, as in clusters that have none", (dialled) => dialled.claim(node, hopSecret())],
    ["a claim made on another connection", () => overheard],
    [
      "a claim with a request at once",
      (dialled) => Uint8Array.of(...dialled.claim(node, OTHER_KEY), ...request),
    ],
    [
      "a claim that claims to be long",
      () => Uint8Array.of(...overheard.subarray(0, 8), MAX_NODE_ID_BYTES + 1),
    ],
  ];
  for (const [i, [what, bytes]] of cases.entries()) {
    await t.step(what, async () => {
      using dialled = await Dialled.open(node);
      const seen = await dialled.answer(bytes(dialled));
      assert.ok(seen.length === 0 || (seen.length === 1 && seen[0] === CLAIM_REFUSED), `${seen}`);
      assert.equal((await node.proxy.stats()).hops.refused, i + 1);
    });
  }
  await t.step("another protocol", async () => {
    await assert.rejects(Dialled.open(node, ["h2"]));
    using dialled = await Dialled.open(node, []);
    assert.deepEqual([...dialled.greeting], new Array(GREETING_BYTES).fill(0));
  });
  await t.step("plain HTTP", async () => {
    const { port, bindHosts: [hostname] } = node.identity;
    using plain = await RawConnection.open(port, hostname);
    await plain.send(LAST_GET);
    assert.doesNotMatch(await plain.rest(), /HTTP/);
  });
});

Deno.test("one who says nothing is closed in the end, and a half claim is no claim", async () => {
  // Time enough for TLS and the greeting, whatever else the machine does.
  await using node = await TestNode.open({ limits: { handshakeTimeoutMs: 2_000 } });
  for (const bytes of [0, 20]) {
    using dialled = await Dialled.open(node);
    assert.deepEqual(await dialled.answer(dialled.claim(node, KEY).subarray(0, bytes)), []);
  }
});

Deno.test("a member that breaks the protocol of streams loses its connection, and nobody else any", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { b } = nodes;
  for (const frame of [[1, 0], [0, 9], [0, 0, 0, 1, 0, 0, 0, 2]]) {
    using dialled = await Dialled.open(b, [HOP_MUX_ALPN]);
    // The session's first frame may come with the verdict.
    assert.equal((await dialled.answer(dialled.claim(b, KEY)))[0], CLAIM_ACCEPTED);
    await dialled.answer(Uint8Array.from({ length: 12 }, (_, i) => frame[i] ?? 0)); // to the end
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  }
});

Deno.test("a member that sends a malformed hop field, or none, gets 400 and nothing else", async () => {
  await using upstream = new TestUpstream(echo);
  await using node = await TestNode.open();
  await node.serve(local(upstream));
  for (
    const field of [
      "",
      "Hypercore-Hop: app\r\n",
      "Hypercore-Hop: a 1 1.2.3.4 http\r\nHypercore-Hop: b 1 1.2.3.4 http\r\n",
    ]
  ) {
    using dialled = await Dialled.open(node);
    assert.deepEqual(await dialled.answer(dialled.claim(node, KEY)), [CLAIM_ACCEPTED]);
    const connection = new RawConnection(dialled.conn);
    await connection.send(`GET / HTTP/1.1\r\nHost: app\r\n${field}\r\n`);
    await connection.until(/^HTTP\/1\.1 400 /);
  }
  assert.equal(upstream.accepted, 0);
});

Deno.test("nothing is sent to a node that shows another certificate, or does not take us for a member", async (t) => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  await t.step("an impostor at the owner's address", async () => {
    let received = 0;
    const impostor = tls.createServer(
      { ...await makeNodeCertificate(), ALPNProtocols: [HOP_ALPN] },
      (socket) => {
        socket.on("error", () => {});
        socket.on("data", (data) => received += data.length);
        socket.write(new Uint8Array(GREETING_BYTES));
      },
    );
    impostor.on("tlsClientError", () => {});
    impostor.listen(0, "127.0.0.1");
    await once(impostor, "listening");
    try {
      const { port } = impostor.address() as { port: number };
      await nodes.a.serve(nodes.b.asUpstream({ port, hostname: "127.0.0.1" }));
      assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 502 /);
      assert.equal(received, 0);
      await eventually(() => nodes.a.stale.some(({ detail }) => /another certificate/.test(detail)));
    } finally {
      await new Promise((resolve) => impostor.close(resolve));
    }
  });
  await t.step("a node with other keys", async () => {
    await nodes.a.serve(nodes.b.asUpstream());
    await nodes.b.proxy.setHop({ ...nodes.b.identity, secrets: [OTHER_KEY] });
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 502 [^]*node refuses this one/);
    await eventually(() => nodes.a.stale.some(({ reason }) => reason === "refused"));
    assert.equal(upstream.accepted, 0);
  });
});

Deno.test("while the cluster changes its key nothing is lost, and then the old one is worth nothing", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { a, b } = nodes;
  const works = async () => assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  using member = await Dialled.open(b);
  assert.deepEqual(await member.answer(member.claim(b, KEY)), [CLAIM_ACCEPTED]);
  await works();
  for (const node of [a, b]) await node.proxy.setHop({ ...node.identity, secrets: [KEY, OTHER_KEY] });
  await works();
  for (const node of [a, b]) await node.proxy.setHop({ ...node.identity, secrets: [OTHER_KEY, KEY] });
  await works();
  for (const node of [a, b]) await node.proxy.setHop({ ...node.identity, secrets: [OTHER_KEY] });
  // What was made under the old key has ended.
  assert.deepEqual(await member.answer(new Uint8Array()), []);
  await works();
  using late = await Dialled.open(b);
  assert.deepEqual(await late.answer(late.claim(b, KEY)), [CLAIM_REFUSED]);
});

Deno.test("a node takes a new certificate, and those who pin it reach it", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { a, b } = nodes;
  const certificate = await makeNodeCertificate();
  await b.proxy.setHop({ ...b.identity, certificate });
  await a.serve(b.asUpstream({ fingerprint: fingerprintOf(certificate.cert) }));
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  await a.serve(b.asUpstream());
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 502 /);
});

Deno.test("a hop port that is in use for another moment is waited for", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const held = Deno.listen({ hostname: "127.0.0.2", port: freePort() });
  setTimeout(() => held.close(), 50);
  await nodes.b.proxy.setHop({ ...nodes.b.identity, port: held.addr.port });
  await nodes.a.proxy.apply([nodes.a.route(nodes.b.asUpstream({ port: held.addr.port }))]);
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
});

Deno.test("a hop port that is taken is an error that names it, and what was there goes on", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  using taken = Deno.listen({ hostname: "127.0.0.2", port: 0 });
  const { port } = taken.addr;
  await assert.rejects(
    nodes.b.proxy.setHop({ ...nodes.b.identity, port }),
    new RegExp(`Cannot open hop port "${port}": the port is taken`),
  );
  await assert.rejects(
    nodes.b.proxy.setHop({ ...nodes.b.identity, certificate: { cert: "none", key: "none" } }),
  );
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
});

Deno.test("beyond their limit connections of other nodes are closed", async () => {
  await using node = await TestNode.open({ limits: { maxHopConnections: 1 } });
  using first = await Dialled.open(node);
  using second = await Dialled.open(node);
  assert.deepEqual([...second.greeting], new Array(GREETING_BYTES).fill(0));
  assert.deepEqual(await first.answer(first.claim(node, KEY)), [CLAIM_ACCEPTED]);
});

Deno.test("a stranger's flood before the proof keeps no member out: what it opened first gives its place to what comes", async () => {
  await using upstream = new TestUpstream(echo);
  const limits = {
    maxHopOpenings: 8,
    handshakeTimeoutMs: 120_000,
    shutdownGraceMs: 200,
    staleRouteWaitMs: 0,
  };
  await using nodes = await pair(upstream, { limits });
  const { b } = nodes;
  const flood: Deno.Conn[] = [];
  try {
    for (let n = 0; n < 100; n++) {
      flood.push(await Deno.connect({ hostname: b.identity.bindHosts[0], port: b.identity.port }));
    }
    await eventually(async () => (await b.proxy.stats()).hops.refused >= 92);
    assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  } finally {
    for (const conn of flood) conn.close();
  }
});

Deno.test("a worker that takes another's place takes hops too", async () => {
  await using upstream = new TestUpstream(echo);
  const workers: Worker[] = [];
  await using nodes = await pair(upstream, {
    createWorker: () => {
      const worker = new Worker(new URL("../test_crash_worker.ts", import.meta.url), { type: "module" });
      workers.push(worker);
      return worker;
    },
  });
  const [, ofB] = workers;
  ofB.postMessage({ type: "stats", id: -1, crash: true });
  await eventually(() => workers.length === 3);
  await nodes.a.serve(nodes.b.asUpstream());
  await eventually(async () => /^HTTP\/1\.1 200 /.test(await exchangeRaw(nodes.port, LAST_GET)));
});
