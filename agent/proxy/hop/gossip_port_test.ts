import assert from "node:assert/strict";
import { echo, exchangeRaw, freePort, RawConnection, TestUpstream } from "../test_support.ts";
import { local, pair, TestNode } from "./test_node.ts";

const LAST_GET = "GET /p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";

Deno.test("where only the gossip port is open hops go through it, over kept connections", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { a, b } = nodes;
  await a.serve(b.asUpstream({ port: freePort("127.0.0.2"), fallbackPort: b.gossipPort }));
  for (let n = 0; n < 20; n++) {
    assert.match(
      await exchangeRaw(nodes.port, LAST_GET),
      /^HTTP\/1\.1 200 [^]*X-Forwarded-For: 127\.0\.0\.1\r\n/,
    );
  }
  assert.equal((await b.proxy.stats()).hops.received, 20);
  // One for the certificate, one for the requests.
  assert.equal(b.handedOver, 2);
});

Deno.test("the hop port is preferred, and a silent one costs a moment", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { a, b } = nodes;
  await a.serve(b.asUpstream({ fallbackPort: b.gossipPort }));
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  assert.equal(b.handedOver, 0);
  // Accepts connections, and never says a word.
  using silent = Deno.listen({ hostname: "127.0.0.2", port: 0 });
  await a.serve(b.asUpstream({ port: silent.addr.port, fallbackPort: b.gossipPort }));
  assert.match(await exchangeRaw(nodes.port, LAST_GET), /^HTTP\/1\.1 200 /);
  assert.equal(b.handedOver, 1);
});

Deno.test("large bodies pass the main thread whole, both ways, and a cut one is cut", async () => {
  const bytes = 8 << 20;
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    const buffer = new Uint8Array(1 << 18);
    let left = bytes - connection.text.length;
    while (left > 0) left -= await connection.conn.read(buffer) ?? assert.fail("cut");
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes + 1}\r\n\r\n`);
    const block = new Uint8Array(1 << 18);
    for (let sent = 0; sent < bytes;) {
      sent += await connection.conn.write(block.subarray(0, Math.min(block.length, bytes - sent)));
    }
  });
  await using nodes = await pair(upstream);
  const { a, b } = nodes;
  await a.serve(b.asUpstream({ port: freePort("127.0.0.2"), fallbackPort: b.gossipPort }));
  using client = await RawConnection.open(nodes.port);
  await client.send(`PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: ${bytes}\r\n\r\n`);
  const upload = (async () => {
    const block = new Uint8Array(1 << 18);
    for (let sent = 0; sent < bytes;) {
      sent += await client.conn.write(block.subarray(0, Math.min(block.length, bytes - sent)));
    }
  })();
  await client.until(/\r\n\r\n/);
  await upload;
  let received = client.text.length;
  const buffer = new Uint8Array(1 << 18);
  for (let count: number | null = 0; count !== null; count = await client.conn.read(buffer)) {
    received += count;
  }
  assert.equal(received, bytes);
});

Deno.test("a node that takes no hops yet closes what it is handed", async () => {
  await using node = await TestNode.open({ alone: true });
  await using other = await TestNode.open({ node: "a", address: "127.0.0.2" });
  await other.serve(node.asUpstream({ fallbackPort: node.gossipPort }));
  using client = await RawConnection.open(other.port, "127.0.0.2");
  await client.send(LAST_GET);
  await client.until(/^HTTP\/1\.1 502 /);
  await other.serve(local({ port: 1 }));
});
