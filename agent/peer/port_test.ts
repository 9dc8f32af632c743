import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import tls from "node:tls";
import type { ConnectRouter } from "@connectrpc/connect";
import type { ByteStream } from "../../gossip/mod.ts";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { freePort } from "../../tests/support/free_port.ts";
import { dialPeer, PROTOCOL } from "./handshake/dial.ts";
import { encodeMessage } from "./handshake/messages.ts";
import { PeerKeys } from "./handshake/peer_keys.ts";
import { PEER_LIMITS } from "./limits.ts";
import { PeerPort } from "./port.ts";
import { makePeerCertificate, startPeer, TEST_KEY, type TestPeer } from "./testing.ts";

/** Number of connections in the stress tests. */
const ROUNDS = 36;

Deno.test("streams and calls share the port, in whatever pieces their bytes come", async () => {
  const directory = new Map();
  let calls = 0;
  await using b = await startPeer({ nodeId: "b", directory, routes: counting(() => calls++) });
  await using a = await startPeer({ nodeId: "a", directory });
  takeStreams(b);
  const pieces: Record<string, number[]> = {
    whole: [1 << 20],
    "byte by byte": [1],
    "the first byte alone": [1, 1 << 20],
    "small ones": [5, 3, 17, 1],
    big: [60_000],
  };
  for (const [name, sizes] of Object.entries(pieces)) {
    const bytes = new Uint8Array(name === "big" ? 200_000 : 500).map((_, i) => i % 13);
    for (let n = 0; n < ROUNDS / 2; n++) {
      assert.equal(await sendStream(b.address.port, bytes, sizes), digest(bytes), `${name}, ${n}`);
    }
    await using relay = await startRelay(b.address.port, name === "big" ? [1 << 20] : sizes);
    for (let n = 0; n < ROUNDS / 6; n++) {
      const socket = await dialPeer({ ...b.address, port: relay.port }, {
        nodeId: "a",
        keys: keysOf().current(),
        protocol: PROTOCOL.calls,
      });
      socket.destroy();
      await once(socket, "close");
    }
  }
  await Promise.all(Array.from({ length: ROUNDS }, async (_, n) => {
    const bytes = new Uint8Array(n * 1000 + 1).fill(n % 10);
    assert.equal(await sendStream(b.address.port, bytes, [1 << 20]), digest(bytes));
    await a.peers.client(PeerService, "b").cordon({});
  }));
  assert.equal(calls, ROUNDS);
  assert.deepEqual(refused(b), []);
});

Deno.test("UDP and TCP have the same port, on IPv4, IPv6 and both", async () => {
  const hosts = {
    "127.0.0.1": ["127.0.0.1"],
    "::1": ["::1"],
    "::": ["::1", "127.0.0.1"],
    "0.0.0.0": ["127.0.0.1"],
  };
  for (const [host, dialled] of Object.entries(hosts)) {
    const directory = new Map();
    const callers: string[] = [];
    const routes = (router: ConnectRouter) =>
      router.service(PeerService, { cordon: (_, { values }) => (callers.push(JSON.stringify(values)), {}) });
    await using b = await startPeer({ nodeId: "b", host, directory, routes });
    assert.equal(b.port.transport.local.port, b.port.address.port);
    assert(b.port.address.port > 0);
    for (const address of dialled) {
      directory.set("b", { ...b.address, host: address });
      await using a = await startPeer({ nodeId: "a", directory });
      await a.peers.client(PeerService, "b").cordon({});
    }
    assert.equal(callers.length, dialled.length);
  }
});

Deno.test("a port that is taken, by UDP or by TCP, is named in the error", async () => {
  await using b = await startPeer({ nodeId: "b" });
  const { port } = b.address;
  const open = (taken: number) =>
    makePeerCertificate().then((certificate) =>
      PeerPort.open({
        bind: { host: "127.0.0.1", port: taken },
        nodeId: "c",
        certificate,
        keys: keysOf(),
        log: silentLog,
      })
    );
  await assert.rejects(open(port), new RegExp(`^Error: Cannot listen for gossip on "127.0.0.1:${port}": `));
  const tcp = freePort(); // which UDP has not either
  const server = net.createServer().listen(tcp, "127.0.0.1");
  await once(server, "listening");
  await assert.rejects(
    open(tcp),
    new RegExp(`^Error: Cannot listen for nodes on "127.0.0.1:${tcp}": .*EADDRINUSE`),
  );
  server.close();
  await once(server, "close");
});

