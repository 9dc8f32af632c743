import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import { writeAll } from "./sink.ts";
import { echo, proxyTo, type TestProxy, TestUpstream } from "./test_support.ts";
import { writeCertificate } from "./test_certificate.ts";

async function eventuallyIdle({ proxy }: TestProxy): Promise<void> {
  while ((await proxy.stats()).openConnections > 0) await new Promise((resolve) => setTimeout(resolve, 5));
}

const SHORT = { shutdownGraceMs: 200 };

/** Runs with a session to the proxy, prior knowledge. */
async function withSession(
  port: number,
  run: (session: http2.ClientHttp2Session) => Promise<void>,
): Promise<void> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const closed = new Promise((resolve) => session.on("close", resolve));
  try {
    await run(session);
  } finally {
    session.close();
    await closed;
  }
}

async function answerOf(
  stream: http2.ClientHttp2Stream,
): Promise<{ headers: http2.IncomingHttpHeaders; body: string }> {
  const [headers] = await once(stream, "response");
  let body = "";
  for await (const chunk of stream) body += new TextDecoder("latin1").decode(chunk);
  return { headers, body };
}

Deno.test("HTTP/2 requests reach an HTTP/1.1 workload, many at a time", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => {
      const stream = session.request({
        ":path": `/${n}`,
        ":authority": "app.test",
        "x-forwarded-for": "6.6.6.6",
        "x-a": "b",
      });
      stream.end();
      return answerOf(stream);
    }));
    for (const [n, { headers, body }] of answers.entries()) {
      assert.equal(headers[":status"], 200);
      assert.match(
        body,
        new RegExp(
          `^GET /${n} HTTP/1\\.1\r\nHost: app\\.test\r\n[^]*x-a: b\r\nX-Forwarded-For: 127\\.0\\.0\\.1\r\n`,
        ),
      );
    }
  });
});

Deno.test("HTTP/2 gets the proxy's own answers too", async () => {
  await using proxied = await proxyTo(undefined, { limits: SHORT });
  await proxied.proxy.reserve(proxied.port);
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ":path": "/", ":authority": "nobody" });
    const { headers, body } = await answerOf(stream);
    assert.equal(headers[":status"], 404);
    assert.match(body, /no workload answers/);
  });
});

Deno.test("an HTTP/2 body and the trailers of both sides pass", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    const request = await connection.until(/\r\n0\r\n\r\n/);
    assert.match(request, /Transfer-Encoding: chunked\r\n/);
    await connection.send(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
    );
    await connection.rest();
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ":method": "POST", ":path": "/", ":authority": "app" });
    const trailers = once(stream, "trailers");
    stream.write("hello");
    stream.end();
    assert.equal((await answerOf(stream)).body, "ok");
    assert.equal((await trailers)[0]["x-t"], "1");
  });
});

Deno.test("a stream the client resets takes its request with it", async () => {
  const asked = Promise.withResolvers<void>(), gone = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    asked.resolve();
    await connection.rest();
    gone.resolve();
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ":path": "/", ":authority": "app" });
    stream.on("error", () => {});
    await asked.promise;
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await gone.promise;
  });
});

Deno.test("a client that resets stream after stream is disconnected", async () => {
  await using upstream = new TestUpstream((connection) => connection.rest().then(() => {}));
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, maxStreamResets: 5 } });
  await withSession(proxied.port, async (session) => {
    const closed = once(session, "close");
    for (let i = 0; i < 20 && !session.closed && !session.destroyed; i++) {
      const stream = session.request({ ":path": "/", ":authority": "app" });
      stream.on("error", () => {});
      await new Promise((resolve) => setTimeout(resolve, 5));
      stream.close(http2.constants.NGHTTP2_CANCEL);
    }
    await closed;
  });
});

Deno.test("an upstream that dies within a body resets the stream", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ":path": "/", ":authority": "app" });
    await assert.rejects(answerOf(stream));
  });
});

Deno.test("an upstream that dies with much of its body queued does no harm", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${64 << 20}\r\n\r\n`);
    await writeAll(connection.conn, new Uint8Array(8 << 20));
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  for (let round = 0; round < 5; round++) {
    await withSession(proxied.port, async (session) => {
      await assert.rejects(answerOf(session.request({ ":path": "/", ":authority": "app" })));
    });
  }
  await eventuallyIdle(proxied);
});

Deno.test("a large body passes a slow HTTP/2 reader whole", async () => {
  const total = 32 << 20;
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
    const block = new Uint8Array(1 << 20);
    for (let sent = 0; sent < total;) {
      sent += await connection.conn.write(block.subarray(0, Math.min(block.length, total - sent)));
    }
    await connection.rest();
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ":path": "/", ":authority": "app" });
    let received = 0;
    for await (const chunk of stream) {
      received += chunk.length;
      if (received % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.equal(received, total);
  });
});

Deno.test("curl speaks HTTP/2 over TLS with the proxy", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const files = await writeCertificate(dir, "app.test");
    await using proxied = await proxyTo(upstream, { limits: SHORT, tls: files });
    const { stdout } = await new Deno.Command("curl", {
      args: [
        ...["-sS", "--http2", "--cacert", files.certFile, "--resolve", `app.test:${proxied.port}:127.0.0.1`],
        ...["-w", "%{http_version} %{http_code}", "-d", "some body", `https://app.test:${proxied.port}/x`],
      ],
    }).output();
    const text = new TextDecoder().decode(stdout);
    assert.match(text, /^POST \/x HTTP\/1\.1\r\n[^]*X-Forwarded-Proto: https[^]*some body2 200$/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
