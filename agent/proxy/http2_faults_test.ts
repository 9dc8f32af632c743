import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import {
  answering,
  answerOf,
  APP,
  curl,
  eventually,
  eventuallyIdle,
  SHORT,
  withSession,
} from "./http2_test_support.ts";
import { writeAll } from "./sink.ts";
import { proxyTo, TestUpstream } from "./test_support.ts";

Deno.test("a stream the client resets takes its request with it, before the answer and within it", async () => {
  for (const answer of ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"]) {
    const asked = Promise.withResolvers<void>(), gone = Promise.withResolvers<void>();
    await using upstream = answering(answer, async (connection) => {
      asked.resolve();
      await connection.rest();
      gone.resolve();
      return "";
    });
    await using proxied = await proxyTo(upstream, { limits: SHORT });
    await withSession(proxied.port, async (session) => {
      const stream = session.request(APP);
      stream.on("error", () => {});
      if (answer) await once(stream, "response");
      await asked.promise;
      stream.close(http2.constants.NGHTTP2_CANCEL);
      await gone.promise;
    });
  }
});

Deno.test("an upload that is broken off never looks whole upstream, whether before the answer or within it", async () => {
  const leave = {
    resets: (stream: http2.ClientHttp2Stream) => stream.close(http2.constants.NGHTTP2_CANCEL),
    leaves: (stream: http2.ClientHttp2Stream) => stream.session!.destroy(),
  };
  for (const how of ["resets", "leaves"] as const) {
    for (const answer of ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"]) {
      const asked = Promise.withResolvers<void>(), gone = Promise.withResolvers<string>();
      await using upstream = new TestUpstream(async (connection) => {
        await connection.until(/some/);
        await connection.send(answer);
        asked.resolve();
        gone.resolve(await connection.rest());
      });
      await using proxied = await proxyTo(upstream, { limits: SHORT });
      const session = http2.connect(`http://127.0.0.1:${proxied.port}`);
      session.on("error", () => {});
      const stream = session.request({ ...APP, ":method": "POST" });
      stream.on("error", () => {});
      const answered = once(stream, "response");
      answered.catch(() => {});
      stream.write("some");
      await asked.promise;
      if (answer) await answered;
      leave[how](stream);
      assert.doesNotMatch(await gone.promise, /0\r\n\r\n$/);
      session.destroy();
      await eventuallyIdle(proxied);
    }
  }
});

Deno.test("a client that resets stream after stream is disconnected", async () => {
  await using upstream = new TestUpstream((connection) => connection.rest().then(() => {}));
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, maxStreamResets: 5 } });
  await withSession(proxied.port, async (session) => {
    const closed = new Promise((resolve) => session.on("close", resolve));
    const isOver = () => session.closed || session.destroyed;
    for (let n = 1; n <= 20 && !isOver(); n++) {
      const stream = session.request(APP);
      stream.on("error", () => {});
      // One that is reset before it was seen counts for nothing.
      await eventually(() => upstream.accepted === n || isOver());
      stream.close(http2.constants.NGHTTP2_CANCEL);
    }
    await closed;
  });
});

Deno.test("more streams than the limit are answered 503", async () => {
  await using upstream = new TestUpstream((connection) => connection.rest().then(() => {}));
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, maxStreams: 2 } });
  await withSession(proxied.port, async (session) => {
    const streams = [session.request(APP), session.request(APP)];
    for (const stream of streams) stream.on("error", () => {});
    await eventually(() => upstream.accepted === 2);
    assert.equal((await answerOf(session.request(APP))).headers[":status"], 503);
    for (const stream of streams) stream.close();
  });
});

Deno.test("an upstream that dies within a body resets the stream", async () => {
  for (
    const answer of [
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ]
  ) {
    await using upstream = answering(answer, () => Promise.resolve(""));
    await using proxied = await proxyTo(upstream, { limits: SHORT });
    await withSession(proxied.port, (session) => assert.rejects(answerOf(session.request(APP))));
    assert.match(await curl(proxied.port, "/"), /^92 /); // "stream error in the HTTP/2 framing layer"
    assert.equal((await proxied.proxy.stats()).requests["2xx"], 2);
  }
});

