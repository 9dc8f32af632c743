import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import http2 from "node:http2";
import net from "node:net";
import { Readable, Writable } from "node:stream";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import { apiHandler } from "./handler.ts";
import { type ApiListenerOptions, listenApi } from "./listener.ts";
import { StalledWrites } from "./stalled_writes.ts";
import { DATA, HEADERS, MAX_WINDOW, RST_STREAM, UnreadClient } from "./testing/unread.ts";

type Handler = ApiListenerOptions["handler"];

/** More than the buffers of both sockets hold. */
const ANSWER_BYTES = 32 << 20;
const PIECE = new Uint8Array(64 << 10);
const STALL_MS = 40;
/** No timer looks meanwhile. */
const NEVER_MS = 1 << 30;
/** More looks than a stall lasts. */
const MANY_LOOKS = 20;

Deno.test("rule 8: a client that takes nothing of its answer is cut, by either protocol, in the clear and by TLS", async () => {
  let closed = Promise.withResolvers<void>();
  const handler: Handler = (_request, response) => {
    closed = Promise.withResolvers();
    response.on("close", () => closed.resolve());
    pour(response as ServerResponse, ANSWER_BYTES);
  };
  for await (const { port, certFile, cut } of listeners({ handler, writeStallMs: STALL_MS })) {
    for (const protocol of ["http/1.1", "h2"] as const) {
      const first = cut();
      using client = await UnreadClient.connect({ port, certFile, protocol });
      if (protocol === "h2") await client.begin(MAX_WINDOW);
      if (protocol === "h2") await client.request(1, { path: "/" });
      else await client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await first;
      await closed.promise;
      await client.drain();
    }
  }
});

Deno.test("a stream of HTTP/2 that gets no window is reset, and those beside it go on, with and without anything to say", async () => {
  const handler: Handler = (request, response) => {
    const answer = response as ServerResponse;
    if (request.url === "/short") answer.writeHead(204).end();
    else if (request.url === "/silent") answer.writeHead(200), answer.flushHeaders();
    else pour(answer, ANSWER_BYTES);
  };
  for await (const { port, certFile, cut } of listeners({ handler, writeStallMs: STALL_MS })) {
    using client = await UnreadClient.connect({ port, certFile, protocol: "h2" });
    await client.begin(0);
    const silent = 1, stalled = [3, 5], short = 7;
    await client.request(silent, { path: "/silent" });
    for (const stream of stalled) {
      const told = cut();
      await client.request(stream, { path: "/" });
      const reset = await next(client, RST_STREAM);
      assert.deepEqual(
        [reset.stream, reset.payload.readUInt32BE()],
        [stream, http2.constants.NGHTTP2_ENHANCE_YOUR_CALM],
      );
      await told;
    }
    await client.request(short, { path: "/short" });
    while ((await next(client, HEADERS)).stream !== short);
  }
});

Deno.test("a slow reader stays, of a long write too, and so does one to whom nothing is written", async () => {
  let cuts = 0;
  await using stalls = new StalledWrites({ stallMs: NEVER_MS, onCut: () => cuts++, log: silentLog });
  const accepted = Promise.withResolvers<net.Socket>();
  const server = net.createServer((socket) => accepted.resolve(socket.on("error", () => {})));
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  using client = await UnreadClient.connect({ port, protocol: "http/1.1" });
  const socket = await accepted.promise;
  stalls.watch(socket);
  for (let n = 0; n < MANY_LOOKS; n++) await stalls.look();
  let isWritten = false;
  socket.write(new Uint8Array(ANSWER_BYTES), () => isWritten = true);
  for (let n = 0; n < MANY_LOOKS; n++) {
    for (let bytes = 0; bytes < PIECE.length * 4;) bytes += (await client.read(PIECE.length))!.length;
    await stalls.look();
  }
  assert.deepEqual([cuts, isWritten, socket.destroyed], [0, false, false]);
  while (!socket.destroyed) await stalls.look();
  assert.equal(cuts, 1);
  await client.drain();
  await new Promise((resolve) => server.close(resolve));
});

