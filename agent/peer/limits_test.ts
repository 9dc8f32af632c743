import assert from "node:assert/strict";
import net from "node:net";
import { once } from "node:events";
import type { ServiceImpl } from "@connectrpc/connect";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError, type RuntimeErrorCode } from "../../runtime/errors.ts";
import { startPeer, type TestPeer, type TestPeerOptions, until } from "./testing.ts";

type Peer = Partial<ServiceImpl<typeof PeerService>>;

const DATA = new Uint8Array(1024);
/** In which an end that is there answers, however busy the machine; milliseconds. */
const ANSWER_MS = 1_000;

Deno.test("of too many connections from one node the oldest gives way", async () => {
  const cluster = new Cluster();
  await using b = await cluster.start("b", {
    limits: { connectionsPerPeer: 2 },
    peer: { cordon: () => ({}) },
  });
  await using stack = new AsyncDisposableStack();
  const callers: TestPeer[] = [];
  for (let n = 0; n < 3; n++) {
    const caller = stack.use(await cluster.start("a"));
    callers.push(caller);
    await caller.peers.client(PeerService, "b").cordon({});
  }
  await until(() => b.server.connections === 2 && callers[0].peers.connections === 0);
  assert.deepEqual(callers.map(({ peers }) => peers.connections), [0, 1, 1]);
  await callers[0].peers.client(PeerService, "b").cordon({});
});

Deno.test("connections beyond the limit are closed; one that ends makes room", async () => {
  const cluster = new Cluster();
  await using b = await cluster.start("b", { limits: { connections: 1 }, peer: { cordon: () => ({}) } });
  await using second = await cluster.start("second");
  {
    await using first = await cluster.start("first");
    await first.peers.client(PeerService, "b").cordon({});
    await assert.rejects(
      second.peers.client(PeerService, "b").cordon({}),
      is("unavailable", /^Cannot reach node "b": /),
    );
    assert(b.seen.some((seen) => seen.kind === "refused" && seen.reason === "limit"));
  }
  await until(() => second.peers.client(PeerService, "b").cordon({}).then(() => true, () => false));
});

Deno.test("calls beyond a connection's limit wait for others to end", async () => {
  let now = 0, most = 0;
  const go = Promise.withResolvers<void>();
  const cluster = new Cluster();
  await using _b = await cluster.start("b", {
    limits: { streamsPerConnection: 4 },
    peer: {
      async cordon() {
        most = Math.max(most, ++now);
        await go.promise;
        now--;
        return {};
      },
    },
  });
  await using a = await cluster.start("a");
  const client = a.peers.client(PeerService, "b");
  await until(() => client.fetchRequest({}).then(() => true, () => true)); // the peer's settings have come
  const calls = Array.from({ length: 12 }, () => client.cordon({}));
  await until(() => now === 4);
  go.resolve();
  await Promise.all(calls);
  assert.equal(most, 4);
});

Deno.test("messages beyond the limit are refused on their way there and back", async () => {
  const cluster = new Cluster();
  let length = 0;
  const limits = { messageBytes: 10_000 };
  await using _b = await cluster.start("b", {
    limits,
    peer: { fetchRequest: () => ({ request: { imageRef: "x".repeat(length) } }) },
  });
  await using a = await cluster.start("a", { limits: { messageBytes: 50_000 } });
  await using small = await cluster.start("small", { limits });
  const client = a.peers.client(PeerService, "b");
  length = 9_900;
  assert.equal((await client.fetchRequest({ id: "x".repeat(9_900) })).request?.imageRef.length, length);
  await assert.rejects(client.fetchRequest({ id: "x".repeat(10_001) }), is("exhausted", /10000|larger/));
  length = 10_001;
  await assert.rejects(client.fetchRequest({}), is("exhausted", /10000|larger/));
  await assert.rejects(
    small.peers.client(PeerService, "b").fetchRequest({ id: "x".repeat(10_001) }),
    is("exhausted", /10000|larger/),
  );
});

