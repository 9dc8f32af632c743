import assert from "node:assert/strict";
import { once } from "node:events";
import { freePort } from "../../../tests/support/free_port.ts";
import { echo, exchangeRaw, RawConnection, TestUpstream } from "../test_support.ts";
import { eventually, local, pair, TestNode } from "./test_node.ts";

const GET = "GET /p HTTP/1.1\r\nHost: app.test\r\n\r\n";
const LAST_GET = "GET /p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const POST = "POST /p HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/** Answers every request with that text. */
function always(text: string) {
  return async (connection: RawConnection) => {
    for (;;) {
      await connection.until(/\r\n\r\n/);
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`);
    }
  };
}

Deno.test("a request takes a hop and reaches the workload as if it had come to its node", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const answer = await exchangeRaw(
    nodes.port,
    "GET /p HTTP/1.1\r\nHost: app.test:81\r\nX-A: 1\r\nTE: trailers\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n",
  );
  assert.equal(
    answer.slice(answer.indexOf("\r\n\r\n") + 4),
    "GET /p HTTP/1.1\r\nHost: app.test:81\r\nX-A: 1\r\nX-Forwarded-For: 127.0.0.1\r\n" +
      `X-Forwarded-Host: app.test:81\r\nX-Forwarded-Port: ${nodes.port}\r\nX-Forwarded-Proto: http\r\n` +
      'Forwarded: for=127.0.0.1;host="app.test:81";proto=http\r\nTE: trailers\r\nConnection: TE\r\n\r\n',
  );
  assert.match(await exchangeRaw(nodes.port, POST), /\r\n\r\nPOST \/p [^]*\r\n\r\nhello$/);
  assert.equal((await nodes.a.proxy.stats()).hops.sent, 2);
  assert.equal((await nodes.b.proxy.stats()).hops.received, 2);
  assert.deepEqual(nodes.a.stale, []);
});

Deno.test("what a client says of its address, or of a hop, is believed on neither node", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  for (const address of ["127.0.0.1", "127.0.0.2"]) {
    using client = await RawConnection.open(nodes.port, address);
    await client.send(
      "GET /p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n" +
        `hypercore-HOP: app ${nodes.port} 6.6.6.6 https\r\nX_Forwarded_Proto: https\r\nX-Real-IP: 6.6.6.6\r\n\r\n`,
    );
    const answer = await client.rest();
    assert.match(
      answer,
      /^HTTP\/1\.1 200 [^]*X-Forwarded-For: 127\.0\.0\.1\r\n[^]*X-Forwarded-Proto: http\r\n/,
    );
    assert.doesNotMatch(answer, /6\.6\.6\.6|https|hypercore-hop/i);
  }
});

Deno.test("a workload cannot speak for its node", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(
      "HTTP/1.1 421 Misdirected Request\r\nHypercore-Hop: not-here\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno",
    );
  });
  await using nodes = await pair(upstream);
  assert.equal(
    await exchangeRaw(nodes.port, LAST_GET),
    "HTTP/1.1 421 Misdirected Request\r\nX-A: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
  );
  assert.deepEqual(nodes.a.stale, []);
});

Deno.test("a WebSocket passes two proxies both ways, the close too", async () => {
  const served = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "chat" });
    socket.onmessage = (event) => socket.send(event.data);
    return response;
  });
  await using _ = { [Symbol.asyncDispose]: () => served.shutdown() };
  await using nodes = await pair({ port: served.addr.port });
  // The client sends "localhost" as Host, so that is a name of the workload here.
  await nodes.a.proxy.apply([{ ...nodes.a.route(nodes.b.asUpstream()), aliases: ["localhost"] }]);
  const socket = new WebSocket(`ws://localhost:${nodes.port}/`, "chat");
  await once(socket as unknown as EventTarget & NodeJS.EventEmitter, "open");
  assert.equal(socket.protocol, "chat");
  for (const message of ["hello", "x".repeat(300_000)]) {
    const received = new Promise((resolve) => socket.onmessage = (event) => resolve(event.data));
    socket.send(message);
    assert.equal(await received, message);
  }
  const closed = new Promise<CloseEvent>((resolve) => socket.onclose = resolve);
  socket.close(1000, "done");
  assert.equal((await closed).code, 1000);
});

Deno.test("both ways stream through a hop: an answer comes piece by piece while the request is being sent", async () => {
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const piece of ["one", "two"]) {
      await connection.until(new RegExp(piece));
      await connection.send(`3\r\n${piece}\r\n`);
    }
    await connection.until(/0\r\n\r\n/);
    await connection.send("0\r\nX-T: 1\r\n\r\n");
  });
  await using nodes = await pair(upstream);
  using client = await RawConnection.open(nodes.port);
  await client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n");
  await client.until(/^HTTP\/1\.1 200 [^]*\r\n\r\n/);
  for (const piece of ["one", "two"]) {
    await client.send(`3\r\n${piece}\r\n`);
    assert.equal(await client.until(new RegExp(piece + "\r\n")), `3\r\n${piece}\r\n`);
  }
  await client.send("0\r\n\r\n");
  assert.equal(await client.until(/X-T: 1\r\n\r\n/), "0\r\nX-T: 1\r\n\r\n");
});

