import assert from "node:assert/strict";
import { eventuallyIdle } from "./http2_test_support.ts";
import { writeAll } from "./sink.ts";
import { exchangeRaw, proxyTo, RawConnection, TestUpstream } from "./test_support.ts";

const LAST_GET = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const UPGRADE = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n";
const LONG = `HTTP/1.1 200 OK\r\nContent-Length: ${1 << 30}\r\n\r\nbegun`;
const PIECE = new Uint8Array(64 * 1024);

/** How an answer ends before it is whole: by what the upstream does after its head, or by the client. */
const CUTS: [
  what: string,
  answer: (upstream: RawConnection) => Promise<void>,
  leave?: "in order" | "at once",
][] = [
  [
    "a client that ends its connection in order while more is sent",
    async (upstream) => {
      await upstream.send(LONG);
      await upstream.rest(); // the client's end is passed on
      for (;;) await writeAll(upstream.conn, PIECE);
    },
    "in order",
  ],
  [
    "an upgraded client that leaves",
    async (upstream) => {
      await upstream.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\nbegun");
      for (;;) await writeAll(upstream.conn, PIECE);
    },
    "at once",
  ],
  [
    "an upstream that breaks the framing",
    async (upstream) => {
      await upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\nno length\r\n");
      await upstream.rest();
    },
  ],
  [
    "an upstream that ends within its answer",
    async (upstream) => {
      await upstream.send(LONG);
      await upstream.conn.closeWrite();
      await upstream.rest();
    },
  ],
];

Deno.test("an answer that is cut short takes its upstream connection with it", async (t) => {
  for (const [what, answer, leave] of CUTS) {
    await t.step(what, async () => {
      await using upstream = new TestUpstream(async (connection, index) => {
        await connection.until(/\r\n\r\n/);
        if (index === 0) await answer(connection);
        else await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      });
      // A connection that stays would be the one that may be.
      await using proxied = await proxyTo(upstream, { limits: { maxUpstreamConnections: 1 } });
      {
        using client = await RawConnection.open(proxied.port);
        await client.send(what.startsWith("an upgraded") ? UPGRADE : LAST_GET);
        if (leave === undefined) await client.rest();
        else await client.until(/begun/);
        if (leave === "in order") await client.conn.closeWrite();
      }
      await eventuallyIdle(proxied);
      assert.match(await exchangeRaw(proxied.port, LAST_GET), /^HTTP\/1\.1 200 [^]*ok$/);
    });
  }
});
