import assert from "node:assert/strict";
import tls from "node:tls";
import { Hono } from "hono";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import type { Bindings } from "./app.ts";
import { IDLE_TIMEOUT_MS, MAX_CONNECTIONS } from "../api/listener.ts";
import { listenHttp } from "./server.ts";
import { exchange } from "./testing.ts";

const natives = { Request, Response, Headers };
const app = new Hono<{ Bindings: Bindings }>().get("/", (c) => c.text("page"));

Deno.test("the HTTP port takes up a new certificate, and keeps the old one when the new is broken", async () => {
  const dir = await Deno.makeTempDir();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const files = await writeCertificate(dir, "first");
  const address = { host: "127.0.0.1", port: 0 };
  await using listener = await listenHttp(app, {
    address,
    tls: files,
    log: silentLog,
    certificatePollMs: 20,
  });
  const served = () =>
    new Promise<string>((resolve, reject) => {
      const options = { host: "127.0.0.1", port: listener.address.port, rejectUnauthorized: false };
      let [name, text] = ["", ""];
      const socket = tls.connect(options, () => {
        name = socket.getPeerCertificate().subject.CN as string;
        socket.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
      });
      socket.on("data", (chunk) => text += chunk);
      socket.on("error", reject);
      socket.on("close", () => resolve(`${name} ${text.split("\r\n\r\n")[1]}`));
    });
  assert.equal(await served(), "first page");
  await writeCertificate(dir, "second");
  while (await served().catch(String) !== "second page"); // the old server may drop what it has just accepted
  await Deno.writeTextFile(`${dir}/key.pem`, "broken");
  for (let round = 0; round < 5; round++) assert.equal(await served(), "second page");
});

Deno.test("an address that is taken is named", async () => {
  const address = { host: "127.0.0.1", port: 0 };
  await using listener = await listenHttp(app, { address, log: silentLog });
  const taken = listenHttp(app, { address: listener.address, log: silentLog });
  await assert.rejects(taken, new RegExp(`Cannot listen on "127.0.0.1:${listener.address.port}"`));
});

Deno.test("rule 8: no more connections are open to the HTTP port than the limit; the oldest silent one gives way and is told of", async () => {
  let refused = 0;
  const address = { host: "127.0.0.1", port: 0 };
  await using listener = await listenHttp(app, {
    address,
    log: silentLog,
    onRefused: () => refused++,
    headTimeoutMs: IDLE_TIMEOUT_MS, // none of them is closed for its silence meanwhile
  });
  const { port } = listener.address;
  const silent: Deno.Conn[] = [];
  for (let n = 0; n < MAX_CONNECTIONS; n++) silent.push(await Deno.connect({ hostname: "127.0.0.1", port }));
  assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "page");
  assert.equal(refused, 1);
  assert.equal(await silent[0].read(new Uint8Array(1)).catch(() => null), null);
  for (const conn of silent) conn.close();
});

Deno.test("a request comes to the application as it is, in the clear and by TLS, and a malformed one does not", async () => {
  const seen: Record<string, string>[] = [];
  const echo = new Hono<{ Bindings: Bindings }>().all("*", async (c) => {
    const { method, path } = c.req;
    const host = c.req.header("host")!, twice = c.req.header("x-twice") ?? "";
    seen.push({ method, path, query: c.req.query("a") ?? "", host, twice, body: await c.req.text() });
    return c.body("\u00e4", 201, { "x-answer": c.env.remoteAddress });
  });
  await using undo = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const curl = async (...args: string[]) => {
    const { stdout } = await new Deno.Command("curl", { args: ["-s", "-i", "-k", "-m", "20", ...args] })
      .output();
    return new TextDecoder().decode(stdout);
  };
  for (const tls of [undefined, await writeCertificate(dir, "n1")]) {
    const address = { host: "127.0.0.1", port: 0 };
    await using listener = await listenHttp(echo, { address, tls, log: silentLog });
    const origin = `${tls ? "https" : "http"}://127.0.0.1:${listener.address.port}`;
    const body = ["-d", "text", "-H", "X-Twice: 1"];
    const posted = await curl("--http2", ...body, "-H", "Host: n1", `${origin}/p/q?a=%20b`);
    assert.match(posted, /^HTTP\/1\.1 201 [^]*x-answer: 127\.0\.0\.1\r\n[^]*\r\n\r\n\u00e4$/i);
    assert.match(await curl("-I", "-H", "Host: n1", origin), /^HTTP\/1\.1 201 [^]*\r\n\r\n$/);
    assert.match(await curl("--request-target", "nowhere", origin), /^(HTTP\/1\.1 400 [^]*|)$/);
  }
  const post = { method: "POST", path: "/p/q", query: " b", host: "n1", twice: "1", body: "text" };
  const head = { method: "HEAD", path: "/", query: "", host: "n1", twice: "", body: "" };
  assert.deepEqual(seen, [post, head, post, head]);
});

