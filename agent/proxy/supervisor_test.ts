import assert from "node:assert/strict";
import { once } from "node:events";
import tls from "node:tls";
import { freePort } from "../../tests/support/free_port.ts";
import { openProxy } from "./mod.ts";
import {
  appRoute,
  echo,
  exchangeRaw,
  proxyTo,
  RawConnection,
  recordingLog,
  TestUpstream,
} from "./test_support.ts";
import { writeCertificate } from "./test_certificate.ts";

const LAST_GET = "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const SHORT = { shutdownGraceMs: 200 };

/** Tries until it holds; the test's own time-out is the deadline. */
async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!await holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Until nobody listens there: a program that is being started holds what was just closed for another moment. */
function refused(port: number): Promise<void> {
  return eventually(async () => {
    try {
      (await RawConnection.open(port))[Symbol.dispose]();
      return false;
    } catch (error) {
      if (error instanceof Deno.errors.ConnectionRefused) return true;
      if (error instanceof Deno.errors.ConnectionReset) return false;
      throw error;
    }
  });
}

Deno.test("ports open and close with the table, and a request in flight finishes", async () => {
  const asked = Promise.withResolvers<void>(), answer = Promise.withResolvers<void>();
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    asked.resolve();
    await answer.promise;
    await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
  });
  await using proxied = await proxyTo(upstream, { limits: SHORT, workers: 2 });
  using client = await RawConnection.open(proxied.port);
  await client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
  await asked.promise;
  assert.deepEqual(await proxied.proxy.apply([]), []);
  await refused(proxied.port);
  answer.resolve();
  assert.match(
    await client.rest(),
    /^HTTP\/1\.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate$/,
  );
});

Deno.test("who has just connected when the port closes is answered; who asks nothing, or has been, is let go", async () => {
  await using upstream = new TestUpstream(echo);
  const get = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
  // Without HTTP/2 the connection need not first be told which it is.
  for (const http2 of [true, false]) {
    const limits = { shutdownGraceMs: 60_000, firstRequestGraceMs: 60_000, lingerTimeoutMs: 50 };
    await using proxied = await proxyTo(upstream, { limits, http2 });
    using served = await RawConnection.open(proxied.port);
    await served.send(get);
    await served.until(/\r\n\r\nGET [^]*\r\n\r\n/);
    using fresh = await RawConnection.open(proxied.port);
    while ((await proxied.proxy.stats()).openConnections < 2);
    const ended = proxied.proxy[Symbol.asyncDispose]();
    assert.equal(await served.rest(), "");
    await fresh.send(get);
    assert.match(await fresh.rest(), /^HTTP\/1\.1 200 OK\r\n[^]*Connection: close\r\n\r\nGET \/ /);
    await ended;
  }
  const limits = { shutdownGraceMs: 60_000, firstRequestGraceMs: 10 };
  await using proxied = await proxyTo(upstream, { limits });
  using silent = await RawConnection.open(proxied.port);
  while ((await proxied.proxy.stats()).openConnections < 1);
  await proxied.proxy[Symbol.asyncDispose]();
  assert.equal(await silent.rest(), "");
});

Deno.test("a taken port fails alone, also when its owner would share it", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT });
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0, reusePort: true });
  const { port } = taken.addr;
  const failures = await proxied.proxy.apply([
    appRoute(proxied.port, upstream.port),
    appRoute(port, upstream.port),
  ]);
  assert.deepEqual(failures, [{ hostPort: port, reason: "the port is taken by another program" }]);
  assert.match(await exchangeRaw(proxied.port, LAST_GET), /^HTTP\/1\.1 200 /);
  await assert.rejects(
    proxied.proxy.reserve(port),
    new RegExp(`Cannot open host port "${port}": the port is taken`),
  );
});

