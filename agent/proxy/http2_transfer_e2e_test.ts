import assert from "node:assert/strict";
import { proxyTo, TestUpstream } from "./test_support.ts";

const TOTAL = 256 << 20;
/** Far below what has been moved, far above what buffers and a lazy garbage collector take. */
const MAX_GROWTH = 128 << 20;

/** The exit code, status and sizes that curl reports while `peak` follows this process's memory. */
async function measured(
  args: string[],
  stdin?: ReadableStream<Uint8Array>,
): Promise<{ text: string; growth: number }> {
  const before = Deno.memoryUsage().rss;
  let peak = before;
  const timer = setInterval(() => peak = Math.max(peak, Deno.memoryUsage().rss), 20);
  try {
    const child = new Deno.Command("curl", {
      args: ["-s", "--http2-prior-knowledge", "-m", "300", "-H", "Host: app", ...args],
      stdin: stdin ? "piped" : "null",
      stdout: "piped",
    }).spawn();
    const sending = stdin?.pipeTo(child.stdin);
    const { code, stdout } = await child.output();
    await sending;
    return { text: `${code} ${new TextDecoder().decode(stdout)}`, growth: peak - before };
  } finally {
    clearInterval(timer);
  }
}

function zeros(total: number): ReadableStream<Uint8Array> {
  const block = new Uint8Array(1 << 16);
  let left = total;
  return new ReadableStream({
    pull(controller) {
      if (left > 0) controller.enqueue(block.subarray(0, Math.min(left, block.length)));
      else controller.close();
      left -= block.length;
    },
  }, { highWaterMark: 1 });
}

Deno.test("256 MiB pass each way over HTTP/2 in flat memory", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    const head = await connection.until(/\r\n\r\n/);
    if (/^GET/.test(head)) {
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${TOTAL}\r\nConnection: close\r\n\r\n`);
      const block = new Uint8Array(1 << 16);
      for (let sent = 0; sent < TOTAL;) {
        sent += await connection.conn.write(block.subarray(0, Math.min(block.length, TOTAL - sent)));
      }
    } else {
      const buffer = new Uint8Array(1 << 16);
      let bytes = connection.text.length;
      let tail = connection.text;
      while (!tail.endsWith("\r\n0\r\n\r\n")) {
        const count = await connection.conn.read(buffer);
        if (count === null) break;
        bytes += count;
        tail = (tail + new TextDecoder("latin1").decode(buffer.subarray(Math.max(0, count - 7), count)))
          .slice(-7);
      }
      const answer = bytes > TOTAL ? "all" : "some";
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${answer.length}\r\n\r\n${answer}`);
    }
    await connection.rest();
  });
  await using proxied = await proxyTo(upstream, { limits: { shutdownGraceMs: 200 } });
  const url = `http://127.0.0.1:${proxied.port}/`;
  const down = await measured([
    "-o",
    "/dev/null",
    "-w",
    "%{http_version} %{http_code} %{size_download}",
    url,
  ]);
  assert.equal(down.text, `0 2 200 ${TOTAL}`);
  const up = await measured(
    ["-T", "-", "-w", " %{http_version} %{http_code} %{size_upload}", url],
    zeros(TOTAL),
  );
  assert.equal(up.text, `0 all 2 200 ${TOTAL}`);
  assert.ok(down.growth < MAX_GROWTH, `${down.growth} bytes of growth while sending down`);
  assert.ok(up.growth < MAX_GROWTH, `${up.growth} bytes of growth while sending up`);
});
