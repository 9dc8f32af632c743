import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import tls from "node:tls";
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
import { writeCertificate } from "./test_certificate.ts";
import { appRoute, echo, proxyTo, TestUpstream } from "./test_support.ts";

Deno.test("200 HTTP/2 requests at once on one connection reach an HTTP/1.1 workload", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => {
      const stream = session.request({
        ":path": `/${n}?q=%2f/../x`,
        ":authority": "app.test",
        "x-forwarded-for": "6.6.6.6",
        "forwarded": "for=6.6.6.6",
        "te": "trailers",
        "cookie": ["a=1", "b=2"],
        "x-a": "b",
      });
      stream.end();
      return answerOf(stream);
    }));
    for (const [n, { headers, body }] of answers.entries()) {
      assert.equal(headers[":status"], 200);
      assert.equal(
        body,
        `GET /${n}?q=%2f/../x HTTP/1.1\r\nHost: app.test\r\ncookie: a=1; b=2\r\nx-a: b\r\n` +
          `X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: app.test\r\nX-Forwarded-Port: ${proxied.port}\r\n` +
          `X-Forwarded-Proto: http\r\nForwarded: for=127.0.0.1;host="app.test";proto=http\r\n\r\n`,
      );
    }
  });
  assert.equal((await proxied.proxy.stats()).requests["2xx"], 200);
  await eventuallyIdle(proxied);
});

Deno.test("HTTP/2 gets the proxy's own answers too", async () => {
  await using proxied = await proxyTo(undefined, { limits: SHORT });
  await proxied.proxy.reserve(proxied.port);
  assert.match(await curl(proxied.port, "/"), /^0 2 404 \{"error":"no workload answers/);
  assert.match(
    await curl(proxied.port, "/", "-H", "Accept: text/html"),
    /^0 2 404 <!doctype html>.*no workload/,
  );
  await proxied.proxy.apply([appRoute(proxied.port, 1)]);
  assert.match(await curl(proxied.port, "/"), /^0 2 502 \{"error":"the workload cannot be reached"/);
  assert.match(await curl(proxied.port, "/", "-I"), /^0 2 502 HTTP\/2 502 [^]*content-length: \d\d/);
  assert.equal((await proxied.proxy.stats()).requests["5xx"], 2);
});

Deno.test("what HTTP/2 lets through and HTTP/1.1 does not is refused", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, {
    limits: { ...SHORT, maxHeaders: 5, maxRequestLineBytes: 99 },
  });
  await withSession(proxied.port, async (session) => {
    const ask = async (headers: http2.OutgoingHttpHeaders, body?: string) => {
      const stream = session.request({ ...APP, ...headers }, { endStream: body === undefined });
      if (body !== undefined) stream.end(body);
      return (await answerOf(stream)).headers;
    };
    assert.equal((await ask({ host: "other" }))[":status"], 400);
    assert.equal((await ask({ ":authority": "a_b@app" }))[":status"], 400);
    assert.equal((await ask({ ":path": "/" + "x".repeat(100) }))[":status"], 414);
    assert.equal((await ask({ a: "", b: "", c: "", d: "", e: "", f: "" }))[":status"], 431);
    assert.equal((await ask({ "content-length": "1" }, "x"))[":status"], 501);
    const grpc = await ask({ ":method": "POST", "content-type": "application/grpc+proto" }, "x");
    assert.deepEqual([grpc[":status"], grpc["grpc-status"]], [501, "12"]);
    assert.equal(
      (await ask({ ":method": "POST", "content-type": "application/grpc-web" }, "x"))[":status"],
      200,
    );
  });
  assert.equal(upstream.accepted, 1);
});

Deno.test("an HTTP/2 body passes with its length, or in chunks without", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    for (;;) {
      const head = await connection.until(/\r\n\r\n/);
      if (/chunked/.test(head)) await connection.until(/\r\n0\r\n\r\n/);
      else await connection.until(/hello/);
      const fields = head.match(/^(content-length|transfer-encoding).*$/gim)?.join() ?? "";
      await connection.send(
        `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n${
          fields.length.toString(16)
        }\r\n${fields}\r\n0\r\nX-T: 1\r\n\r\n`,
      );
    }
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  assert.equal(await curl(proxied.port, "/", "-d", "hello"), "0 2 200 Content-Length: 5");
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ...APP, ":method": "POST" });
    stream.write("hello");
    stream.end();
    assert.equal((await answerOf(stream)).body, "Transfer-Encoding: chunked");
  });
});

Deno.test("a request without a body has none upstream", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  assert.doesNotMatch(await curl(proxied.port, "/", "-X", "DELETE"), /chunked|content-length/i);
  assert.match(await curl(proxied.port, "/", "-X", "POST"), /Content-Length: 0\r\n\r\n$/);
  assert.match(await curl(proxied.port, "/", "-X", "OPTIONS", "--request-target", "*"), /OPTIONS \* HTTP/);
});

Deno.test("both ways stream: an answer comes piece by piece while the request is still being sent", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send("HTTP/1.1 200 OK\r\n\r\n");
    for (const piece of ["one", "two", "three"]) {
      await connection.until(new RegExp(piece));
      await connection.send(piece.toUpperCase());
    }
    await connection.until(/0\r\n\r\n/);
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  await withSession(proxied.port, async (session) => {
    const stream = session.request({ ...APP, ":method": "POST" });
    await once(stream, "response");
    for (const piece of ["one", "two", "three"]) {
      stream.write(piece);
      const [data] = await once(stream, "data");
      assert.equal(String(data), piece.toUpperCase());
    }
    stream.end();
    await once(stream, "end");
  });
});

