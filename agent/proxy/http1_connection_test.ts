import assert from "node:assert/strict";
import { echo, exchangeRaw, proxyTo, RawConnection, TestUpstream } from "./test_support.ts";

const GET = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
const LAST_GET = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const SHORT = { shutdownGraceMs: 200 };

const RAW: [what: string, request: string, answer: RegExp][] = [
  [
    "an unknown host gets 404",
    "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n",
    /^HTTP\/1\.1 404 [^]*\{"error":/,
  ],
  [
    "a browser gets HTML",
    "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
    /^HTTP\/1\.1 404 [^]*<!doctype/,
  ],
  [
    "a malformed Host gets 400",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    /^HTTP\/1\.1 400 [^]*Connection: close/,
  ],
  [
    "an alias leads to the workload",
    "GET / HTTP/1.1\r\nHost: WEB.test\r\nConnection: close\r\n\r\n",
    /^HTTP\/1\.1 200 /,
  ],
  [
    "a smuggled request is refused",
    "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    /^HTTP\/1\.1 400 (?![^]*HTTP\/1\.1)/,
  ],
  [
    "a bad chunk is refused",
    "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    /^HTTP\/1\.1 400 (?![^]*HTTP\/1\.1)/,
  ],
  [
    "an absolute target is sent on in origin form",
    "GET http://app.test/p HTTP/1.1\r\nHost: zzz\r\nConnection: close\r\n\r\n",
    /\r\n\r\nGET \/p HTTP\/1\.1\r\nHost: app\.test\r\n/,
  ],
  [
    "OPTIONS * is sent on",
    "OPTIONS * HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n",
    /\r\n\r\nOPTIONS \* HTTP\/1\.1\r\n/,
  ],
  ["an empty line before a request is skipped", "\r\n" + LAST_GET, /^HTTP\/1\.1 200 /],
  [
    "HTTP/1.0 gets an answer and a close",
    "GET / HTTP/1.0\r\nHost: app\r\n\r\n",
    /^HTTP\/1\.1 200 [^]*Connection: close/,
  ],
  ["a long target gets 414", `GET /${"a".repeat(9000)} HTTP/1.1\r\nHost: app\r\n\r\n`, /^HTTP\/1\.1 414 /],
  [
    "a long head gets 431",
    `GET / HTTP/1.1\r\nHost: app\r\nX: ${"a".repeat(40_000)}\r\n\r\n`,
    /^HTTP\/1\.1 431 /,
  ],
  [
    "a HEAD answered by the proxy has no body",
    "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    /^HTTP\/1\.1 404 [^]*\r\n\r\n$/,
  ],
];

Deno.test("the proxy answers raw bytes as RFC 9112 asks", async (t) => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  for (const [what, request, answer] of RAW) {
    await t.step(what, async () => assert.match(await exchangeRaw(proxied.port, request), answer));
  }
});

Deno.test("forwarding fields are the proxy's own, hop-by-hop fields end here, all else stays", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  const seen = await exchangeRaw(
    proxied.port,
    "GET /p HTTP/1.1\r\nHost: app.test:81\r\nX-Forwarded-For: 6.6.6.6\r\nx_forwarded_proto: https\r\nForwarded: for=evil\r\n" +
      "X-Real-IP: 6.6.6.6\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip, trailers\r\n" +
      "Accept-Encoding: gzip\r\ncOOkie: a\r\ncOOkie: b\r\n\r\n",
  );
  const body = seen.slice(seen.indexOf("\r\n\r\n") + 4);
  assert.equal(
    body,
    "GET /p HTTP/1.1\r\nHost: app.test:81\r\nAccept-Encoding: gzip\r\ncOOkie: a\r\ncOOkie: b\r\nX-Forwarded-For: 127.0.0.1\r\n" +
      `X-Forwarded-Host: app.test:81\r\nX-Forwarded-Port: ${proxied.port}\r\nX-Forwarded-Proto: http\r\n` +
      'Forwarded: for=127.0.0.1;host="app.test:81";proto=http\r\nTE: trailers\r\nConnection: TE\r\n\r\n',
  );
});

Deno.test("pipelined requests are answered in order over kept connections", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  const request = (n: number) =>
    `POST /${n} HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n${
      n === 99 ? "Connection: close\r\n" : ""
    }\r\nabc`;
  const answer = await exchangeRaw(proxied.port, Array.from({ length: 100 }, (_, n) => request(n)).join(""));
  assert.deepEqual(
    [...answer.matchAll(/POST \/(\d+)/g)].map((m) => Number(m[1])),
    Array.from({ length: 100 }, (_, n) => n),
  );
  assert.equal(upstream.accepted, 1);
});