Deno.test("a client that leaves before its answer is noticed", async () => {
  const asked = Promise.withResolvers<void>(), left = Promise.withResolvers<void>();
  const slow = new Hono<{ Bindings: Bindings }>().get("/", async (c) => {
    asked.resolve();
    await new Promise((resolve) => c.env.signal.addEventListener("abort", resolve));
    left.resolve();
    return c.text("late");
  });
  const address = { host: "127.0.0.1", port: 0 };
  await using listener = await listenHttp(slow, { address, log: silentLog });
  const url = `http://127.0.0.1:${listener.address.port}/`;
  const curl = new Deno.Command("curl", { args: ["-s", url], stdout: "null" }).spawn();
  await asked.promise;
  curl.kill("SIGKILL");
  await curl.status;
  await left.promise;
});

Deno.test("what the web's APIs have no form for is refused with its reason, and Host alone tells who was asked", async () => {
  const echo = new Hono<{ Bindings: Bindings }>().all("*", (c) => c.json([c.req.header("host"), c.req.path]));
  const address = { host: "127.0.0.1", port: 0 };
  await using listener = await listenHttp(echo, { address, log: silentLog });
  const ask = async (...head: string[]) => {
    const text = await exchange(listener.address.port, [...head, "Connection: close", "", ""].join("\r\n"));
    const [, status, body] = /^HTTP\/1\.1 (\d+) [^]*?\r\n\r\n([^]*)$/.exec(text)!;
    return [Number(status), JSON.parse(body)];
  };
  const refusal = (reason: string) => [400, { error: `Cannot read the request's head: ${reason}` }];
  assert.deepEqual(await ask("OPTIONS * HTTP/1.1", "Host: n1"), refusal("Invalid URL"));
  assert.deepEqual(await ask("GET / HTTP/1.1", "Host: n1@evil"), refusal("Invalid host header"));
  assert.deepEqual(await ask("GET http://evil/p?q HTTP/1.1", "Host: n1"), [200, ["n1", "/p"]]);
  assert.deepEqual(await ask("GET /p HTTP/1.1", "Host: n1", "Host: evil"), [200, ["n1, evil", "/p"]]);
  assert.deepEqual(await ask("GET /p HTTP/1.0"), [200, [null, "/p"]]);
});

Deno.test("an application that fails costs its request alone, and what is global stays as it was", async () => {
  const address = { host: "127.0.0.1", port: 0 };
  const failing = new Hono<{ Bindings: Bindings }>().get("/", (c) => c.text("page")).get("/fail", () => {
    throw "no Error, which Hono does not take";
  });
  await using listener = await listenHttp(failing, { address, log: silentLog });
  const { port } = listener.address;
  assert.equal(await exchange(port, "GET /fail HTTP/1.1\r\nHost: n1\r\n\r\n"), "");
  assert.match(await exchange(port, "GET / HTTP/1.1\r\nHost: n1\r\n\r\n"), /page$/);
  assert.deepEqual({ Request, Response, Headers }, natives);
});