Deno.test("a stranger's calls reach no handler: no proof, the wrong key, another protocol, or none", async () => {
  const directory = new Map();
  let calls = 0;
  await using b = await startPeer({ nodeId: "b", directory, routes: counting(() => calls++) });
  // HTTP/2 at once after TLS.
  const socket = await openTls(b.address.port);
  const session = http2.connect("http://stranger", { createConnection: () => socket });
  session.on("error", () => {});
  const request = session.request({ ":method": "POST", ":path": "/hypercore.v1.PeerService/Cordon" });
  request.on("error", () => {});
  request.end();
  await closed(session);
  // In the clear.
  const clear = http2.connect(`http://127.0.0.1:${b.address.port}`);
  clear.on("error", () => {});
  b.port.transport.start({ packet() {}, stream: (stream) => stream.close() });
  await closed(clear);
  for (const clusterKeys of [[new Uint8Array(32).fill(9)], []]) {
    await using a = await startPeer({ nodeId: "a", directory, clusterKeys });
    await assert.rejects(
      a.peers.client(PeerService, "b").cordon({}),
      /^RuntimeError: Cannot reach node "b": it refused /,
    );
  }
  // Without ALPN, and with the hop port's protocol, which is not spoken here.
  await ended(await openTls(b.address.port, []));
  await assert.rejects(openTls(b.address.port, ["hypercore-proxy/1"]), /NoApplicationProtocol/i);
  assert.equal(calls, 0);
  assert.equal(b.server.connections, 0);
  while (refused(b).length < 5) await turn(); // who was refused may know it first
  assert.deepEqual(refused(b), ["malformed", "proof", "key-needed", "malformed", "tls"]);
});

Deno.test("who keeps silent before the first byte is closed in time", async () => {
  await using b = await startPeer({ nodeId: "b", limits: { firstByteMs: 300, handshakeMs: 60_000 } });
  await ended(net.connect(b.address.port, "127.0.0.1"));
  assert.deepEqual(refused(b), ["silence"]);
  while (b.port.pending > 0) await turn();
});

Deno.test("who keeps silent in TLS or in the proof, or goes on for ever, is closed in time", async () => {
  // Time enough for TLS, whatever else the machine does.
  await using b = await startPeer({ nodeId: "b", limits: { firstByteMs: 60_000, handshakeMs: 3_000 } });
  const { port } = b.address;
  const inTls = async (socket: net.Socket) => {
    await ended(socket);
    return "tls";
  };
  const inProof = async (begin: (socket: net.Socket) => void) => {
    const socket = await openTls(port);
    begin(socket);
    await ended(socket);
    return "timeout";
  };
  const half = net.connect(port, "127.0.0.1");
  half.write(Uint8Array.of(0x16, 3, 1));
  const slow = net.connect(port, "127.0.0.1");
  // The head of a record, of which more is to come than ever does.
  slow.write(Uint8Array.of(0x16, 3, 1, 0x40, 0));
  const drip = setInterval(() => slow.write(Uint8Array.of(1)), 20);
  const hello = Uint8Array.of(1, 0, 0x23, 1, 1, ...new Uint8Array(30));
  let sent = 0;
  let proofDrip: ReturnType<typeof setInterval> | undefined;
  const reasons = await Promise.all([
    inTls(half),
    inTls(slow),
    inProof(() => {}),
    inProof((socket) => {
      proofDrip = setInterval(() => sent < hello.length && socket.write(hello.subarray(sent, ++sent)), 30);
    }),
  ]);
  clearInterval(drip);
  clearInterval(proofDrip);
  assert.deepEqual(refused(b).sort(), reasons.sort());
  while (b.port.pending > 0) await turn();
});

Deno.test("one address cannot take all the places of connections that have not proved themselves", async () => {
  const directory = new Map();
  const limits = { firstByteMs: 60_000, handshakeMs: 60_000, pending: 20, pendingPerAddress: 8 };
  await using b = await startPeer({
    nodeId: "b",
    host: "0.0.0.0",
    directory,
    limits,
    routes: counting(() => {}),
  });
  const connect = async (localAddress: string) => {
    const socket = net.connect({ port: b.address.port, host: "127.0.0.1", localAddress });
    socket.on("error", () => {});
    await once(socket, "connect");
    return socket;
  };
  const many: net.Socket[] = [];
  for (let n = 0; n < 8; n++) many.push(await connect("127.0.0.2"));
  while (b.port.pending < 8) await turn();
  await ended(await connect("127.0.0.2"));
  assert.equal(b.port.pending, 8);
  // Another address still gets through: node "a" at 127.0.0.1.
  await using a = await startPeer({ nodeId: "a", directory });
  await a.peers.client(PeerService, "b").cordon({});
  // All addresses together have a limit, too.
  for (const address of ["127.0.0.3", "127.0.0.4"]) {
    for (let n = 0; n < 6; n++) many.push(await connect(address));
  }
  while (b.port.pending < 20) await turn();
  await ended(await connect("127.0.0.5"));
  // A connection that is open already is not among them.
  await a.peers.client(PeerService, "b").cordon({});
  for (const socket of many) socket.destroy();
  while (b.port.pending > 0) await turn();
  await ended(await connect("127.0.0.2").then((socket) => socket.destroy()));
  assert.deepEqual(refused(b), ["limit", "limit"]);
});