Deno.test("a port that is in use for another moment, as by a program that is being started, is waited for", async () => {
  await using proxied = await proxyTo(undefined, { limits: SHORT });
  const port = freePort();
  const held = Deno.listen({ hostname: "127.0.0.1", port });
  setTimeout(() => held.close(), 50);
  assert.deepEqual(await proxied.proxy.apply([appRoute(port, 1)]), []);
  assert.match(await exchangeRaw(port, LAST_GET), /^HTTP\/1\.1 502 /);
});

Deno.test("a reserved port is open until released, or until a route has taken it over", async () => {
  await using proxied = await proxyTo(undefined, { limits: SHORT });
  const port = freePort();
  const first = await proxied.proxy.reserve(port);
  await proxied.proxy.apply([]);
  assert.match(await exchangeRaw(port, LAST_GET), /^HTTP\/1\.1 404 /);
  await first.release();
  await first.release();
  await refused(port);
  const second = await proxied.proxy.reserve(port);
  await proxied.proxy.apply([appRoute(port, 1)]);
  await second.release();
  assert.match(await exchangeRaw(port, LAST_GET), /^HTTP\/1\.1 502 /);
  await proxied.proxy.apply([]);
  await refused(port);
});

Deno.test("IPv4 and IPv6 are served alike, and the client's address is told apart", async () => {
  await using upstream = new TestUpstream(echo, "::1");
  const proxy = await openProxy({
    bindHosts: ["0.0.0.0", "::"],
    workers: 2,
    log: recordingLog(),
    limits: SHORT,
  });
  await using _ = proxy;
  const port = freePort();
  assert.deepEqual(await proxy.apply([appRoute(port, upstream.port, "::1")]), []);
  for (const [host, address, node] of [["127.0.0.1", "127.0.0.1", "127.0.0.1"], ["::1", "::1", '"[::1]"']]) {
    using client = await RawConnection.open(port, host);
    await client.send(LAST_GET);
    const answer = await client.rest();
    assert.ok(answer.includes(`X-Forwarded-For: ${address}\r\n`), answer);
    assert.ok(answer.includes(`Forwarded: for=${node};`), answer);
  }
});

Deno.test("a worker that crashes is replaced and serves the same table, its counts kept", async () => {
  await using upstream = new TestUpstream(echo);
  const workers: Worker[] = [];
  await using proxied = await proxyTo(upstream, {
    limits: SHORT,
    createWorker: () => {
      const worker = new Worker(new URL("./test_crash_worker.ts", import.meta.url), { type: "module" });
      workers.push(worker);
      return worker;
    },
  });
  assert.match(await exchangeRaw(proxied.port, LAST_GET), /^HTTP\/1\.1 200 /);
  await eventually(async () => (await proxied.proxy.stats()).requests["2xx"] === 1);
  workers[0].postMessage({ type: "stats", id: -1, crash: true });
  await eventually(() => workers.length === 2);
  await eventually(async () => {
    try {
      return /^HTTP\/1\.1 200 /.test(await exchangeRaw(proxied.port, LAST_GET));
    } catch (error) {
      assert.ok(
        error instanceof Deno.errors.ConnectionRefused || error instanceof Deno.errors.ConnectionReset,
      );
      return false;
    }
  });
  await eventually(async () => (await proxied.proxy.stats()).requests["2xx"] === 2);
  assert.ok(proxied.log.lines.some((line) => /proxy worker died.*crash asked for/.test(line)));
});

Deno.test("a WebSocket passes both ways, the close too", async () => {
  const served = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request, { protocol: "chat" });
    socket.onmessage = (event) => socket.send(event.data);
    return response;
  });
  await using _ = { [Symbol.asyncDispose]: () => served.shutdown() };
  await using proxied = await proxyTo({ port: served.addr.port }, { limits: SHORT });
  // The client sends "localhost" as Host, so that is the workload's name here.
  await proxied.proxy.apply([{ ...appRoute(proxied.port, served.addr.port), id: "localhost" }]);
  const socket = new WebSocket(`ws://localhost:${proxied.port}/`, "chat");
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