Deno.test("a connection without calls is closed, by the caller or else by the callee, and dialled anew", async () => {
  const cluster = new Cluster();
  await using b = await cluster.start("b", {
    limits: { serverIdleMs: 150, serverPingMs: 20 },
    peer: { cordon: () => ({}) },
    async *logs() {
      yield { data: DATA };
      await new Promise((resolve) => setTimeout(resolve, 400));
      yield { data: DATA };
    },
  });
  await using patient = await cluster.start("patient");
  // On a busy machine a connection may be idle for too long before its call comes: then there is another.
  await until(() => patient.peers.client(PeerService, "b").cordon({}).then(() => true, () => false));
  await until(() => b.server.connections === 0 && patient.peers.connections === 0);
  const before = dials(patient);
  // One with a call on it stays.
  let chunks = 0;
  await until(async () => {
    try {
      for await (const _ of patient.peers.client(WorkloadService, "b").streamLogs({})) chunks++;
    } catch (error) {
      if (chunks > 0) throw error;
    }
    return chunks > 0;
  });
  assert.equal(chunks, 2);
  assert(dials(patient) > before);

  await using _c = await cluster.start("c", { peer: { cordon: () => ({}) } });
  await using hasty = await cluster.start("hasty", { limits: { clientIdleMs: 30 } });
  await hasty.peers.client(PeerService, "c").cordon({});
  await until(() => hasty.peers.connections === 0);
  await hasty.peers.client(PeerService, "c").cordon({});
  assert.equal(dials(hasty), 2);
});

Deno.test("an end that vanished without a word is noticed by the other, either way", async () => {
  const cluster = new Cluster();
  const ended = Promise.withResolvers<void>();
  await using b = await cluster.start("b", {
    limits: { serverPingMs: 100, pingTimeoutMs: ANSWER_MS },
    peer: { cordon: () => new Promise(() => {}) },
    logs: (signal) => dataAndSilence(signal, ended.resolve),
  });
  await using wire = await Wire.open(b.address.port);
  await using a = await cluster.start("a", {
    limits: { clientPingMs: 100, pingTimeoutMs: ANSWER_MS, callMs: 60_000 },
  });
  cluster.directory.set("b", { ...b.address, port: wire.port });
  const unary = assert.rejects(
    a.peers.client(PeerService, "b").cordon({}),
    is("unavailable", /^Cannot reach node "b": /),
  );
  const stream = assert.rejects(async () => {
    for await (const _ of a.peers.client(WorkloadService, "b").streamLogs({})) wire.cut();
  }, is("unavailable", /^Cannot reach node "b": /));
  await Promise.all([unary, stream, ended.promise]);
  await until(() => b.server.connections === 0 && a.peers.connections === 0);
  wire.mend();
  await assert.rejects(a.peers.client(WorkloadService, "b").inspect({}), is("precondition", /inspect/));
});

Deno.test("connections to nodes are bounded: the one that was idle the longest is closed", async () => {
  const cluster = new Cluster();
  await using stack = new AsyncDisposableStack();
  const go = Promise.withResolvers<void>();
  const peer: Peer = {
    cordon: () => ({}),
    evict: async () => {
      await go.promise;
      return {};
    },
  };
  for (const nodeId of ["x", "y", "z"]) stack.use(await cluster.start(nodeId, { peer }));
  await using a = await cluster.start("a", { limits: { openPeers: 2 } });
  const to = (nodeId: string) => a.peers.client(PeerService, nodeId);
  await to("x").cordon({});
  await to("y").cordon({});
  await to("x").cordon({});
  await to("z").cordon({}); // y goes
  await to("x").cordon({});
  assert.equal(a.peers.connections, 2);
  assert.equal(dials(a), 3);
  const busy = [to("x").evict({}), to("z").evict({})];
  await assert.rejects(
    to("y").cordon({}),
    is("exhausted", /^Cannot reach node "y": calls to 2 other nodes are under way$/),
  );
  go.resolve();
  await Promise.all(busy);
  // A call's stream is over a moment after its answer.
  await until(() => to("y").cordon({}).then(() => true, () => false));
});

