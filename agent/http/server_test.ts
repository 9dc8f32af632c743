import assert from "node:assert/strict";
import tls from "node:tls";
import { Hono } from "hono";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import type { Bindings } from "./app.ts";
import { listenHttp } from "./server.ts";

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
      const socket = tls.connect(options, () => {
        const name = socket.getPeerCertificate().subject.CN;
        let text = "";
        socket.on("data", (chunk) => text += chunk);
        socket.on("close", () => resolve(`${name} ${text.split("\r\n\r\n")[1]}`));
        socket.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
      });
      socket.on("error", reject);
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
