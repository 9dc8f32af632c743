import assert from "node:assert/strict";
import http2 from "node:http2";
import net from "node:net";
import { ContainerdClient } from "./containerd/client.ts";
import { Http2Link } from "./http2_link.ts";

/** A server on a unix socket that does with each connection as told. */
async function server(serve: (socket: net.Socket, http: http2.Http2Server) => void) {
  const dir = await Deno.makeTempDir({ prefix: "hc-link-" });
  const path = `${dir}/sock`;
  const http = http2.createServer();
  http.on("session", (session) => session.on("error", () => {}));
  const sockets = new Set<net.Socket>();
  const listener = net.createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    serve(socket, http);
  });
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  return {
    path,
    http,
    connections: () => sockets.size,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
      await Deno.remove(dir, { recursive: true });
    },
  };
}

/** Ways to die on a client. */
const DEATHS: Record<string, { onConnection?: boolean; die: (socket: net.Socket) => void }> = {
  "before the first byte": { onConnection: true, die: (socket) => socket.destroy() },
  "a moment after the connection": {
    onConnection: true,
    die: (socket) => void setTimeout(() => socket.destroy(), 5),
  },
  "with a call under way": { die: (socket) => socket.destroy() },
  "with a call under way, in order": { die: (socket) => void socket.end() },
};

for (const [when, { onConnection, die }] of Object.entries(DEATHS)) {
  Deno.test(`a server that dies ${when} fails the call as unavailable, at once, and nothing else`, async () => {
    let isDying = true;
    await using there = await server((socket, http) => {
      if (isDying && onConnection) return die(socket);
      http.emit("connection", socket);
      http.once("stream", (stream: http2.ServerHttp2Stream) => {
        stream.on("error", () => {});
        if (isDying) return die(socket);
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.end(new Uint8Array(5));
      });
    });
    await using client = new ContainerdClient({ socket: there.path, namespace: "test" });
    for (let i = 0; i < 20; i++) {
      await assert.rejects(client.version.version({}), { code: "unavailable" });
    }
    isDying = false;
    assert.equal((await client.version.version({})).version, "");
  });
}

Deno.test("a connection goes when nobody has used it for the time, and a silent one is found out by a ping", async () => {
  await using there = await server((socket, http) => void http.emit("connection", socket));
  there.http.on("stream", (stream: http2.ServerHttp2Stream) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    stream.end("x");
  });
  const connect = () => net.connect(there.path);
  const call = async (link: Http2Link) => {
    const stream = await link.request("GET", "/", {});
    stream.resume();
    await new Promise((resolve) => stream.once("close", resolve));
  };
  const link = await Http2Link.connect("http://localhost", connect, { idleMs: 20, pingIntervalMs: 1 });
  await call(link);
  await call(link);
  assert.equal(link.isBusy, false);
  while (link.isOpen) await new Promise((resolve) => setTimeout(resolve, 5));
  await assert.rejects(link.request("GET", "/", {}));

  await using silent = await server(() => {});
  const other = await Http2Link.connect("http://localhost", () => net.connect(silent.path), {
    pingIntervalMs: 1,
    pingTimeoutMs: 20,
  });
  assert.equal(other.isOpen, true);
  await new Promise((resolve) => setTimeout(resolve, 5));
  await assert.rejects(other.request("GET", "/", {}), /it does not answer/);
  assert.equal(other.isOpen, false);
});

Deno.test("a call that waits for the answer to its ping uses the connection, however short the idle time is", async () => {
  await using there = await server((socket, http) => void http.emit("connection", socket));
  there.http.on("stream", (stream: http2.ServerHttp2Stream) => {
    stream.respond({ ":status": 200 });
    stream.end("x");
  });
  let gate = Promise.resolve();
  await using between = await server((socket) => {
    const onward = net.connect(there.path).on("error", () => {});
    socket.on("data", (bytes) => onward.write(bytes)).on("close", () => onward.destroy());
    onward.on("data", (bytes) => void gate.then(() => socket.write(bytes)));
  });
  const link = await Http2Link.connect("http://localhost", () => net.connect(between.path), {
    idleMs: 20,
    pingIntervalMs: 0,
  });
  const answered = Promise.withResolvers<void>();
  gate = answered.promise;
  const asked = link.request("GET", "/", {});
  await new Promise((resolve) => setTimeout(resolve, 60));
  answered.resolve();
  const stream = await asked;
  stream.resume();
  await new Promise((resolve) => stream.once("close", resolve));
  while (link.isOpen) await new Promise((resolve) => setTimeout(resolve, 5));
});
