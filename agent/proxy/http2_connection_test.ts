import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import { echo, proxyTo, TestUpstream } from "./test_support.ts";
import { writeCertificate } from "./test_certificate.ts";

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
  await using proxied = await proxyTo(upstream, { limits: SHORT, http2: true });
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
  await using proxied = await proxyTo(undefined, { limits: SHORT, http2: true });
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
  await using proxied = await proxyTo(upstream, { limits: SHORT, http2: true });
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
  await using proxied = await proxyTo(upstream, { limits: SHORT, http2: true });
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
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, maxStreamResets: 5 }, http2: true });
  await withSession(proxied.port, async (session) => {
    const closed = new Promise((resolve) => session.on("close", resolve));
    for (let i = 0; i < 20 && !session.closed && !session.destroyed; i++) {
      const stream = session.request({ ":path": "/", ":authority": "app" });
      stream.on("error", () => {});
      await new Promise((resolve) => setTimeout(resolve, 5));
      stream.close(http2.constants.NGHTTP2_CANCEL);
    }
    await closed;
  });
});

Deno.test("curl speaks HTTP/2 over TLS with the proxy", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const files = await writeCertificate(dir, "app.test");
    await using proxied = await proxyTo(upstream, { limits: SHORT, http2: true, tls: files });
    const { stdout } = await new Deno.Command("curl", {
      args: [
        ...["-sS", "-k", "--http2", "--resolve", `app.test:${proxied.port}:127.0.0.1`],
        ...["-w", "%{http_version} %{http_code}", "-d", "some body", `https://app.test:${proxied.port}/x`],
      ],
    }).output();
    const text = new TextDecoder().decode(stdout);
    assert.match(text, /^POST \/x HTTP\/1\.1\r\n[^]*X-Forwarded-Proto: https[^]*some body2 200$/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