Deno.test("a stream of HTTP/2 that gets a little window time and again stays, of a long message too", async () => {
  const messages = logsHandler(async function* () {
    yield await Promise.resolve({ data: new Uint8Array(ANSWER_BYTES) });
  });
  const pieces: Handler = (_request, response) => pour(response as ServerResponse, ANSWER_BYTES);
  for (const handler of [pieces, messages]) {
    let cuts = 0;
    await using stalls = new StalledWrites({ stallMs: NEVER_MS, onCut: () => cuts++, log: silentLog });
    const server = http2.createServer(handler);
    server.on("session", (session) => stalls.watchStreams(session));
    server.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as net.AddressInfo;
    {
      using client = await UnreadClient.connect({ port, protocol: "h2" });
      await client.begin(0);
      await client.request(1, { path: LOGS, type: "application/grpc", body: EMPTY_MESSAGE });
      for (let n = 0; n < MANY_LOOKS; n++) {
        await client.grant(1, PIECE.length);
        for (let bytes = 0; bytes < PIECE.length;) bytes += (await next(client, DATA)).payload.length;
        await stalls.look();
      }
      assert.equal(cuts, 0);
      // What the client has read may still be on its way for the server, who does not judge then.
      while (cuts === 0) {
        await new Promise((resolve) => setImmediate(resolve));
        await stalls.look();
      }
      for (let n = 0; n < MANY_LOOKS; n++) await stalls.look();
      assert.equal(cuts, 1);
      assert.equal((await next(client, RST_STREAM)).stream, 1);
    }
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
});

Deno.test("a stream of HTTP/2 is not judged while what it wrote waits at its connection", async () => {
  let cuts = 0;
  await using stalls = new StalledWrites({ stallMs: NEVER_MS, onCut: () => cuts++, log: silentLog });
  const session = Promise.withResolvers<http2.ServerHttp2Session>();
  const stream = Promise.withResolvers<http2.ServerHttp2Stream>();
  const server = http2.createServer((_request, response) => {
    stream.resolve(response.stream);
    pour(response as never, 2 * ANSWER_BYTES);
  });
  server.on("session", (each) => {
    stalls.watchStreams(each);
    session.resolve(each);
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  {
    using client = await UnreadClient.connect({ port, protocol: "h2" });
    await client.begin(ANSWER_BYTES);
    await client.request(1, { path: "/" });
    const { socket } = await session.promise, answer = await stream.promise;
    // Until the stream has no more window, and both sides' buffers are full.
    while (socket.writableLength === 0 || answer.writableLength === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (let n = 0; n < MANY_LOOKS; n++) await stalls.look();
    assert(answer.writableLength > 0);
    assert.equal(cuts, 0);
  }
  await new Promise<void>((resolve) => server.close(() => resolve()));
});

Deno.test("the source of a streamed answer goes little further than its client, whatever the window, and ends with it", async () => {
  let [made, running] = [0, 0];
  let ended = Promise.withResolvers<void>();
  const handler = logsHandler(async function* () {
    try {
      for (; made < ANSWER_BYTES; made += PIECE.length) yield await Promise.resolve({ data: PIECE });
    } finally {
      if (--running === 0) ended.resolve();
    }
  });
  for await (const { port, certFile, cut } of listeners({ handler, writeStallMs: STALL_MS })) {
    for (const type of ["application/grpc", "application/connect+proto"]) {
      for (const windows of [[], [0], [MAX_WINDOW], [0, MAX_WINDOW]]) {
        const isHttp1 = windows.length === 0;
        if (isHttp1 && type === "application/grpc") continue;
        [made, running, ended] = [0, isHttp1 ? 1 : windows.length, Promise.withResolvers()];
        const first = cut();
        const protocol = isHttp1 ? "http/1.1" : "h2";
        using client = await UnreadClient.connect({ port, certFile, protocol });
        if (isHttp1) {
          const head = `POST ${LOGS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\n`;
          await client.write(`${head}Content-Length: ${EMPTY_MESSAGE.length}\r\n\r\n`, EMPTY_MESSAGE);
        } else await client.begin(0);
        for (const [n, window] of windows.entries()) {
          await client.request(2 * n + 1, { path: LOGS, type, body: EMPTY_MESSAGE });
          if (window > 0) await client.grant(2 * n + 1, window);
        }
        await first;
        await ended.promise;
        assert(made < ANSWER_BYTES, "nobody waits for the client");
      }
    }
  }
});

Deno.test("the source of a streamed answer ends with its connection, also when a write never comes back", async () => {
  const begun = Promise.withResolvers<void>(), ended = Promise.withResolvers<void>();
  const handler = logsHandler(async function* () {
    try {
      for (;;) yield await Promise.resolve({ data: PIECE });
    } finally {
      ended.resolve();
    }
  });
  const request = Object.assign(Readable.from([EMPTY_MESSAGE]), {
    headers: { host: "localhost", "content-type": "application/connect+proto" },
    method: "POST",
    url: LOGS,
    socket: {},
  });
  const never = new Writable({ write: () => begun.resolve() });
  handler(request as never, Object.assign(never, { writeHead: () => {} }) as never);
  await begun.promise;
  never.destroy();
  await ended.promise;
});

Deno.test("a connection that cannot be looked at is logged, and the next look comes all the same", async () => {
  const reason = new Error("it cannot be looked at");
  const logged = Promise.withResolvers<unknown>(), looked = Promise.withResolvers<void>();
  let looks = 0;
  const socket = Object.defineProperty(new EventEmitter(), "writableLength", {
    get() {
      if (++looks === 1) throw reason;
      looked.resolve();
      return 0;
    },
  });
  const error = (_message: string, fields?: Record<string, unknown>) => logged.resolve(fields?.error);
  await using stalls = new StalledWrites({ stallMs: STALL_MS, log: { ...silentLog, error } });
  stalls.watch(socket as net.Socket);
  assert.equal(await logged.promise, String(reason));
  await looked.promise;
});

const LOGS = "/hypercore.v1.WorkloadService/StreamLogs";
const EMPTY_MESSAGE = new Uint8Array(5);

function logsHandler(streamLogs: () => AsyncGenerator<{ data: Uint8Array<ArrayBuffer> }>): Handler {
  return apiHandler({
    routes: (router) => void router.service(WorkloadService, { streamLogs }),
    guard: { hosts: new Set() },
    log: silentLog,
    shutdown: new AbortController().signal,
  });
}

/** Listeners in the clear and by TLS, one after the other; `cut` waits for the next that is cut. */
async function* listeners(options: Pick<ApiListenerOptions, "handler" | "writeStallMs">) {
  await using undo = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  for (const tls of [undefined, await writeCertificate(dir, "api")]) {
    let told = Promise.withResolvers<void>();
    await using listener = await listenApi({
      ...options,
      address: { host: "127.0.0.1", port: 0 },
      tls,
      log: silentLog,
      onStalled: () => told.resolve(),
    });
    const cut = () => (told = Promise.withResolvers()).promise;
    yield { port: listener.address.port, certFile: tls?.certFile, cut };
  }
}

/** Writes so much as the client takes it, and does not end. */
function pour(answer: Pick<ServerResponse, "write" | "once">, bytes: number): void {
  for (let left = bytes; left > 0; left -= PIECE.length) {
    if (answer.write(PIECE)) continue;
    return void answer.once("drain", () => pour(answer, left - PIECE.length));
  }
}

/** The next frame of that type. */
async function next(client: UnreadClient, type: number) {
  for (;;) {
    const frame = await client.frame();
    assert(frame !== undefined, "the connection was closed");
    if (frame.type === type) return frame;
    assert(frame.type !== RST_STREAM, `stream ${frame.stream} was reset`);
  }
}