Deno.test("an upstream that dies with much of its body queued does no harm", async () => {
  await using upstream = answering(
    `HTTP/1.1 200 OK\r\nContent-Length: ${64 << 20}\r\n\r\n`,
    async ({ conn }) => {
      await writeAll(conn, new Uint8Array(8 << 20));
      return "";
    },
  );
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  for (let round = 0; round < 5; round++) {
    await withSession(proxied.port, (session) => assert.rejects(answerOf(session.request(APP))));
  }
  await eventuallyIdle(proxied);
});

Deno.test("a large body passes a slow HTTP/2 reader whole", async () => {
  const total = 32 << 20;
  await using upstream = answering(
    `HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`,
    async (connection) => {
      const block = new Uint8Array(1 << 20);
      for (let sent = 0; sent < total;) {
        sent += await connection.conn.write(block.subarray(0, Math.min(block.length, total - sent)));
      }
      return await connection.rest();
    },
  );
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    let received = 0;
    for await (const chunk of session.request(APP)) {
      received += chunk.length;
      if (received % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.equal(received, total);
  });
});

Deno.test("a reader that stops stops the upstream too, and is cut in the end", async () => {
  const limits = { ...SHORT, idleTimeoutMs: 300 };
  const sent = Promise.withResolvers<number>();
  await using upstream = answering("HTTP/1.1 200 OK\r\n\r\n", async ({ conn }) => {
    const block = new Uint8Array(1 << 16);
    let total = 0;
    try {
      for (;;) total += await conn.write(block);
    } catch {
      sent.resolve(total);
    }
    return "";
  });
  await using proxied = await proxyTo(upstream, { limits });
  await withSession(proxied.port, async (session) => {
    const stream = session.request(APP);
    stream.on("error", () => {});
    await once(stream, "response");
    assert.ok(await sent.promise < 32 << 20);
    stream.close();
  });
});

Deno.test("an upstream that does not answer in time is a 504, one that stops within its body a reset", async () => {
  await using silent = answering("");
  await using stalled = answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
  await using late = await proxyTo(silent, { limits: { ...SHORT, responseTimeoutMs: 100 } });
  assert.match(await curl(late.port, "/"), /^0 2 504 \{"error":"the workload did not answer in time"/);
  await using cut = await proxyTo(stalled, { limits: { ...SHORT, idleTimeoutMs: 100 } });
  assert.match(await curl(cut.port, "/"), /^92 2 200 /);
});

Deno.test("a body over the limit is a 413 that the client gets to see", async () => {
  await using upstream = new TestUpstream((connection) => connection.rest().then(() => {}));
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, maxBodyBytes: 1 << 20 } });
  const dir = await Deno.makeTempDir();
  try {
    const file = `${dir}/large`;
    await Deno.writeFile(file, new Uint8Array(3 << 20));
    assert.match(await curl(proxied.port, "/", "-T", file), /^0 2 413 /);
    assert.match(await curl(proxied.port, "/", "-T", file, "-H", "Content-Length:"), /^0 2 413 /);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("an early answer reaches a client that is still sending", async () => {
  const done = Promise.withResolvers<string>();
  await using upstream = answering("HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno!", () => done.promise);
  const limits = { ...SHORT, lingerBytes: 64 << 20, lingerTimeoutMs: 15_000 };
  await using proxied = await proxyTo(upstream, { limits });
  const dir = await Deno.makeTempDir();
  try {
    const file = `${dir}/large`;
    await Deno.writeFile(file, new Uint8Array(32 << 20));
    assert.match(await curl(proxied.port, "/", "-T", file), /^0 2 403 no!/);
  } finally {
    done.resolve("");
    await Deno.remove(dir, { recursive: true });
  }
});
