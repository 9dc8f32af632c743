import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { silentLog } from "../../runtime/log.ts";
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
