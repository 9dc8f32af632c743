import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { freePort } from "../../tests/support/free_port.ts";
import { createSerf, nodeStream, SocketTransport } from "../mod.ts";
import type { ByteStream } from "./transport.ts";

const HOST = "127.0.0.1";
const HANDSHAKE = 0x16;

/** A listener of node:net, and what it gives each connection to. */
async function listen(
  port: number,
  take: (socket: Socket) => void,
): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    take(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, HOST, resolve);
  });
  return {
    port: (server.address() as { port: number }).port,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Looks at the first byte and puts it back: TLS goes one way, memberlist the other. */
function split(
  socket: Socket,
  to: { tls: (socket: Socket) => void; gossip: (socket: Socket) => void },
): void {
  const fail = () => socket.destroy();
  socket.on("error", fail);
  const peek = () => {
    const chunk: Uint8Array | null = socket.read();
    if (chunk === null) return void socket.once("readable", peek);
    socket.unshift(chunk);
    socket.off("error", fail);
    if (chunk[0] === HANDSHAKE) to.tls(socket);
    else to.gossip(socket);
  };
  socket.once("readable", peek);
}

/** Both ends of one connection: ours as a stream, the peer's as Deno's. */
async function pair(): Promise<AsyncDisposable & { stream: ByteStream; socket: Socket; peer: Deno.TcpConn }> {
  const accepted = Promise.withResolvers<Socket>();
  const server = await listen(0, (socket) => accepted.resolve(socket));
  const peer = await Deno.connect({ hostname: HOST, port: server.port });
  const socket = await accepted.promise;
  return {
    stream: nodeStream(socket),
    socket,
    peer,
    async [Symbol.asyncDispose]() {
      try {
        peer.close();
      } catch {
        // The test has closed it.
      }
      await server[Symbol.asyncDispose]();
    },
  };
}

async function readAll(stream: ByteStream, size: number): Promise<Uint8Array> {
  const parts: number[] = [];
  const buffer = new Uint8Array(size);
  for (let length = await stream.read(buffer); length !== null; length = await stream.read(buffer)) {
    parts.push(...buffer.subarray(0, length));
  }
  return new Uint8Array(parts);
}

Deno.test("members whose TCP port is another listener's join, exchange state and events beside TLS on that port", async () => {
  const keys = [crypto.getRandomValues(new Uint8Array(32))];
  const tls = Promise.withResolvers<number>();
  await using stack = new AsyncDisposableStack();
  const member = async (name: string) => {
    const transport = SocketTransport.bind({ host: HOST, port: freePort(), listenStreams: false });
    const serf = stack.use(
      await createSerf({
        name,
        bind: transport.local,
        profile: "lan",
        keys,
        transport,
        tags: { big: "x".repeat(400) },
      }),
    );
    stack.use(
      await listen(transport.local.port, (socket) =>
        split(socket, {
          tls: (own) => own.once("data", (bytes: Uint8Array) => tls.resolve(bytes[0])),
          gossip: (own) => transport.accept(nodeStream(own), HOST),
        })),
    );
    return serf;
  };
  const a = await member("a");
  const b = await member("b");
  assert.equal(await b.join([`${HOST}:${a.local.port}`]), 1);
  assert.deepEqual(b.members().map(({ name, status }) => [name, status]).sort(), [["a", "alive"], [
    "b",
    "alive",
  ]]);
  const handshake = await Deno.connect({ hostname: HOST, port: a.local.port });
  await handshake.write(new Uint8Array([HANDSHAKE, 3, 1]));
  assert.equal(await tls.promise, HANDSHAKE);
  handshake.close();
});

Deno.test("a node stream gives every byte once, in order, however small the pieces and the buffer", async () => {
  await using ends = await pair();
  const sent = Uint8Array.from({ length: 5_000 }, (_, i) => i % 251);
  const writing = (async () => {
    for (let at = 0; at < sent.length; at += 97) await ends.peer.write(sent.subarray(at, at + 97));
    await ends.peer.closeWrite();
  })();
  assert.deepEqual(await readAll(ends.stream, 61), sent);
  await writing;
  assert.equal(await ends.stream.read(new Uint8Array(1)), null, "the end stays the end");
});

Deno.test("a peer that closed its half after the request still gets the whole answer", async () => {
  await using ends = await pair();
  await ends.peer.write(new Uint8Array([1, 2, 3]));
  await ends.peer.closeWrite();
  assert.deepEqual(await readAll(ends.stream, 16), new Uint8Array([1, 2, 3]));
  const answer = new Uint8Array(300_000).fill(7);
  const writing = ends.stream.write(answer);
  const reading = readAll(ends.peer, 65_536);
  assert.equal(await writing, answer.length);
  ends.stream.close();
  assert.deepEqual(await reading, answer);
});

Deno.test("a node stream that nobody reads takes in no more than a bounded amount", async () => {
  await using ends = await pair();
  const chunk = new Uint8Array(64 * 1024);
  let sent = 0;
  let blocked = false;
  // Sends until the system takes no more: the buffers of both kernels and of the socket are full then.
  const flood = (async () => {
    for (;;) sent += await ends.peer.write(chunk);
  })().catch(() => {});
  for (let last = -1; !blocked; last = sent) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    blocked = sent === last && sent > 0;
  }
  assert.ok(ends.socket.readableLength <= 1024 * 1024, `${ends.socket.readableLength} bytes are buffered`);
  const before = sent;
  const buffer = new Uint8Array(64 * 1024);
  for (let read = 0; read < before; read += await ends.stream.read(buffer) ?? before);
  ends.stream.close();
  await flood;
});

Deno.test("a write waits for a peer that does not read, and closing ends the wait", async () => {
  await using ends = await pair();
  let written = 0;
  const writing = (async () => {
    for (;;) written += await ends.stream.write(new Uint8Array(1024 * 1024));
  })();
  const refused = assert.rejects(() => writing, /it is closed/);
  for (let last = -1; last !== written || written === 0; last = written) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(ends.socket.writableLength <= 1024 * 1024, "one write at a time is under way");
  ends.stream.close();
  await refused;
});

Deno.test("errors of a node stream reach the read and the write that wait, and no one else", async () => {
  await using ends = await pair();
  const reading = ends.stream.read(new Uint8Array(8));
  const refused = assert.rejects(() => reading, /reset by a test/);
  ends.socket.destroy(new Error("reset by a test"));
  await refused;
  await assert.rejects(() => ends.stream.write(new Uint8Array(1)), /reset by a test/);
  ends.stream.close();
});

Deno.test("a node stream that was closed reads and writes no more", async () => {
  await using ends = await pair();
  const reading = ends.stream.read(new Uint8Array(8));
  const refused = assert.rejects(() => reading, /it is closed/);
  ends.stream.close();
  ends.stream.close();
  await refused;
  await assert.rejects(() => ends.stream.write(new Uint8Array(1)), /it is closed/);
  assert.equal(await ends.peer.read(new Uint8Array(1)), null, "the peer sees the end");
});

Deno.test("a stream handed over before the member runs, or after it stopped, is closed", async () => {
  const transport = SocketTransport.bind({ host: HOST, port: 0, listenStreams: false });
  for (const stop of [false, true]) {
    if (stop) await transport[Symbol.asyncDispose]();
    await using ends = await pair();
    transport.accept(ends.stream, HOST);
    assert.equal(await ends.peer.read(new Uint8Array(1)), null);
  }
});
