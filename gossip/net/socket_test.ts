import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { freePort } from "../../tests/support/free_port.ts";
import { Endpoint } from "../endpoint.ts";
import { createSerf, type Serf } from "../mod.ts";
import { MAX_SERVED_STREAMS, MAX_SERVED_STREAMS_PER_ADDRESS } from "./stream_driver.ts";
import { MAX_SEND_QUEUE, SocketTransport } from "./socket_transport.ts";

const LOOPBACK = { host: "127.0.0.1", port: 0 };

function eventually(serf: Serf, holds: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("it did not happen within 60 s")), 60_000);
    const check = () => {
      if (!holds()) return;
      clearTimeout(timer);
      stop();
      resolve();
    };
    const stop = serf.listen(() => queueMicrotask(check));
    check();
  });
}

Deno.test("a socket transport binds UDP and TCP on one free port, and says what it cannot bind", async () => {
  await using transport = SocketTransport.bind(LOOPBACK);
  assert.ok(transport.local.port > 0);
  const { port } = transport.local;
  assert.throws(
    () => SocketTransport.bind({ host: "127.0.0.1", port }),
    /Cannot listen for gossip on "127.0.0.1:/,
  );
});

Deno.test("members on real sockets join, also encrypted and with an advertised port of their own", async () => {
  const keys = [crypto.getRandomValues(new Uint8Array(32))];
  await using a = await createSerf({ name: "a", bind: LOOPBACK, profile: "lan", keys });
  await using b = await createSerf({
    name: "b",
    bind: { host: "0.0.0.0", port: 0 },
    advertise: { host: "127.0.0.1" },
    keys,
  });
  assert.equal(await b.join([`127.0.0.1:${a.local.port}`]), 1);
  await eventually(a, () => a.member("b")?.status === "alive");
  assert.deepEqual([a.member("b")?.host, a.member("b")?.port], ["127.0.0.1", b.local.port]);
});

Deno.test("IPv4 and IPv6 members find each other through a dual-stack socket", async () => {
  await using a = await createSerf({
    name: "a",
    bind: { host: "::", port: 0 },
    advertise: { host: "127.0.0.1" },
    profile: "lan",
  });
  await using b = await createSerf({ name: "b", bind: LOOPBACK, profile: "lan" });
  await b.join([`127.0.0.1:${a.local.port}`]);
  const { acks } = await a.reachability({ timeoutMs: 60_000 });
  assert.deepEqual(acks.sort(), ["a", "b"]);
});

Deno.test("garbage on the stream port is answered with an error, and the node lives on", async () => {
  await using a = await createSerf({ name: "a", bind: LOOPBACK, profile: "lan" });
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: a.local.port });
  await conn.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  const answer = new Uint8Array(1024);
  const length = await conn.read(answer);
  conn.close();
  assert.ok(length !== null && length > 0 && (answer[0] === 9 || answer[0] === 13));
  assert.equal(a.members().length, 1);
});

/** No stream is closed for its silence while the others are opened. */
const PATIENT = { tcpTimeoutMs: 600_000 };

/** A connection from that address of the loopback interface; what comes on it is dropped. */
async function connectFrom(localAddress: string, port: number): Promise<Socket> {
  const socket = connect({ host: "127.0.0.1", port, localAddress });
  await once(socket, "connect");
  return socket.on("error", () => {}).resume();
}

Deno.test("rule 8: only so many streams are served at once; more are closed, and those that end make room", async () => {
  await using a = await createSerf({ name: "a", bind: LOOPBACK, profile: "wan", timing: PATIENT });
  const silent: Socket[] = [];
  for (const from of ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]) {
    for (let n = 0; n < MAX_SERVED_STREAMS_PER_ADDRESS && silent.length < MAX_SERVED_STREAMS; n++) {
      silent.push(await connectFrom(from, a.local.port));
    }
  }
  assert.equal(silent.length, MAX_SERVED_STREAMS);
  const beyond = await connectFrom("127.0.0.6", a.local.port);
  await once(beyond, "close");
  assert.equal(a.core.memberlist.counters.streamsRefused, 1);
  for (const socket of silent) socket.destroy();
  await using b = await createSerf({ name: "b", bind: LOOPBACK, profile: "wan" });
  const address = `127.0.0.1:${a.local.port}`;
  // Its end is noticed within moments.
  const endMs = performance.now() + 60_000;
  while (await b.join([address]).catch(() => 0) === 0) assert.ok(performance.now() < endMs);
  await eventually(a, () => a.member("b")?.status === "alive");
});

Deno.test("rule 8: a stranger that holds streams open has a part of the places alone, and keeps nobody from joining", async () => {
  await using a = await createSerf({ name: "a", bind: LOOPBACK, profile: "wan", timing: PATIENT });
  const silent: Socket[] = [];
  for (let n = 0; n < MAX_SERVED_STREAMS_PER_ADDRESS; n++) {
    silent.push(await connectFrom("127.0.0.2", a.local.port));
  }
  for (let n = 1; n <= MAX_SERVED_STREAMS; n++) {
    const beyond = await connectFrom("127.0.0.2", a.local.port);
    await once(beyond, "close");
    assert.equal(a.core.memberlist.counters.streamsRefused, n);
  }
  await using b = await createSerf({ name: "b", bind: LOOPBACK, profile: "wan" });
  assert.equal(await b.join([`127.0.0.1:${a.local.port}`]), 1);
  for (const socket of silent) socket.destroy();
});

Deno.test("rule 8: no more packets wait to be sent than the limit; more are dropped and counted", async () => {
  await using transport = SocketTransport.bind(LOOPBACK);
  const to = new Endpoint(new Uint8Array([127, 0, 0, 1]), transport.local.port);
  for (let n = 0; n < MAX_SEND_QUEUE + 5; n++) transport.send(to, new Uint8Array(1));
  assert.equal(transport.dropped, 5);
});

Deno.test("a join that nobody answers says why, for each address", async () => {
  await using a = await createSerf({ name: "a", bind: LOOPBACK, profile: "local" });
  const address = `127.0.0.1:${freePort()}`;
  await assert.rejects(
    () => a.join([address]),
    new RegExp(`Cannot join "${address}": ${address}: .*refused`, "i"),
  );
});

Deno.test("stopping a node ends what it waits for: joins with an error, queries with what came", async () => {
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = silent.addr as Deno.NetAddr;
  const a = await createSerf({ name: "a", bind: LOOPBACK, profile: "lan" });
  const join = a.join([`127.0.0.1:${port}`]);
  const query = a.query("ask", { requestAck: true, timeoutMs: 60_000 });
  const refused = assert.rejects(() => join, /this node is stopping/);
  const peer = await silent.accept();
  await a[Symbol.asyncDispose]();
  peer.close();
  await refused;
  assert.deepEqual((await query).acks, ["a"]);
});
