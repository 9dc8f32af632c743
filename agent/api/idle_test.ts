import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import http2 from "node:http2";
import tls from "node:tls";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import { type ApiListenerOptions, IDLE_TIMEOUT_MS, listenApi } from "./listener.ts";

type Handler = ApiListenerOptions["handler"];

Deno.test("rule 8: a connection without a call is closed in time, and one with a call, however silent, is not", async () => {
  let goOn = () => {};
  const handler: Handler = (request, response) => {
    const answer = response as ServerResponse;
    if (request.url === "/short") return void answer.end("x");
    answer.write("begun");
    goOn = () => answer.end();
  };
  for await (const { origin } of listeners({ handler, idleTimeoutMs: 50, headTimeoutMs: IDLE_TIMEOUT_MS })) {
    const events: string[] = [];
    const { client, call } = await silentCall(origin);
    const left = closed(client);
    client.on("goaway", () => events.push("told to go"));
    call.on("end", () => events.push("answered"));
    await answered(client);
    // Each of these begins its time later than that one would have.
    for (const calls of [0, 1]) {
      const other = connect(origin);
      const told = new Promise((resolve) => other.once("goaway", resolve)), over = closed(other);
      if (calls > 0) await answered(other);
      assert.equal(await told, http2.constants.NGHTTP2_NO_ERROR);
      await over;
    }
    assert.deepEqual(events, []);
    goOn();
    await left;
    // In either order where they came together.
    assert.deepEqual(events.sort(), ["answered", "told to go"]);
  }
});

Deno.test("a connection of HTTP/1.1 by TLS is kept for as long, and closed then", async () => {
  const handler: Handler = (_request, response) => void (response as ServerResponse).end("x");
  for (const idleTimeoutMs of [undefined, 50]) {
    for (const http2 of [true, false]) {
      for await (const { port, isSecure } of listeners({ handler, http2, idleTimeoutMs })) {
        if (!isSecure) continue;
        const options = { host: "127.0.0.1", port, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] };
        const socket = tls.connect(options);
        const over = closed(socket);
        socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        const [head] = await once(socket, "data");
        if (idleTimeoutMs === undefined) {
          assert.match(String(head), new RegExp(`\r\nKeep-Alive: timeout=${IDLE_TIMEOUT_MS / 1_000}\r\n`));
          socket.destroy();
        }
        await over;
      }
    }
  }
});

Deno.test("a connection that its client ends leaves no time running, whether it had a call or not", {
  sanitizeOps: true,
}, async () => {
  let left = Promise.withResolvers<void>();
  const handler: Handler = (_request, response) => {
    const answer = response as ServerResponse;
    answer.on("close", () => left.resolve());
    answer.write("begun");
  };
  for await (const { origin } of listeners({ handler })) {
    left = Promise.withResolvers();
    const { client } = await silentCall(origin);
    const other = connect(origin);
    await once(other, "remoteSettings");
    other.destroy();
    client.destroy();
    await left.promise;
  }
});

/** Listeners in the clear and by TLS, one after the other. */
async function* listeners(
  options: Pick<ApiListenerOptions, "handler" | "http2" | "idleTimeoutMs" | "headTimeoutMs">,
) {
  await using undo = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  for (const certificate of [undefined, await writeCertificate(dir, "api")]) {
    const address = { host: "127.0.0.1", port: 0 };
    await using listener = await listenApi({ ...options, address, tls: certificate, log: silentLog });
    const { port } = listener.address;
    const isSecure = certificate !== undefined;
    yield { port, isSecure, origin: `${isSecure ? "https" : "http"}://127.0.0.1:${port}` };
  }
}

/** A call that goes on. On a busy machine the time of its connection may be over before it comes: then there is another. */
async function silentCall(origin: string) {
  for (;;) {
    const client = connect(origin);
    const call = client.request({ ":path": "/silent" });
    const left = once(call, "close").then(() => undefined);
    const begun = await Promise.race([once(call, "data"), left]).catch(() => undefined);
    if (begun !== undefined) return { client, call };
  }
}

function connect(origin: string): http2.ClientHttp2Session {
  return http2.connect(origin, { rejectUnauthorized: false }).on("error", () => {}); // its end tells, and its calls do
}

/** The end of a connection, be it a reset: what a client says last may come when it is closed already. */
function closed(connection: http2.ClientHttp2Session | tls.TLSSocket): Promise<void> {
  connection.on("error", () => {});
  return new Promise((resolve) => connection.once("close", () => resolve()));
}

/** Makes a short call, and waits for its end. */
async function answered(client: http2.ClientHttp2Session): Promise<void> {
  const call = client.request({ ":path": "/short" });
  call.on("error", () => {}); // it came too late
  const closed = once(call, "close");
  call.resume();
  await closed;
}
