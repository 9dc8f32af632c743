import assert from "node:assert/strict";
import { writeAll } from "../sink.ts";
import { RawConnection, TestUpstream } from "../test_support.ts";
import { eventually, pair } from "./test_node.ts";

const TOTAL = 512 << 20;
/** Far below what is moved, far above what buffers and a lazy garbage collector take. */
const MAX_GROWTH = 128 << 20;
const BLOCK = new Uint8Array(1 << 18);

async function send(conn: Deno.Conn, total: number, observe = () => {}): Promise<void> {
  for (let sent = 0; sent < total; sent += BLOCK.length) {
    await writeAll(conn, BLOCK.subarray(0, Math.min(BLOCK.length, total - sent)));
    observe();
  }
}

async function receive(conn: Deno.Conn, total: number, observe = () => {}): Promise<void> {
  const buffer = new Uint8Array(1 << 18);
  for (let left = total; left > 0; observe()) {
    left -= await conn.read(buffer) ?? assert.fail("the body is cut");
  }
}

Deno.test("half a gigabyte each way passes a hop in constant memory", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await receive(connection.conn, TOTAL - connection.text.length);
    connection.text = "";
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${TOTAL}\r\n\r\n`);
    await send(connection.conn, TOTAL);
    await connection.rest();
  });
  await using nodes = await pair(upstream);
  const before = Deno.memoryUsage().rss;
  let most = 0;
  const observe = () => most = Math.max(most, Deno.memoryUsage().rss);
  using client = await RawConnection.open(nodes.port);
  await client.send(`PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: ${TOTAL}\r\n\r\n`);
  await send(client.conn, TOTAL, observe);
  await client.until(/\r\n\r\n/);
  await receive(client.conn, TOTAL - client.text.length, observe);
  assert.ok(most - before < MAX_GROWTH, `resident memory grew by ${(most - before) >> 20} MiB`);
});

Deno.test("a slow reader holds the workload back through a hop", async () => {
  let sent = 0;
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${2 ** 30}\r\n\r\n`);
    while (sent < 2 ** 30) sent += await connection.conn.write(BLOCK);
  });
  await using nodes = await pair(upstream, { limits: { idleTimeoutMs: 500 } });
  using client = await RawConnection.open(nodes.port);
  await client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
  await client.until(/\r\n\r\n/);
  // Nothing is read: the proxies give up when nothing has moved for the idle time.
  await eventually(async () => (await nodes.a.proxy.stats()).openConnections === 0);
  assert.ok(sent < 64 << 20, `${sent >> 20} MiB went into buffers`);
});