Deno.test("a client that leaves takes its request with it, through the hop", async () => {
  const arrived = Promise.withResolvers<void>(), gone = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    arrived.resolve();
    await connection.rest();
    gone.resolve();
  });
  await using nodes = await pair(upstream);
  {
    using client = await RawConnection.open(nodes.port);
    await client.send(GET);
    await arrived.promise;
  }
  await gone.promise;
});

Deno.test("a node that dies within a body cuts it: the answer does not look whole", async () => {
  const started = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    started.resolve();
    await connection.rest();
  });
  await using nodes = await pair(upstream, { limits: { shutdownGraceMs: 0 } });
  using client = await RawConnection.open(nodes.port);
  await client.send(GET);
  await client.until(/abc\r\n/);
  await nodes.b[Symbol.asyncDispose]();
  assert.equal(await client.rest(), "");
});

Deno.test("a route to a node without the workload is a 503, told to the agent, and no hop is taken twice", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  // Each believes that the other has it.
  await nodes.b.serve(nodes.a.asUpstream());
  for (const request of [LAST_GET, POST]) {
    const answer = await exchangeRaw(nodes.port, request);
    assert.match(
      answer,
      /^HTTP\/1\.1 503 [^]*Retry-After: 1\r\n[^]*\{"error":"the workload is not where it was/,
    );
  }
  assert.deepEqual((await nodes.a.proxy.stats()).hops, { sent: 0, received: 0, refused: 0 });
  assert.equal(upstream.accepted, 0);
  const detail = "the workload is not where it was last seen";
  await eventually(() => nodes.a.stale.length > 0);
  // Twice where a second has passed meanwhile.
  for (const one of nodes.a.stale) {
    assert.deepEqual(one, { id: "app", hostPort: nodes.port, node: "b", reason: "not-here", detail });
  }
});

Deno.test("the next way is tried when a node has nothing, cannot be reached, or cannot reach its container", async (t) => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  await using other = await TestNode.open({ node: "c", address: "127.0.0.3", port: nodes.port });
  const good = nodes.b.asUpstream();
  const dead = { ...good, node: "dead", port: freePort(), hostname: "127.0.0.3" };
  const cases = [
    ["nothing there", other.asUpstream(), []],
    ["an alias is not an id", other.asUpstream(), [{
      ...other.route(local(upstream)),
      id: "x",
      aliases: ["app"],
    }]],
    ["nobody there", dead, []],
    ["another certificate", { ...good, fingerprint: "00".repeat(32) }, []],
    ["a dead container", other.asUpstream(), [other.route(local({ port: freePort() }))]],
    ["a dead container here", local({ port: freePort() }), []],
  ] as const;
  for (const [what, first, table] of cases) {
    await t.step(what, async () => {
      await other.proxy.apply(table);
      await nodes.a.serve(first, good);
      for (const request of [LAST_GET, POST]) {
        assert.match(await exchangeRaw(nodes.port, request), /^HTTP\/1\.1 200 [^]*X-Forwarded-For: 127/);
      }
    });
  }
  await t.step("not when part of a body has been sent", async () => {
    await other.proxy.apply([]);
    await nodes.a.serve(other.asUpstream(), good);
    using client = await RawConnection.open(nodes.port);
    await client.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\n\r\nabc");
    await client.until(/^HTTP\/1\.1 503 /);
  });
});

Deno.test("a node that takes connections and says nothing is passed over in time, or a 504 says so", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream, { limits: { connectTimeoutMs: 200 } });
  using silent = Deno.listen({ hostname: "127.0.0.3", port: 0 });
  const { hostname, port } = silent.addr;
  const hung = { ...nodes.b.asUpstream(), node: "hung", hostname, port };
  // Once before and once after this node has seen its certificate.
  for (const request of [LAST_GET, POST]) {
    await nodes.a.serve(hung);
    const answer = await exchangeRaw(nodes.port, request);
    assert.match(answer, /^HTTP\/1\.1 504 Gateway Timeout\r\nContent-Type: application\/json\r\n/);
    assert.match(
      answer,
      /\{"error":"the workload's node did not accept the connection in time","status":504,.*\}\n$/,
    );
    await nodes.a.serve(hung, nodes.b.asUpstream());
    // The next node has no more time either, which may be too short for it on a busy machine.
    await eventually(async () => {
      const passed = await exchangeRaw(nodes.port, request);
      assert.match(passed, /^HTTP\/1\.1 (200|504) /);
      return passed.startsWith("HTTP/1.1 200 ");
    });
  }
});