Deno.test("keys rotate without a failed call, and connections of a removed key end", async () => {
  const cluster = new Cluster();
  const ended = Promise.withResolvers<void>();
  await using b = await cluster.start("b", {
    limits: { serverPingMs: 20 },
    peer: { cordon: () => ({}) },
    logs: (signal) => dataAndSilence(signal, ended.resolve),
  });
  await using a = await cluster.start("a");
  const [first, second] = [a.clusterKeys[0], new Uint8Array(32).fill(2)];
  const third = new Uint8Array(32).fill(4);
  const client = a.peers.client(PeerService, "b");
  const set = (peer: TestPeer, keys: Uint8Array[]) => peer.clusterKeys.splice(0, Infinity, ...keys);
  await client.cordon({});
  set(b, [first, second]);
  await client.cordon({});
  set(a, [first, second]);
  set(b, [second, first]);
  await client.cordon({});
  assert.equal(dials(a), 1);
  const stream = assert.rejects(async () => {
    for await (const _ of a.peers.client(WorkloadService, "b").streamLogs({})) {
      set(a, [second, first]);
      await client.cordon({});
      assert.equal(dials(a), 2);
      set(b, [second]);
      await client.cordon({});
    }
  }, is("unavailable", /^Cannot reach node "b": /));
  await Promise.all([stream, ended.promise]);
  set(a, [second]);
  await client.cordon({});
  assert.equal(dials(a), 2);
  set(a, [second, third]);
  set(b, [third, second]);
  await client.cordon({});
  set(a, [third, second]);
  set(b, [third]);
  await client.cordon({});
  assert.equal(dials(a), 3, "b has dropped the key that a still holds");
  set(a, [third]);
  await client.cordon({});
  assert.equal(dials(a), 3, "the key that this connection was proved by still counts");
  set(b, [new Uint8Array(32).fill(3)]);
  await assert.rejects(client.cordon({}), is("unavailable", /^Cannot reach node "b": /));
  await assert.rejects(client.cordon({}), is("unavailable", /the two nodes hold different cluster keys$/));
});

Deno.test("a node that stops lets calls in flight end first", async () => {
  const cluster = new Cluster();
  const entered = Promise.withResolvers<void>(), go = Promise.withResolvers<void>();
  const b = await cluster.start("b", {
    limits: { drainMs: 60_000 },
    peer: {
      cordon: async () => {
        entered.resolve();
        await go.promise;
        return {};
      },
    },
  });
  await using a = await cluster.start("a");
  const call = a.peers.client(PeerService, "b").cordon({});
  await entered.promise;
  const stopped = b.server[Symbol.asyncDispose]();
  // Not taken any more, while the other ends well.
  await assert.rejects(
    a.peers.client(PeerService, "b").cordon({}),
    is("unavailable", /^Cannot reach node "b": /),
  );
  go.resolve();
  await call;
  await stopped;
  await b[Symbol.asyncDispose]();
});

interface NodeOptions extends Pick<TestPeerOptions, "limits"> {
  peer?: Peer;
  logs?: (signal: AbortSignal) => AsyncGenerator<{ data: Uint8Array }>;
}

/** Sends data, and then nothing until its end, of which it tells however that comes. */
async function* dataAndSilence(signal: AbortSignal, ended: () => void) {
  try {
    yield { data: DATA };
    if (signal.aborted) return;
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  } finally {
    ended();
  }
}

/** Nodes that find each other. */
class Cluster {
  readonly directory: NonNullable<TestPeerOptions["directory"]> = new Map();

  start(nodeId: string, { peer = {}, logs, limits }: NodeOptions = {}): Promise<TestPeer> {
    return startPeer({
      nodeId,
      limits,
      directory: this.directory,
      routes(router) {
        router.service(PeerService, peer);
        router.service(WorkloadService, logs ? { streamLogs: (_, { signal }) => logs(signal) } : {});
      },
    });
  }
}

/** A network between two nodes that can be cut: what is sent then goes nowhere, and nobody is told. */
class Wire {
  readonly #server = net.createServer((near) => this.#join(near));
  readonly #sockets = new Set<net.Socket>();
  #isCut = false;

  private constructor(private readonly target: number) {}

  static async open(target: number): Promise<Wire> {
    const wire = new Wire(target);
    wire.#server.listen(0, "127.0.0.1");
    await once(wire.#server, "listening");
    return wire;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  cut(): void {
    this.#isCut = true;
  }

  mend(): void {
    this.#isCut = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #join(near: net.Socket): void {
    const far = net.connect(this.target, "127.0.0.1");
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("data", (data) => this.#isCut || to.write(data));
      from.once("close", () => {
        this.#sockets.delete(from);
        if (!this.#isCut) to.destroy();
      });
    }
  }
}

function dials({ seen }: TestPeer): number {
  return seen.filter(({ kind }) => kind === "dialled").length;
}

function is(code: RuntimeErrorCode, message: RegExp) {
  return (error: unknown) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}
