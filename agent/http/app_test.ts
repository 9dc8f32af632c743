import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import { UnreadClient } from "../api/testing/unread.ts";
import { httpApp, MAX_BODY_BYTES } from "./app.ts";
import { listenHttp } from "./server.ts";
import { exchange } from "./testing.ts";

const HEAD = "POST /spawn HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

Deno.test("a body that grows beyond the limit is refused, and one that breaks off is its client's doing", async () => {
  let counted = Promise.withResolvers<number>();
  const app = httpApp({
    api: {} as never,
    guard: { hosts: new Set() },
    log: silentLog,
    version: "test",
    ready: () => Promise.resolve(),
    metrics: () => Promise.resolve({ contentType: "text/plain", body: "" }),
    count: (status) => counted.resolve(status),
  });
  await using listener = await listenHttp(app, { address: { host: "127.0.0.1", port: 0 }, log: silentLog });
  const { port } = listener.address;
  const size = MAX_BODY_BYTES + 1;
  const large = `${HEAD}Transfer-Encoding: chunked\r\n\r\n${size.toString(16)}\r\n${"x".repeat(size)}\r\n`;
  assert.match(
    await exchange(port, large),
    /^HTTP\/1\.1 413 [^]*"error":"Cannot read the request body: at most /,
  );
  assert.equal(await counted.promise, 413);
  counted = Promise.withResolvers();
  const broken = net.connect(port, "127.0.0.1");
  broken.write(`${HEAD}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n`);
  await once(broken, "data"); // the body is waited for
  broken.destroy();
  assert.equal(await counted.promise, 400);
});

Deno.test("a call with the token keeps its connection when the port is full; what is public proves nothing, nor does a refusal", async () => {
  await using undo = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const files = await writeCertificate(dir, "localhost");
  for (const tls of [undefined, files]) {
    for (const token of [undefined, "the-token-of-this-agent"]) {
      let asked = Promise.withResolvers<void>();
      const gate = Promise.withResolvers<void>();
      const wait = () => {
        asked.resolve();
        return gate.promise;
      };
      const app = httpApp({
        api: { logs: async () => (await wait(), { $typeName: "l", logs: "text" }) } as never,
        guard: { hosts: new Set(), token },
        log: silentLog,
        version: "test",
        ready: wait,
        metrics: async () => (await wait(), { contentType: "text/plain", body: "" }),
        count: () => asked.resolve(),
      });
      await using listener = await listenHttp(app, {
        address: { host: "127.0.0.1", port: 0 },
        tls,
        log: silentLog,
        maxConnections: 2,
      });
      const curl = async (path: string, ...args: string[]) => {
        asked = Promise.withResolvers();
        const url = `${tls ? "https" : "http"}://127.0.0.1:${listener.address.port}${path}`;
        const output = new Deno.Command("curl", { args: ["-s", "-k", "-w", "%{http_code}", ...args, url] })
          .output();
        await Promise.race([asked.promise, output]);
        return async () => new TextDecoder().decode((await output).stdout).slice(-3);
      };
      const call = await curl(
        "/logs",
        ...token === undefined ? [] : ["-H", `Authorization: Bearer ${token}`],
      );
      const { port } = listener.address;
      using refused = await UnreadClient.connect({ port, certFile: tls?.certFile, protocol: "http/1.1" });
      await refused.write("GET /openapi.json HTTP/1.1\r\nHost: elsewhere\r\n\r\n");
      assert.match(new TextDecoder().decode(await refused.read(1_000)), /^HTTP\/1\.1 403 /);
      const strangers = [];
      for (const path of ["/readyz", "/metrics", "/readyz"]) strangers.push(await curl(path));
      gate.resolve();
      assert.equal(await call(), "200");
      const answers = await Promise.all(strangers.map((answer) => answer()));
      assert.deepEqual(answers, ["000", "000", "200"]);
      await refused.drain(); // by TLS it was kept open
    }
  }
});