Deno.test("a node that hangs with a request is left for where the route leads by then, if it may be sent again", async () => {
  const asked = [1, 2, 3].map(() => Promise.withResolvers<RawConnection>());
  let count = 0;
  await using hanging = new TestUpstream(async (connection) => {
    for (;;) {
      await connection.until(/\r\n\r\n/);
      if (count > 0) asked[count - 1].resolve(connection);
      if (count++ > 0) return void await connection.rest();
      await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
  });
  await using good = new TestUpstream(echo);
  const limits = { elsewhereGraceMs: 10, responseTimeoutMs: 60_000, shutdownGraceMs: 0 };
  await using nodes = await pair(hanging, { limits });
  await using other = await TestNode.open({ node: "c", address: "127.0.0.3", port: nodes.port, limits });
  await other.serve(local(good));
  // Over a connection that is kept from an earlier request, and over a new one.
  await exchangeRaw(nodes.port, LAST_GET);
  const gets = [exchangeRaw(nodes.port, LAST_GET)];
  await asked[0].promise;
  gets.push(exchangeRaw(nodes.port, LAST_GET));
  using post = await RawConnection.open(nodes.port);
  await asked[1].promise;
  await post.send(POST);
  const posted = await asked[2].promise;
  await nodes.a.serve(other.asUpstream());
  for (const answer of await Promise.all(gets)) assert.match(answer, /^HTTP\/1\.1 200 [^]*GET \/p HTTP/);
  assert.equal((await other.proxy.stats()).hops.received, 2);
  // What may have had an effect is not done twice.
  await posted.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
  assert.match(await post.rest(), /^HTTP\/1\.1 201 /);
});

Deno.test("an answer that comes soon after its route leads elsewhere is taken", async () => {
  const asked = Promise.withResolvers<RawConnection>();
  await using slow = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    asked.resolve(connection);
    await connection.rest();
  });
  await using nodes = await pair(slow, { limits: { elsewhereGraceMs: 60_000 } });
  const answer = exchangeRaw(nodes.port, LAST_GET);
  const connection = await asked.promise;
  await nodes.a.serve({ ...nodes.b.asUpstream(), node: "c", hostname: "127.0.0.3" });
  await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
  assert.match(await answer, /\r\n\r\nslow$/);
});

Deno.test("a request waits for a route that changes, and is served by the new one", async () => {
  await using here = new TestUpstream(echo);
  await using nodes = await pair(here, { limits: { staleRouteWaitMs: 60_000 } });
  await nodes.b.proxy.apply([]);
  for (const request of [LAST_GET, POST]) {
    await nodes.a.serve(nodes.b.asUpstream());
    const reports = nodes.a.stale.length;
    const answer = exchangeRaw(nodes.port, request);
    // The second report of a kind comes a second later; the first is waited for.
    await eventually(() => nodes.a.stale.length > reports || reports > 0);
    await nodes.a.serve(local(here));
    assert.match(await answer, /^HTTP\/1\.1 200 /);
  }
  // One that goes away is waited for no longer.
  await nodes.a.serve(nodes.b.asUpstream());
  const answer = exchangeRaw(nodes.port, LAST_GET);
  await nodes.a.proxy.apply([{ ...nodes.a.route(nodes.b.asUpstream()), id: "other", aliases: [] }]);
  assert.match(await answer, /^HTTP\/1\.1 (503|404) /);
});

Deno.test("a node that starts anew at its address is served again, a kept connection or not", async () => {
  await using upstream = new TestUpstream(always("first"));
  await using nodes = await pair(upstream);
  using client = await RawConnection.open(nodes.port);
  const get = async () => {
    await client.send(GET);
    return await client.until(/first|second|\}\n/);
  };
  assert.match(await get(), /first/);
  await nodes.b[Symbol.asyncDispose]();
  assert.match(await get(), /^HTTP\/1\.1 502 [^]*cannot be reached/);
  await using second = new TestUpstream(always("second"));
  await using again = await TestNode.open({ node: "b", address: "127.0.0.2", port: nodes.port });
  await again.serve(local(second));
  await nodes.a.serve(again.asUpstream());
  assert.match(await get(), /second/);
});

Deno.test("HTTP/2 in front takes hops too", async () => {
  await using upstream = new TestUpstream(echo);
  await using nodes = await pair(upstream);
  const { stdout } = await new Deno.Command("curl", {
    args: [
      ...["-sS", "--http2-prior-knowledge", "-H", "Hypercore-Hop: app 1 6.6.6.6 https", "-d", "hello"],
      `http://app.localhost:${nodes.port}/p`,
    ],
  }).output();
  const seen = new TextDecoder().decode(stdout);
  assert.match(seen, /^POST \/p HTTP\/1\.1\r\n[^]*X-Forwarded-For: 127\.0\.0\.1\r\n[^]*\r\n\r\nhello$/);
  assert.doesNotMatch(seen, /hypercore-hop|6\.6\.6\.6/i);
  assert.equal((await nodes.b.proxy.stats()).hops.received, 1);
});