Deno.test("answers without content have none, and keep what they say of it", async () => {
  for (
    const [status, method, expected] of [
      [204, "GET", /^0 2 204 HTTP\/2 204 \r\nx-a: b\r\ndate: [^\n]+\n\r\n$/],
      [304, "GET", /^0 2 304 HTTP\/2 304 \r\ncontent-length: 7\r\nx-a: b\r\ndate: [^\n]+\n\r\n$/],
      [205, "GET", /^0 2 205 HTTP\/2 205 \r\nx-a: b\r\ndate: [^\n]+\n\r\n$/],
      [200, "HEAD", /^0 2 200 HTTP\/2 200 \r\ncontent-length: 7\r\nx-a: b\r\ndate: [^\n]+\n\r\n$/],
      [404, "HEAD", /^0 2 404 HTTP\/2 404 \r\ncontent-length: 7\r\nx-a: b\r\ndate: [^\n]+\n\r\n$/],
    ] as const
  ) {
    await using upstream = answering(
      `HTTP/1.1 ${status} X\r\nX-A: b\r\nContent-Length: 7\r\nKeep-Alive: timeout=5\r\n\r\n`,
    );
    await using proxied = await proxyTo(upstream, { limits: SHORT });
    assert.match(await curl(proxied.port, "/", "-i", ...(method === "HEAD" ? ["-I"] : [])), expected);
  }
});

Deno.test("an answer is neither compressed nor decompressed, and its fields stay as they are", async () => {
  const text = "a line of text that is easy to compress\n".repeat(2000);
  await using upstream = answering(
    `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-L: \xe9\r\n` +
      `Content-Length: ${text.length}\r\n\r\n${text}`,
  );
  await using packed = answering(
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
  );
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  const answer = await curl(proxied.port, "/", "-i", "-H", "Accept-Encoding: gzip, br");
  assert.match(
    answer.slice(0, answer.indexOf("\r\n\r\n")),
    new RegExp(
      `^0 2 200 HTTP/2 200 \r\ncontent-length: ${text.length}\r\ncontent-type: text/plain\r\n` +
        `set-cookie: a=1\r\nset-cookie: b=2\r\nx-l: \xe9\r\ndate: [^\n]*$`,
    ),
  );
  assert.equal(answer.slice(answer.indexOf("\r\n\r\n") + 4), text);
  await proxied.proxy.apply([appRoute(proxied.port, packed.port)]);
  assert.match(
    await curl(proxied.port, "/", "-i", "-H", "Accept-Encoding: gzip"),
    /content-encoding: gzip\r\n[^]*\r\n\r\nnot gzip!$/,
  );
});

Deno.test("a port that closes lets HTTP/2 requests in flight finish", async () => {
  const asked = Promise.withResolvers<void>(), answer = Promise.withResolvers<void>();
  await using upstream = answering("", async (connection) => {
    asked.resolve();
    await answer.promise;
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    return "";
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  const late = curl(proxied.port, "/");
  await asked.promise;
  assert.deepEqual(await proxied.proxy.apply([]), []);
  answer.resolve();
  assert.equal(await late, "0 2 200 late");
  await eventuallyIdle(proxied);
});

Deno.test("an HTTP/2 connection that asks nothing is closed", async () => {
  await using proxied = await proxyTo(undefined, { limits: { ...SHORT, headTimeoutMs: 100 } });
  await proxied.proxy.reserve(proxied.port);
  await withSession(proxied.port, (session) => new Promise((resolve) => session.on("close", resolve)));
  await eventuallyIdle(proxied);
});

Deno.test("HTTP/2 over TLS: curl, a new certificate, and a client that does not keep to its ALPN", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const files = await writeCertificate(dir, "first");
    await using proxied = await proxyTo(upstream, { limits: SHORT, tls: files, tlsPollMs: 20 });
    const ask = async () => {
      const { stdout, stderr } = await new Deno.Command("curl", {
        args: [
          ...[
            "-sSv",
            "-k",
            "--http2",
            "--resolve",
            `app.test:${proxied.port}:127.0.0.1`,
            "-w",
            "%{http_version}",
          ],
          ...["-d", "some body", `https://app.test:${proxied.port}/x`],
        ],
      }).output();
      const body = new TextDecoder().decode(stdout);
      assert.match(body, /^POST \/x HTTP\/1\.1\r\n[^]*X-Forwarded-Proto: https[^]*some body2$/);
      return /subject: CN=(\w+)/.exec(new TextDecoder().decode(stderr))?.[1];
    };
    assert.equal(await ask(), "first");
    await writeCertificate(dir, "second");
    await eventually(async () => await ask() === "second");

    const liar = tls.connect({
      port: proxied.port,
      host: "127.0.0.1",
      rejectUnauthorized: false,
      ALPNProtocols: ["h2"],
    });
    liar.on("error", () => {});
    liar.write("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let answer = "";
    liar.on("data", (data) => answer += data);
    await new Promise((resolve) => liar.on("close", resolve));
    assert.equal(answer, "");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("HTTP/2 can be turned off", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT, http2: false });
  assert.doesNotMatch(await curl(proxied.port, "/"), /^0/);
});
