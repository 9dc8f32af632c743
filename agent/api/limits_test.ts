import assert from "node:assert/strict";
import { type CallOptions, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import type { ProcessSession } from "../../runtime/engine.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { silentLog } from "../../runtime/log.ts";
import { request, startManager } from "../workloads/testing.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { ClusterApi, MAX_LOG_RESPONSE_BYTES } from "./cluster_api.ts";
import { apiHandler } from "./handler.ts";
import { listenApi } from "./listener.ts";
import {
  type ClusterFacts,
  type ClusterServices,
  type Images,
  MAX_IMAGE_TRANSFERS,
  routes,
} from "./services.ts";
import { MAX_LOG_STREAMS, MAX_SESSIONS, WorkloadApi } from "./workload_service.ts";

const CONNECTIONS = 4;
const DEADLINE_MS = 10_000;

Deno.test("exec and attach sessions have a common limit; one that ends makes room", async () => {
  await using api = await start();
  const exec = (options: CallOptions) => api.workloads().exec(begin(api.id), options);
  const attach = (options: CallOptions) => api.workloads().attach(begin(api.id), options);
  await fill(MAX_SESSIONS, (n) => n % 2 ? attach : exec, [exec, attach]);
  while (api.openSessions() > 0) await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test("log streams have a limit; one that ends makes room", async () => {
  await using api = await start();
  api.engine.writeLog(api.id, "line\n");
  const follow = (options: CallOptions) => api.workloads().streamLogs({ id: api.id, follow: true }, options);
  await fill(MAX_LOG_STREAMS, () => follow, [follow]);
});

Deno.test("image transfers have a limit; one that ends makes room", async () => {
  await using api = await start();
  const pull = (options: CallOptions) => api.images().pull({ imageRef: "web:1" }, options);
  await fill(MAX_IMAGE_TRANSFERS, () => pull, [pull]);
});

Deno.test("a log in one answer is the newest whole lines that fit", async () => {
  await using api = await start();
  const line = `${"x".repeat(999)}\n`;
  const lines = MAX_LOG_RESPONSE_BYTES / line.length + 10;
  for (let n = 0; n < lines; n++) api.engine.writeLog(api.id, line);
  api.engine.writeLog(api.id, "last\n");
  const { logs } = await api.cluster.logs({ id: api.id });
  assert(logs.length <= MAX_LOG_RESPONSE_BYTES && logs.length > MAX_LOG_RESPONSE_BYTES - 2 * line.length);
  assert(logs.endsWith(`${line}last\n`));
  assert(logs.startsWith(line), "it begins with a whole line");
});

/** Services on fakes, called without a network. */
async function start() {
  const { manager, engine } = await startManager();
  const { id } = await manager.spawn(request());
  let open = 0;
  engine.exec = engine.attach = () => {
    open++;
    return Promise.resolve(endlessSession(() => open--));
  };
  const images: Images = {
    pull(_ref, { signal, onProgress }) {
      onProgress({ digest: "d", status: "downloading", bytes: 0, totalBytes: 1, bytesPerSecond: 0 });
      return aborted(signal);
    },
    load: () => Promise.resolve([]),
    list: () => Promise.resolve([]),
    remove: () => Promise.resolve(),
  };
  const api = new ClusterApi({ manager, engine, node: { id: "i1", name: "n1", address: "127.0.0.1" } });
  const cluster = {
    calls: api,
    workloads: new WorkloadApi({ api, manager, engine }).service(),
    admin: {} as ClusterServices["admin"],
    facts: () => ({}) as ClusterFacts,
    localChanged() {},
  };
  const facts = {
    nodeName: "n1",
    nodeId: "i1",
    version: "1",
    containerdNamespace: "x",
    insecure: false,
    baseUrl: "x.io",
  };
  const undo = new AsyncDisposableStack();
  undo.use(manager);
  const handler = apiHandler({
    routes: routes({
      cluster,
      manager,
      engine,
      images,
      identity: memoryIdentity(),
      proofs: {} as never,
      facts,
    }),
    guard: { hosts: new Set() },
    log: silentLog,
    shutdown: new AbortController().signal,
  });
  const { address: { port } } = undo.use(
    await listenApi({ address: { host: "127.0.0.1", port: 0 }, handler, log: silentLog }),
  );
  const baseUrl = `http://127.0.0.1:${port}`;
  // Connections of their own, as one carries no more than so many calls.
  const transports = Array.from({ length: CONNECTIONS }, () => {
    const sessionManager = new Http2SessionManager(baseUrl);
    undo.defer(() => sessionManager.abort());
    return createGrpcTransport({ baseUrl, sessionManager });
  });
  let next = 0;
  const transport = () => transports[next++ % CONNECTIONS];
  return {
    id,
    engine,
    openSessions: () => open,
    cluster: createClient(ClusterService, transport()),
    images: () => createClient(ImageService, transport()),
    workloads: () => createClient(WorkloadService, transport()),
    [Symbol.asyncDispose]: () => undo.disposeAsync(),
  };
}

type Open = (options: CallOptions) => AsyncIterable<unknown>;

/** Opens as many streams as there may be, sees `refused` refused, then ends one and opens another. */
async function fill(max: number, kind: (n: number) => Open, refused: readonly Open[]): Promise<void> {
  const streams = await Promise.all(Array.from({ length: max }, (_, n) => opened(kind(n))));
  for (const open of refused) await assert.rejects(opened(open), isExhausted);
  streams.pop()!.leave();
  streams.push(await openedInTime(refused[0]));
  await assert.rejects(opened(refused[0]), isExhausted);
  for (const stream of streams) stream.leave();
  (await openedInTime(refused[0])).leave();
}

/** A stream whose first message has come. */
async function opened(open: Open): Promise<{ leave(): void }> {
  const leave = new AbortController();
  const iterator = open({ signal: leave.signal })[Symbol.asyncIterator]();
  const first = await iterator.next();
  assert(!first.done);
  return { leave: () => leave.abort() };
}

/** The same, as soon as the agent has seen that another client left. */
async function openedInTime(open: Open): Promise<{ leave(): void }> {
  for (const late = AbortSignal.timeout(DEADLINE_MS);;) {
    try {
      return await opened(open);
    } catch (error) {
      if (late.aborted) throw error;
      isExhausted(error);
    }
  }
}

function isExhausted(error: unknown): boolean {
  assert(error instanceof ConnectError, String(error));
  assert.equal(error.code, Code.ResourceExhausted, error.message);
  assert.match(error.message, /Cannot open another of [a-z ]+: \d+ are open already/);
  return true;
}

async function* begin(id: string) {
  yield await Promise.resolve({ request: { case: "start" as const, value: { id, args: ["sleep"] } } });
}

/** A process that prints nothing and runs until it is disposed. */
function endlessSession(onDispose: () => void): ProcessSession {
  const end = new AbortController();
  const exitCode = aborted(end.signal);
  exitCode.catch(() => {}); // whoever needs it awaits it
  return {
    pid: 1,
    tty: false,
    output: {
      // deno-lint-ignore require-yield
      async *[Symbol.asyncIterator]() {
        await exitCode.catch(() => {}); // it was disposed: there is no more output
      },
    },
    write: () => Promise.resolve(),
    closeStdin: () => Promise.resolve(),
    resize: () => Promise.resolve(),
    kill: () => Promise.resolve(),
    exitCode,
    [Symbol.asyncDispose]() {
      if (!end.signal.aborted) onDispose();
      end.abort(new RuntimeError("canceled", "Cannot wait for the process: detached"));
      return Promise.resolve();
    },
  };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