Deno.test("rule 8: no more connections of one IPv6 network wait for their proof than the limit; one that ends makes room", async () => {
  const limits = { firstByteMs: 60_000, handshakeMs: 60_000, pendingPerAddress: 9, pendingPerNetwork: 3 };
  await using b = await startPeer({ nodeId: "b", host: "::1", limits });
  const connect = () => net.connect(b.address.port, "::1").on("error", () => {});
  const many = Array.from({ length: limits.pendingPerNetwork }, connect);
  while (b.port.pending < limits.pendingPerNetwork) await turn();
  await ended(connect());
  assert.deepEqual(refused(b), ["limit"]);
  many.pop()!.destroy();
  while (b.port.pending === limits.pendingPerNetwork) await turn();
  many.push(connect());
  while (b.port.pending < limits.pendingPerNetwork) await turn();
  for (const socket of many) socket.destroy();
  while (b.port.pending > 0) await turn();
  assert.deepEqual(refused(b), ["limit"]);
});

Deno.test("rule 8: of what a stranger sends before the proof a kilobyte is read, and one address gets no more places than the limit", async () => {
  await using b = await startPeer({ nodeId: "b", limits: { firstByteMs: 60_000, handshakeMs: 60_000 } });
  const { pendingPerAddress } = PEER_LIMITS;
  // The head of a hello that never comes to its end, and much that is none.
  for (const start of [[1, 1, 0], [9, 9, 9]]) {
    const socket = await openTls(b.address.port);
    socket.on("data", () => {});
    const bytes = new Uint8Array(1 << 20);
    bytes.set(start);
    socket.write(bytes);
    await ended(socket);
  }
  assert.deepEqual(refused(b), ["malformed", "malformed"]);
  while (b.port.pending > 0) await turn();
  const silent = Array.from({ length: pendingPerAddress }, () => net.connect(b.address.port, "127.0.0.1"));
  for (const socket of silent) socket.on("error", () => {});
  while (b.port.pending < pendingPerAddress) await turn();
  await ended(net.connect(b.address.port, "127.0.0.1"));
  assert.deepEqual(refused(b), ["malformed", "malformed", "limit"]);
  for (const socket of silent) socket.destroy();
  while (b.port.pending > 0) await turn();
});

