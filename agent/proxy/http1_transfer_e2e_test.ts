import assert from "node:assert/strict";
import { proxyTo, RawConnection, TestUpstream } from "./test_support.ts";

Deno.test("a gigabyte each way passes in constant memory", async () => {
  const total = 2 ** 30;
  const block = new Uint8Array(1 << 20);
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    let left = total - connection.text.length;
    connection.text = "";
    const buffer = new Uint8Array(1 << 20);
    while (left > 0) left -= await connection.conn.read(buffer) ?? left;
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
    for (let sent = 0; sent < total;) sent += await connection.conn.write(block);
    await connection.rest();
  });
  await using proxied = await proxyTo(upstream, { limits: { shutdownGraceMs: 200 } });
  const before = Deno.memoryUsage().rss;
  let most = 0;
  using client = await RawConnection.open(proxied.port);
  await client.send(`PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: ${total}\r\n\r\n`);
  const observe = () => most = Math.max(most, Deno.memoryUsage().rss);
  for (let sent = 0; sent < total;) {
    sent += await client.conn.write(block.subarray(0, Math.min(block.length, total - sent)));
    if (sent % (64 << 20) === 0) observe();
  }
  await client.until(/\r\n\r\n/);
  let received = client.text.length;
  const buffer = new Uint8Array(1 << 20);
  while (received < total) {
    received += await client.conn.read(buffer) ?? assert.fail("the body is cut");
    if (received % 64 === 0) observe();
  }
  assert.equal(received, total);
  assert.ok(most - before < 96 << 20, `resident memory grew by ${(most - before) >> 20} MiB`);
});
