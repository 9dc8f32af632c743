import assert from "node:assert/strict";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError, type RuntimeErrorCode } from "../../runtime/errors.ts";
import { ExecStartError } from "../../runtime/io/exec_error.ts";
import { freePort } from "../../tests/support/free_port.ts";
import { callerOf } from "./caller.ts";
import { makePeerCertificate, startPeer, type TestPeer, type TestPeerOptions, until } from "./testing.ts";

const MIB = 1 << 20;
const CHUNK = new Uint8Array(64 << 10).fill(0x5a);

Deno.test("two nodes call each other, and each knows who calls", async () => {
  const directory = new Map();
  const callers: Record<string, string> = {};
  const routes = (nodeId: string) => (router: ConnectRouter) => {
    router.service(PeerService, {
      cordon(_request, context) {
        const { nodeId: caller, host } = callerOf(context);
        callers[nodeId] = `${caller} ${host}`;
        return {};
      },
    });
  };
  await using a = await startPeer({ nodeId: "a", directory, routes: routes("a") });
  await using b = await startPeer({ nodeId: "b", directory, routes: routes("b") });
  await Promise.all([
    a.peers.client(PeerService, "b").cordon({ cordoned: true }),
    b.peers.client(PeerService, "a").cordon({ cordoned: true }),
  ]);
  assert.deepEqual(callers, { a: "b 127.0.0.1", b: "a 127.0.0.1" });
  // The connection is kept for the next call.
  await a.peers.client(PeerService, "b").cordon({ cordoned: true });
  assert.equal(a.peers.connections, 1);
  assert.equal(b.server.connections, 1);
});

Deno.test("calls that begin at the same moment share one connection", async () => {
  await using pair = await startPair({ peer: { cordon: () => ({}) } });
  const client = pair.a.peers.client(PeerService, "b");
  await Promise.all(Array.from({ length: 100 }, () => client.cordon({})));
  assert.equal(pair.b.server.connections, 1);
  assert.equal(pair.b.seen.filter(({ kind }) => kind === "accepted").length, 1);
});

