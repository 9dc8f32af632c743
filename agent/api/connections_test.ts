import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type net from "node:net";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import { Connections } from "./connections.ts";
import { apiHandler } from "./handler.ts";
import { IDLE_TIMEOUT_MS, listenApi } from "./listener.ts";
import { HEADERS, UnreadClient, type UnreadClientOptions } from "./testing/unread.ts";

const TOKEN = "the-token-of-this-agent";
const MAX = 8;
const WINDOW = 1 << 20;
const LOGS = "/hypercore.v1.WorkloadService/StreamLogs";
const EMPTY_MESSAGE = new Uint8Array(5);
const [FIRST, SECOND] = ["the first message", "the second message"];
/** How TLS begins. */
const HALF_HELLO = Uint8Array.from([22, 3, 1, 2, 0]);

Deno.test("rule 8: strangers keep nobody with the token from the API port nor cut its calls, by either protocol, in the clear and by TLS", async () => {
  await using undo = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  for (const tls of [undefined, await writeCertificate(dir, "api")]) {
    for (const protocol of ["h2", "http/1.1"] as const) {
      const gate = Promise.withResolvers<void>();
      await using port = await openPort(gate.promise, tls);
      const to = { port: port.number, certFile: tls?.certFile };
      using clients = new DisposableStack();
      const flood = async () => {
        const opened: UnreadClient[] = [];
        while (opened.length < 2 * MAX) {
          for (const stranger of STRANGERS) opened.push(clients.use(await stranger(to)));
        }
        return opened;
      };
      const first = await flood();
      await port.refused(first.length - MAX);
      const member = clients.use(await UnreadClient.connect({ ...to, protocol }));
      const between = clients.use(await STRANGERS.at(-1)!(to));
      await call(member, protocol);
      await heard(member, FIRST);
      const second = await flood();
      await port.refused(first.length + 2 + second.length - MAX);
      gate.resolve();
      await heard(member, SECOND);
      const next = clients.use(await UnreadClient.connect({ ...to, protocol }));
      await call(next, protocol);
      await heard(next, SECOND);
      await port.refused(first.length + second.length + 3 - MAX);
      // Those that gave way are closed indeed.
      for (const client of [...first, between, ...second.slice(0, 2 - MAX)]) await client.drain();
    }
  }
});

Deno.test("one that gives way has no place any more, also before it has closed", () => {
  const { socket, destroyed } = fakes();
  const connections = new Connections({ max: 2 });
  const [first, second, third] = [1, 2, 3].map((port) => socket(port));
  for (const each of [first, second, third]) connections.add(each);
  assert.deepEqual(destroyed, [first]);
  second.emit("close");
  connections.add(socket(4));
  first.emit("close");
  assert.deepEqual(destroyed, [first]);
  connections.add(socket(5));
  assert.deepEqual(destroyed, [first, third]);
});

Deno.test("of two connections from the same address and port the older is over, and its end is not that of the newer", () => {
  const { socket, destroyed } = fakes();
  const connections = new Connections({ max: 2 });
  const [older, newer, other] = [socket(1), socket(1), socket(2)];
  connections.add(older);
  connections.add(newer);
  assert.deepEqual(destroyed, [older]);
  older.emit("close");
  connections.accepted(newer);
  connections.add(other);
  connections.add(socket(3));
  assert.deepEqual(destroyed, [older, other]);
});

/** Sockets that are connected to nothing, and those of them that were destroyed. */
function fakes() {
  const destroyed: net.Socket[] = [];
  const socket = (remotePort: number) => {
    const ends = { localAddress: "10.0.0.1", remoteAddress: "10.0.0.2", remotePort };
    const fake = Object.assign(new EventEmitter(), ends) as unknown as net.Socket;
    return Object.assign(fake, { destroy: () => (destroyed.push(fake), fake) });
  };
  return { socket, destroyed };
}

type To = Omit<UnreadClientOptions, "protocol">;

/** What one without the token may do with a connection, and keep it. */
const STRANGERS: ((to: To) => Promise<UnreadClient>)[] = [
  ({ port }) => UnreadClient.connect({ port, protocol: "h2" }),
  async ({ port, certFile }) => {
    const client = await UnreadClient.connect({ port, protocol: "h2" });
    await client.write(certFile ? HALF_HELLO : "PR");
    return client;
  },
  async (to) => {
    const client = await UnreadClient.connect({ ...to, protocol: "http/1.1" });
    await client.write(`POST ${LOGS} HT`);
    return client;
  },
  async (to) => {
    const client = await UnreadClient.connect({ ...to, protocol: "h2" });
    await client.begin(WINDOW);
    return client;
  },
  async (to) => {
    const client = await UnreadClient.connect({ ...to, protocol: "h2" });
    await client.begin(WINDOW);
    await client.request(1, { path: LOGS, token: "no token of this agent", body: EMPTY_MESSAGE });
    for (;;) {
      const frame = await client.frame();
      assert(frame !== undefined, "it has given way before it was answered");
      if (frame.type === HEADERS) return client;
    }
  },
];

/** Makes a call with the token, which stays open. */
async function call(client: UnreadClient, protocol: UnreadClientOptions["protocol"]): Promise<void> {
  if (protocol === "h2") {
    await client.begin(WINDOW);
    await client.request(1, { path: LOGS, type: "application/grpc", token: TOKEN, body: EMPTY_MESSAGE });
  } else {
    await client.write(
      `POST ${LOGS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${TOKEN}\r\n`,
      `Content-Type: application/connect+proto\r\nContent-Length: ${EMPTY_MESSAGE.length}\r\n\r\n`,
      EMPTY_MESSAGE,
    );
  }
}

/** Reads until that text has come. */
async function heard(client: UnreadClient, text: string): Promise<void> {
  for (let all = ""; !all.includes(text);) {
    const some = await client.read(1 << 16);
    assert(some !== undefined, `closed before "${text}": ${all}`);
    all += new TextDecoder("latin1").decode(some);
  }
}

/** The API port with few connections. Its logs say the first message, the second after `gate`, and no more. */
async function openPort(gate: Promise<void>, tls?: { certFile: string; keyFile: string }) {
  let count = 0;
  let told = Promise.withResolvers<void>();
  const shutdown = new AbortController();
  const handler = apiHandler({
    routes: (router) =>
      void router.service(WorkloadService, {
        async *streamLogs(_request, { signal }) {
          yield { data: new TextEncoder().encode(FIRST) };
          await gate;
          yield { data: new TextEncoder().encode(SECOND) };
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      }),
    guard: { hosts: new Set(), token: TOKEN },
    log: silentLog,
    shutdown: shutdown.signal,
  });
  const listener = await listenApi({
    address: { host: "127.0.0.1", port: 0 },
    tls,
    handler,
    log: silentLog,
    maxConnections: MAX,
    // None of them is closed for its silence meanwhile, however slow the machine.
    headTimeoutMs: IDLE_TIMEOUT_MS,
    onRefused() {
      count++;
      told.resolve();
    },
  });
  return {
    number: listener.address.port,
    /** Waits until so many have been closed, and no more. */
    async refused(wanted: number): Promise<void> {
      while (count < wanted) {
        await told.promise;
        told = Promise.withResolvers();
      }
      assert.equal(count, wanted);
    },
    async [Symbol.asyncDispose]() {
      shutdown.abort();
      await listener[Symbol.asyncDispose]();
    },
  };
}