Deno.test("1,000 connections at a time are served", async () => {
  await using upstream = new TestUpstream(echo);
  await using proxied = await proxyTo(upstream, { limits: SHORT, workers: 2 });
  const clients = await Promise.all(Array.from({ length: 1000 }, () => RawConnection.open(proxied.port)));
  try {
    for (const round of [1, 2]) {
      await Promise.all(clients.map(async (client, i) => {
        await client.send(`GET /${round}/${i} HTTP/1.1\r\nHost: app.test\r\n\r\n`);
        assert.match(await client.until(/TE|proto=http\r\n\r\n/), new RegExp(`GET /${round}/${i} `));
      }));
    }
    const stats = await proxied.proxy.stats();
    assert.equal(stats.openConnections, 1000);
    assert.equal(stats.requests["2xx"], 2000);
    assert.equal(stats.duration.count, 2000);
  } finally {
    for (const client of clients) client[Symbol.dispose]();
  }
  await eventually(async () => (await proxied.proxy.stats()).openConnections === 0);
});

Deno.test("a slow reader holds the workload back rather than filling memory", async () => {
  let sent = 0;
  const block = new Uint8Array(1 << 20);
  await using upstream = new TestUpstream(async (connection) => {
    await connection.until(/\r\n\r\n/);
    await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${2 ** 30}\r\n\r\n`);
    while (sent < 2 ** 30) sent += await connection.conn.write(block);
  });
  await using proxied = await proxyTo(upstream, { limits: { ...SHORT, idleTimeoutMs: 300 } });
  using client = await RawConnection.open(proxied.port);
  await client.send(LAST_GET);
  await client.until(/\r\n\r\n/);
  // Nothing is read: the proxy gives up when nothing has moved for the idle time.
  await eventually(async () => (await proxied.proxy.stats()).openConnections === 0);
  assert.ok(sent < 64 << 20, `${sent >> 20} MiB went into buffers`);
});

Deno.test("clients that vanish within their requests disturb nobody, and nobody gets what was another's", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const files = await writeCertificate(dir, "first");
    await using proxied = await proxyTo(upstream, { limits: SHORT, tls: files });
    const caCerts = [await Deno.readTextFile(files.certFile)];
    let isOver = false;
    // Killed, it closes all of its connections at once, and without the end that TLS asks for.
    const vanish = async () => {
      const script = new URL("./test_vanishing_client.ts", import.meta.url).pathname;
      const child = new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "--allow-net",
          "--allow-read",
          "--no-config",
          script,
          `${proxied.port}`,
          files.certFile,
        ],
        stdout: "piped",
      }).spawn();
      const reader = child.stdout.getReader();
      const { value } = await reader.read();
      child.kill("SIGKILL");
      await child.status;
      await reader.cancel();
      assert.match(new TextDecoder().decode(value), /enough/);
    };
    const stay = async (n: number) => {
      const tcp = await Deno.connect({ hostname: "127.0.0.1", port: proxied.port });
      using client = new RawConnection(await Deno.startTls(tcp, { hostname: "localhost", caCerts }));
      for (let round = 0; !isOver; round++) {
        await client.send(`GET /${n}/${round} HTTP/1.1\r\nHost: app.test\r\n\r\n`);
        const answer = await client.until(/proto=https\r\n\r\n/);
        assert.ok(answer.includes(`\r\n\r\nGET /${n}/${round} HTTP/1.1\r\n`), answer);
      }
    };
    const staying = Promise.all(Array.from({ length: 8 }, (_, n) => stay(n)));
    try {
      for (let n = 0; n < 8; n++) await vanish();
    } finally {
      isOver = true;
    }
    await staying;
    assert.deepEqual(proxied.log.lines, []);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

interface Handshake {
  name: string;
  protocol: string | null;
  answer: string;
}

async function getOverTls(port: number, options: tls.ConnectionOptions = {}): Promise<Handshake> {
  const socket = tls.connect({
    host: "127.0.0.1",
    port,
    servername: "app.test",
    rejectUnauthorized: false,
    ...options,
  });
  await once(socket, "secureConnect");
  const name = String(socket.getPeerCertificate().subject.CN);
  const protocol = socket.getProtocol();
  socket.write(LAST_GET);
  let answer = "";
  socket.on("data", (chunk) => answer += chunk);
  await once(socket, "close");
  return { name, protocol, answer };
}

Deno.test("a renewed certificate is served without one connection lost; a bad one is refused and reported", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const files = await writeCertificate(dir, "first");
    await using proxied = await proxyTo(upstream, { limits: SHORT, workers: 2, tls: files, tlsPollMs: 20 });
    const { name, protocol, answer } = await getOverTls(proxied.port);
    assert.equal(name, "first");
    assert.match(protocol ?? "", /^TLSv1\.[23]$/);
    assert.match(answer, /^HTTP\/1\.1 200 [^]*X-Forwarded-Proto: https/);

    let stop = false, served = 0;
    const load = Promise.all(Array.from({ length: 4 }, async () => {
      while (!stop) {
        assert.match((await getOverTls(proxied.port)).answer, /^HTTP\/1\.1 200 /);
        served++;
      }
    }));
    for (const next of ["second", "third", "fourth"]) {
      await writeCertificate(dir, next);
      await eventually(async () => (await getOverTls(proxied.port)).name === next);
    }
    stop = true;
    await load;
    assert.ok(served > 0);

    await Deno.writeTextFile(files.certFile, "no certificate");
    await eventually(() => proxied.log.lines.some((line) => /new proxy certificate refused/.test(line)));
    assert.equal((await getOverTls(proxied.port)).name, "fourth");
    await assert.rejects(getOverTls(proxied.port, { maxVersion: "TLSv1.1", minVersion: "TLSv1" }));
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a proxy waits with its new certificate while another one of the machine takes up its own", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const files = await writeCertificate(dir, "first");
    await using proxied = await proxyTo(upstream, { limits: SHORT, tls: files, tlsPollMs: 20 });
    const name = async () => (await getOverTls(proxied.port)).name;
    {
      using setting = await Deno.open("/proc/sys/net/ipv4/tcp_migrate_req");
      await setting.lock(true);
      await writeCertificate(dir, "second");
      const waits = new RegExp(`-> FLOCK +ADVISORY +WRITE ${Deno.pid} `);
      while (!waits.test(await Deno.readTextFile("/proc/locks"))) assert.equal(await name(), "first");
      assert.equal(await name(), "first");
    }
    await eventually(async () => await name() === "second");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a plain port stays plain HTTP beside TLS ports", async () => {
  await using upstream = new TestUpstream(echo);
  const dir = await Deno.makeTempDir();
  try {
    const plain = freePort();
    await using proxied = await proxyTo(undefined, {
      limits: SHORT,
      tls: await writeCertificate(dir, "first"),
      plainPorts: [plain],
    });
    const tlsPort = freePort();
    const routes = [plain, tlsPort].map((port) => appRoute(port, upstream.port));
    assert.deepEqual(await proxied.proxy.apply(routes), []);
    assert.match(await exchangeRaw(plain, LAST_GET), /^HTTP\/1\.1 200 [^]*X-Forwarded-Proto: http\r\n/);
    assert.match((await getOverTls(tlsPort)).answer, /^HTTP\/1\.1 200 [^]*X-Forwarded-Proto: https/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a certificate that cannot be used keeps the proxy from opening, with the file's name", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const files = { certFile: `${dir}/none.pem`, keyFile: `${dir}/none.key` };
    await assert.rejects(
      proxyTo(undefined, { tls: files }),
      /Cannot read the proxy certificate ".*none\.pem"/,
    );
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