Deno.test("64 MiB stream down to a slow reader, and the sender waits for it", async () => {
  const total = 64 * MIB;
  let sent = 0;
  await using pair = await startPair({
    workload: {
      async *streamLogs() {
        while (sent < total) {
          sent += CHUNK.length;
          yield { data: CHUNK };
        }
      },
    },
  });
  let received = 0, ahead = 0;
  for await (const { data } of pair.a.peers.client(WorkloadService, "b").streamLogs({ id: "x" })) {
    received += data.length;
    ahead = Math.max(ahead, sent - received);
    if (received % (8 * MIB) === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(received, total);
  assert(ahead < 16 * MIB, `the sender was ${ahead} bytes ahead`);
});

Deno.test("64 MiB stream up to a slow reader, and the sender waits for it", async () => {
  const total = 64 * MIB;
  let sent = 0, received = 0, ahead = 0;
  await using pair = await startPair({
    image: {
      async load(requests) {
        for await (const { data } of requests) {
          received += data.length;
          ahead = Math.max(ahead, sent - received);
          if (received % (8 * MIB) === 0) await new Promise((resolve) => setTimeout(resolve, 20));
        }
        return { images: [] };
      },
    },
  });
  await pair.a.peers.client(ImageService, "b").load(
    async function* () {
      while (sent < total) {
        sent += CHUNK.length;
        yield await Promise.resolve({ data: CHUNK });
      }
    }(),
    { timeoutMs: 0 },
  );
  assert.equal(received, total);
  assert(ahead < 16 * MIB, `the sender was ${ahead} bytes ahead`);
});

Deno.test("a session carries both ways at once, as an exec on another node does", async () => {
  await using pair = await startPair({
    workload: {
      async *exec(requests) {
        for await (const { request } of requests) {
          if (request.case === "stdin") yield { response: { case: "stdout", value: request.value } };
          if (request.case === "detach") return;
        }
      },
    },
  });
  // Each input is sent when the answer to the one before has come.
  const turns = Array.from({ length: 6 }, () => Promise.withResolvers<void>());
  const sent = async function* () {
    for (const [turn, { promise }] of turns.entries()) {
      await promise;
      yield turn < 5
        ? { request: { case: "stdin" as const, value: Uint8Array.of(turn) } }
        : { request: { case: "detach" as const, value: true } };
    }
  };
  const answers: number[] = [];
  turns[0].resolve();
  for await (const { response } of pair.a.peers.client(WorkloadService, "b").exec(sent())) {
    assert(response.case === "stdout");
    answers.push(response.value[0]);
    turns[answers.length].resolve();
  }
  assert.deepEqual(answers, [0, 1, 2, 3, 4]);
});

Deno.test("a caller that cancels a stream ends it on the other node", async () => {
  const ended = Promise.withResolvers<void>();
  await using pair = await startPair({
    workload: {
      streamLogs: (_request, { signal }) => chunkAndSilence(signal, ended.resolve),
    },
  });
  const leave = new AbortController();
  const logs = pair.a.peers.client(WorkloadService, "b").streamLogs({ id: "x" }, { signal: leave.signal });
  await assert.rejects(async () => {
    for await (const _ of logs) leave.abort();
  }, is("canceled", /^Cannot stream logs on node "b": canceled$/));
  await ended.promise;
});

Deno.test("a unary call has a deadline, of its own or the default; the other node learns of it", async () => {
  let [begun, ended] = [0, 0];
  await using pair = await startPair({
    limits: { callMs: 150 },
    peer: {
      cordon: (_request, { signal }) => {
        begun++;
        return new Promise((_resolve, reject) =>
          signal.addEventListener("abort", () => {
            ended++;
            reject(signal.reason);
          })
        );
      },
    },
  });
  const client = pair.a.peers.client(PeerService, "b");
  const late = is("timeout", /^Cannot cordon on node "b": it did not answer in time$/);
  for (const options of [{}, { timeoutMs: 50 }]) {
    const before = begun;
    // On a busy machine a call's time may be over before it has reached the other node: then there is another.
    while (begun === before) await assert.rejects(client.cordon({}, options), late);
    await until(() => ended === begun);
  }
});

Deno.test("what another node's handler throws is thrown by the call, as if it had happened here", async () => {
  const thrown: Error[] = [
    new RuntimeError("not-found", 'Cannot find workload "web": no such workload'),
    new RuntimeError("exhausted", "Cannot open another of log streams: 64 are open already"),
    new RuntimeError("unavailable", "Cannot ask containerd: it does not answer"),
    new RuntimeError("denied", "Cannot run it: forbidden"),
    new ExecStartError('Cannot exec "x" in "y": executable file not found', 127),
  ];
  await using pair = await startPair({
    peer: {
      cordon: () => {
        throw thrown[0];
      },
    },
  });
  const client = pair.a.peers.client(PeerService, "b");
  while (thrown.length > 0) {
    const error = await client.cordon({}).then(() => assert.fail("it did not throw"), (error) => error);
    assert(error instanceof RuntimeError);
    assert.equal(error.code, (thrown[0] as RuntimeError).code);
    assert.equal(error.message, thrown[0].message);
    assert.equal(
      error instanceof ExecStartError && error.exitCode,
      thrown[0] instanceof ExecStartError && 127,
    );
    thrown.shift();
  }
  // A method that an older agent does not have, and a bug, whose text stays on its node.
  await assert.rejects(
    client.fetchRequest({ id: "x" }),
    is("precondition", /^Cannot fetch request on node "b": /),
  );
  await assert.rejects(
    pair.a.peers.client(ClusterService, "b").list({}),
    is("precondition", /^Cannot list on /),
  );
  thrown.push(new TypeError("secret"));
  await assert.rejects(
    client.cordon({}),
    is("failed", /^Cannot answer: internal error, see the agent's log$/),
  );
});

Deno.test("a node that is down, no member, or restarted is told apart, and the next call reaches it", async () => {
  const directory = new Map();
  const certificate = await makePeerCertificate();
  const routes = (router: ConnectRouter) => router.service(PeerService, { cordon: () => ({}) });
  await using a = await startPeer({ nodeId: "a", directory });
  const client = a.peers.client(PeerService, "b");
  await assert.rejects(
    client.cordon({}),
    is("unavailable", /^Cannot reach node "b": it is no member of this cluster$/),
  );
  const port = freePort();
  const first = await startPeer({ nodeId: "b", directory, routes, certificate, port });
  await client.cordon({});
  await first[Symbol.asyncDispose]();
  await until(() => a.peers.connections === 0);
  directory.set("c", { ...directory.get("b"), name: "n3" });
  for (const [nodeId, name] of [["b", "b"], ["c", "n3"]]) {
    // Not at once where a program is being started, which holds what was just closed for another moment.
    await until(async () => {
      const error = await a.peers.client(PeerService, nodeId).cordon({}).catch((error) => error);
      is("unavailable", new RegExp(`^Cannot reach node "${name}": `))(error);
      return error.message.endsWith(": connection refused");
    });
  }
  {
    await using _second = await startedOnceFree({ nodeId: "b", directory, routes, certificate, port });
    await client.cordon({});
    assert.equal(a.peers.connections, 1);
  }
  // Elsewhere, with another certificate: the open connection is not used any more.
  await using _third = await startPeer({ nodeId: "b", directory, routes });
  await client.cordon({});
  directory.delete("b");
  a.peers.refresh();
  assert.equal(a.peers.connections, 0);
  await assert.rejects(client.cordon({}), is("unavailable", /no member/));
});

Deno.test("calls under way when a node stops fail as unavailable, streams included", async () => {
  const entered = Promise.withResolvers<void>();
  const pair = await startPair({
    peer: {
      cordon: () => {
        entered.resolve();
        return new Promise(() => {});
      },
    },
    workload: {
      async *streamLogs() {
        yield { data: CHUNK };
        await new Promise(() => {});
      },
    },
  });
  const gone = is("unavailable", /^Cannot reach node "b": /);
  const unary = assert.rejects(pair.a.peers.client(PeerService, "b").cordon({}), gone);
  const stream = assert.rejects(async () => {
    for await (const _ of pair.a.peers.client(WorkloadService, "b").streamLogs({})) {
      await entered.promise;
      pair.b[Symbol.asyncDispose]();
    }
  }, gone);
  await Promise.all([unary, stream]);
  await pair[Symbol.asyncDispose]();
});

Deno.test("a change of keys fails no call: what begins under the new primary key outlives the old one", async () => {
  const [old, fresh] = [1, 2].map((byte) => new Uint8Array(32).fill(byte));
  const release = Promise.withResolvers<void>();
  await using pair = await startPair({
    peer: { cordon: () => ({}) },
    workload: {
      async *streamLogs() {
        yield { data: CHUNK };
        await release.promise;
        yield { data: CHUNK };
      },
    },
  });
  const { a, b } = pair;
  for (const { clusterKeys } of [a, b]) clusterKeys.splice(0, 1, old);
  await a.peers.client(PeerService, "b").cordon({});
  for (const { clusterKeys } of [a, b]) clusterKeys.unshift(fresh);
  let received = 0;
  for await (const { data } of a.peers.client(WorkloadService, "b").streamLogs({})) {
    received += data.length;
    // The one who is asked forgets the old key first, as in a cluster it may.
    for (const { clusterKeys } of [b, a]) {
      clusterKeys.length = 1;
      await a.peers.client(PeerService, "b").cordon({});
    }
    release.resolve();
  }
  assert.equal(received, 2 * CHUNK.length);
  assert.equal(a.seen.filter(({ kind }) => kind === "dialled").length, 2);
});

Deno.test("a caller that stops leaves nothing behind on either node", async () => {
  const ended = Promise.withResolvers<void>();
  await using pair = await startPair({
    workload: {
      streamLogs: (_request, { signal }) => chunkAndSilence(signal, ended.resolve),
    },
  });
  const client = pair.a.peers.client(WorkloadService, "b");
  await assert.rejects(async () => {
    for await (const _ of client.streamLogs({})) await pair.a.peers[Symbol.asyncDispose]();
  }, is("unavailable", /^Cannot reach node "b": this node is shutting down$/));
  await ended.promise;
  while (pair.b.server.connections > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await assert.rejects(async () => {
    for await (const _ of client.streamLogs({})) assert.fail();
  }, is("unavailable", /^Cannot reach node "b": this node is shutting down$/));
});

interface PairOptions {
  peer?: Partial<ServiceImpl<typeof PeerService>>;
  workload?: Partial<ServiceImpl<typeof WorkloadService>>;
  image?: Partial<ServiceImpl<typeof ImageService>>;
  limits?: Parameters<typeof startPeer>[0]["limits"];
}

/** Node "a", which calls, and node "b", which answers. */
async function startPair(
  { peer, workload, image, limits }: PairOptions,
): Promise<{ a: TestPeer; b: TestPeer } & AsyncDisposable> {
  const directory = new Map();
  const routes = (router: ConnectRouter) => {
    if (peer) router.service(PeerService, peer);
    if (workload) router.service(WorkloadService, workload);
    if (image) router.service(ImageService, image);
  };
  await using stack = new AsyncDisposableStack();
  const b = stack.use(await startPeer({ nodeId: "b", directory, routes, limits }));
  const a = stack.use(await startPeer({ nodeId: "a", directory, limits }));
  const owned = stack.move();
  return { a, b, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Starts a node on a port that was just closed, which a program that is being started holds for another moment. */
async function startedOnceFree(options: TestPeerOptions): Promise<TestPeer> {
  for (;;) {
    try {
      return await startPeer(options);
    } catch (error) {
      if (!/EADDRINUSE|address in use/i.test(String(error))) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

/** Sends a chunk, and then nothing until its end, of which it tells however that comes. */
async function* chunkAndSilence(signal: AbortSignal, ended: () => void) {
  try {
    yield { data: CHUNK };
    if (signal.aborted) return;
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  } finally {
    ended();
  }
}

function is(code: RuntimeErrorCode, message: RegExp) {
  return (error: unknown) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}