Deno.test("chunks and trailers pass, forbidden trailers do not", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    const request = await connection.until(/\r\n0\r\n[^]*\r\n\r\n/);
    const body = request.slice(request.indexOf("\r\n\r\n") + 4);
    await connection.send(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n${body}`);
    await connection.rest();
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  const answer = await exchangeRaw(
    proxied.port,
    "POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n",
  );
  assert.match(answer, /Trailer: X-T\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n$/);
});

/** What an upstream sends, and what the client must see of it. */
const MISBEHAVIOUR: [what: string, sent: string, seen: RegExp][] = [
  ["nothing", "", /^HTTP\/1\.1 502 /],
  ["half a head", "HTTP/1.1 200 OK\r\nX: ", /^HTTP\/1\.1 502 /],
  ["no HTTP", "SSH-2.0-x\r\n\r\n", /^HTTP\/1\.1 502 /],
  ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", /^HTTP\/1\.1 502 /],
  [
    "half a body",
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    /^HTTP\/1\.1 200 (?![^]*HTTP\/1\.1)[^]*abc$/,
  ],
  [
    "half a chunked body",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    /^HTTP\/1\.1 200 (?![^]*0\r\n\r\n)[^]*abc$/,
  ],
  ["a body until close", "HTTP/1.1 200 OK\r\n\r\nabc", /^HTTP\/1\.1 200 [^]*\r\n\r\n3\r\nabc\r\n0\r\n\r\n$/],
  ["a switch unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\n", /^HTTP\/1\.1 502 /],
  [
    "interim responses",
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    /^HTTP\/1\.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP\/1\.1 204 /,
  ],
  ["interim responses without end", "HTTP/1.1 102 x\r\n\r\n".repeat(20), /HTTP\/1\.1 502 /],
  ["more than its length", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabcdef", /\r\n\r\na$/],
  [
    "hop-by-hop fields",
    "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nDate: d\r\nServer: s\r\nContent-Length: 0\r\n\r\n",
    /^HTTP\/1\.1 200 OK\r\nDate: d\r\nServer: s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n$/,
  ],
];

Deno.test("an upstream that misbehaves never makes a second head or a whole body", async (t) => {
  for (const [what, sent, seen] of MISBEHAVIOUR) {
    await t.step(what, async () => {
      await using upstream = new TestUpstream(async (connection) => {
        await connection.until(/\r\n\r\n/);
        await connection.send(sent);
      });
      await using proxied = await proxyTo(upstream, { limits: SHORT });
      assert.match(await exchangeRaw(proxied.port, LAST_GET), seen);
    });
  }
});

Deno.test("an unreachable workload gets 502", async () => {
  await using proxied = await proxyTo({ port: 1 }, { limits: SHORT });
  assert.match(await exchangeRaw(proxied.port, LAST_GET), /^HTTP\/1\.1 502 /);
});

Deno.test("a kept connection that turns out stale is replaced for a GET, not for a POST", async () => {
  await using upstream = new TestUpstream(async (connection, index) => {
    await connection.until(/\r\n\r\n/);
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    await connection.until(/\r\n\r\n/);
    if (index > 1) await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  using client = await RawConnection.open(proxied.port);
  for (const _ of [1, 2]) {
    await client.send(GET);
    await client.until(/200 OK[^]*\r\n\r\n/);
  }
  assert.equal(upstream.accepted, 2);
  await client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n");
  await client.until(/^HTTP\/1\.1 502 /);
  assert.equal(upstream.accepted, 2);
});

Deno.test("clients that leave after their answers leave the kept connection to the next", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  const post = "POST / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
  for (const request of [LAST_GET, post, post, LAST_GET, post]) {
    assert.match(await exchangeRaw(proxied.port, request), /^HTTP\/1\.1 200 /);
  }
  assert.equal(upstream.accepted, 1);
});

Deno.test("a client that leaves takes its request with it at once", async () => {
  const gone = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    arrived.resolve();
    await connection.rest();
    gone.resolve();
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  {
    using client = await RawConnection.open(proxied.port);
    await client.send(GET);
    await arrived.promise;
  }
  await gone.promise;
});

Deno.test("an upgrade to any protocol passes, bytes that come with it too, and each half ends by itself", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    const head = await connection.until(/\r\n\r\n/);
    assert.match(head, /Upgrade: lines\/1\r\n[^]*Connection: Upgrade\r\n/);
    await connection.send(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: lines/1\r\nConnection: Upgrade\r\n\r\nhello\n",
    );
    const said = await connection.rest();
    await connection.send(`you said ${said}`);
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  using client = await RawConnection.open(proxied.port);
  await client.send("GET / HTTP/1.1\r\nHost: app\r\nUpgrade: lines/1\r\nConnection: upgrade\r\n\r\nfirst ");
  await client.until(
    /^HTTP\/1\.1 101 Switching Protocols\r\nUpgrade: lines\/1\r\nConnection: Upgrade\r\n\r\nhello\n/,
  );
  await client.send("second");
  await (client.conn as Deno.TcpConn).closeWrite();
  assert.equal(await client.rest(), "you said first second");
});

Deno.test("answers are passed on as they are: compressed ones, redirects, any status", async () => {
  const gzipped = "\x1f\x8b\b\0\0\0\0\0\0\x03K\xcbO\x07\0";
  const answers = [
    `200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ${gzipped.length}\r\n\r\n${gzipped}`,
    "302 Found\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n",
    "799 Mine\r\nX: \xe9\r\nContent-Length: 1\r\n\r\na",
  ];
  await using upstream = new TestUpstream(async (connection) => {
    for (const answer of answers) {
      assert.match(await connection.until(/\r\n\r\n/), /Accept-Encoding: br\r\n/);
      await connection.send(`HTTP/1.1 ${answer}`);
    }
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  using client = await RawConnection.open(proxied.port);
  for (const answer of answers) {
    await client.send("GET / HTTP/1.1\r\nHost: app\r\nAccept-Encoding: br\r\n\r\n");
    while (client.text.length < answer.length + "HTTP/1.1 ".length) assert.ok(await client.readOnce());
    assert.equal(client.text, `HTTP/1.1 ${answer}`);
    client.text = "";
  }
});

Deno.test("hundreds of slow clients, in head and body, are cut off in time and keep nobody from being served", async () => {
  await using upstream = new TestUpstream(echo);
  // The silent ones take longer.
  const limits = { ...SHORT, headTimeoutMs: 5_000, responseTimeoutMs: 5_000 };
  await using proxied = await proxyTo(upstream, { limits });
  const starts = [
    "",
    "G",
    "GET / HTTP/1.1\r\nHost: app\r\n",
    "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 9\r\n\r\n",
  ];
  const clients = await Promise.all(Array.from({ length: 400 }, () => RawConnection.open(proxied.port)));
  const dribble = async (client: RawConnection, i: number) => {
    await client.send(starts[i % starts.length]);
    let isEnded = false;
    const ended = client.rest();
    // One header byte after the other, but never the end of the head.
    const sending = (async () => {
      while (i % starts.length === 2 && !isEnded) {
        await client.send("X").catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    assert.match(await ended, starts[i % starts.length] === "" ? /^$/ : /^HTTP\/1\.1 408 /);
    isEnded = true;
    await sending;
  };
  try {
    const slow = clients.map(dribble);
    for (let n = 0; n < 20; n++) assert.match(await exchangeRaw(proxied.port, LAST_GET), /^HTTP\/1\.1 200 /);
    await Promise.all(slow);
  } finally {
    for (const client of clients) client[Symbol.dispose]();
  }
});

Deno.test("a client that closes only its sending half still gets its answer", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.rest();
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  using client = await RawConnection.open(proxied.port);
  await client.send(GET);
  await (client.conn as Deno.TcpConn).closeWrite();
  assert.match(await client.rest(), /late$/);
});

Deno.test("a body is sent once the workload asks for it", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    const head = await connection.until(/\r\n\r\n/);
    assert.match(head, /Expect: 100-continue/);
    await connection.send("HTTP/1.1 100 Continue\r\n\r\n");
    await connection.until(/hello/);
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  using client = await RawConnection.open(proxied.port);
  await client.send("PUT / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  await client.until(/^HTTP\/1\.1 100 Continue\r\n\r\n/);
  await client.send("hello");
  await client.until(/ok$/);
});

Deno.test("each limit and time-out answers with its own status", async (t) => {
  const silent = (connection: RawConnection) => connection.rest().then(() => {});
  const cases: [what: string, limits: object, request: string, answer: RegExp][] = [
    ["a head that dribbles", { headTimeoutMs: 80 }, "GET / HT", /^HTTP\/1\.1 408 /],
    ["a workload that is silent", { responseTimeoutMs: 80 }, LAST_GET, /^HTTP\/1\.1 504 /],
    [
      "a body that does not come",
      { responseTimeoutMs: 80 },
      "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\na",
      /^HTTP\/1\.1 408 /,
    ],
    ["a client that asks nothing", { headTimeoutMs: 80 }, "", /^$/],
    [
      "a body that says it is too long",
      { maxBodyBytes: 4 },
      "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nabcde",
      /^HTTP\/1\.1 413 /,
    ],
    [
      "a chunked body that is too long",
      { maxBodyBytes: 4 },
      "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
      /^HTTP\/1\.1 413 /,
    ],
    [
      "trailers that are too long",
      { maxTrailerBytes: 8 },
      "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: abcdefghijk\r\n\r\n",
      /^HTTP\/1\.1 431 /,
    ],
    ["no upstream connection left", { maxUpstreamConnections: 0 }, LAST_GET, /^HTTP\/1\.1 503 /],
  ];
  for (const [what, limits, request, answer] of cases) {
    await t.step(what, async () => {
      await using upstream = new TestUpstream(silent);
      await using proxied = await proxyTo(upstream, { limits: { ...SHORT, ...limits } });
      assert.match(await exchangeRaw(proxied.port, request), answer);
    });
  }
});

Deno.test("beyond the connection limit an idle connection makes room, a busy one does not", async () => {
  const asked = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    asked.resolve();
    await connection.rest();
  });
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, maxConnections: 1 } });
  using idle = await RawConnection.open(proxied.port);
  await idle.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
  await idle.until(/404[^]*\}\n/);
  using busy = await RawConnection.open(proxied.port);
  await busy.send(GET);
  await asked.promise;
  assert.equal(await idle.rest(), "");
  assert.match(await exchangeRaw(proxied.port, ""), /^HTTP\/1\.1 503 /);
});