Deno.test("a thousand connections of strangers leave nothing behind, and members are served meanwhile", async () => {
  const directory = new Map();
  let calls = 0;
  await using b = await startPeer({
    nodeId: "b",
    directory,
    // Time enough for who is a member, among a hundred strangers.
    limits: { firstByteMs: 2_000, handshakeMs: 2_000, pendingPerAddress: 200 },
    routes: counting(() => calls++),
  });
  await using a = await startPeer({ nodeId: "a", directory });
  b.port.transport.start({ packet() {}, stream: (stream) => stream.close() });
  const kinds = [
    (_socket: net.Socket) => {},
    (socket: net.Socket) => void socket.write(Uint8Array.of(0x16, 3, 1, 2)),
    (socket: net.Socket) => void socket.write(crypto.getRandomValues(new Uint8Array(1000)).with(0, 0x16)),
    (socket: net.Socket) => void socket.write(crypto.getRandomValues(new Uint8Array(1000)).with(0, 7)),
    (socket: net.Socket) => void socket.destroy(),
  ];
  let next = 0;
  await Promise.all(Array.from({ length: 100 }, async () => {
    while (next < 1_000) {
      const socket = net.connect(b.address.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.once("connect", () => kinds[next % kinds.length](socket));
      next++;
      if (next % 50 === 0) await a.peers.client(PeerService, "b").cordon({});
      await ended(socket);
    }
  }));
  while (b.port.pending > 0) await turn();
  assert.equal(calls, 20);
  assert.equal(b.server.connections, 1);
});

Deno.test("before anybody takes calls nodes are turned away", async () => {
  const keys = keysOf(), certificate = await makePeerCertificate();
  const bind = { host: "127.0.0.1", port: 0 };
  await using port = await PeerPort.open({ bind, nodeId: "c", certificate, keys, log: silentLog });
  await using _transport = port.transport;
  const peer = { nodeId: "c", ...bind, port: port.address.port, fingerprint: certificate.fingerprint };
  const early = dialPeer(peer, { nodeId: "a", keys: keys.current(), protocol: PROTOCOL.calls });
  await assert.rejects(early, /it closed the connection during the handshake/);
});

Deno.test("a port that closes ends what is under way on it", async () => {
  const b = await startPeer({ nodeId: "b", limits: { firstByteMs: 60_000, handshakeMs: 60_000 } });
  const streams: ByteStream[] = [];
  b.port.transport.start({ packet() {}, stream: (stream) => void streams.push(stream) });
  const sockets = [net.connect(b.address.port, "127.0.0.1"), net.connect(b.address.port, "127.0.0.1")];
  for (const socket of sockets) socket.on("error", () => {});
  sockets[1].write("\x07");
  const proving = await openTls(b.address.port);
  const introduction = { keyed: true, nonce: new Uint8Array(32), nodeId: "a" };
  proving.write(encodeMessage({ type: "hello", version: 1, introduction }));
  await once(proving, "readable"); // the challenge
  while (streams.length === 0 || b.port.pending < 2) await turn();
  await Promise.all([b[Symbol.asyncDispose](), ended(sockets[0]), ended(sockets[1]), ended(proving)]);
  assert.equal(b.port.pending, 0);
  assert.deepEqual(refused(b), ["closing"]);
  await b[Symbol.asyncDispose]();
});

function keysOf(): PeerKeys {
  return new PeerKeys(() => [TEST_KEY]);
}

function counting(count: () => void) {
  return (router: ConnectRouter) => {
    router.service(PeerService, {
      cordon() {
        count();
        return {};
      },
    });
  };
}

/** Reads streams to their end and answers with their digest. */
function takeStreams({ port }: TestPeer): void {
  port.transport.start({
    packet() {},
    async stream(stream) {
      const all: number[] = [];
      const buffer = new Uint8Array(4096);
      for (let n = await stream.read(buffer); n !== null; n = await stream.read(buffer)) {
        for (const byte of buffer.subarray(0, n)) all.push(byte);
      }
      await stream.write(new TextEncoder().encode(digest(all)));
      stream.close();
    },
  });
}

/** Length and a sum in which the order counts. */
function digest(bytes: Iterable<number>): string {
  let sum = 0, length = 0;
  for (const byte of bytes) {
    sum = (sum * 31 + byte) % 1_000_003;
    length++;
  }
  return `${length}:${sum}`;
}

async function sendStream(port: number, bytes: Uint8Array, sizes: readonly number[]): Promise<string> {
  const socket = net.connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
  await once(socket, "connect");
  for (let at = 0, n = 0; at < bytes.length; n++) {
    const size = sizes[n % sizes.length];
    if (!socket.write(bytes.subarray(at, at + size))) await once(socket, "drain");
    at += size;
    if (n < 8) await turn();
  }
  socket.end();
  let answer = "";
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

/** Passes on in both directions, toward `port` in pieces of these sizes. */
async function startRelay(port: number, sizes: readonly number[]) {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((near) => {
    const far = net.connect({ port, host: "127.0.0.1", noDelay: true });
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => {
        sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    far.pipe(near);
    near.on("data", async (data) => {
      near.pause();
      for (let at = 0, n = 0; at < data.length; n++) {
        const size = sizes[n % sizes.length];
        far.write((data as Uint8Array).subarray(at, at + size));
        at += size;
        if (n < 8) await turn();
      }
      near.resume();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as net.AddressInfo).port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

async function openTls(
  port: number,
  protocols: string[] = [PROTOCOL.calls],
): Promise<tls.TLSSocket> {
  const socket = tls.connect({
    port,
    host: "127.0.0.1",
    rejectUnauthorized: false,
    ALPNProtocols: protocols,
  });
  socket.on("error", () => {});
  await once(socket, "secureConnect");
  return socket;
}

/** Waits until a connection is closed, be it by an error: one that was written to as it closed has one. */
async function ended(socket: net.Socket): Promise<void> {
  const isOver = closed(socket);
  socket.on("error", () => {});
  socket.resume();
  if (!socket.closed) await isOver;
}

/** Its end, be it by an error, which somebody else listens to. */
function closed(connection: net.Socket | http2.ClientHttp2Session): Promise<void> {
  return new Promise((resolve) => connection.once("close", () => resolve()));
}

function refused({ seen }: TestPeer): string[] {
  return seen.flatMap((one) => one.kind === "refused" ? [one.reason] : []);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}
