import assert from "node:assert/strict";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import {
  type AttachRequestSchema,
  type ExecRequestSchema,
  ExecStartFailureSchema,
  WorkloadService,
} from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { busyboxImage, ociLayoutTar } from "../support/images.ts";
import { startRegistry } from "../support/registry.ts";
import { DEADLINE_MS } from "./agent_under_test.ts";
import { type NodeUnderTest, startNodeUnderTest, TOKEN } from "./node_under_test.ts";

const IMAGE = "docker.io/test/busybox:1";
const SIGTERM = 15;
const SIGKILL = 9;
/** Matches nothing: reads on to the end. */
const NEVER = /[^\s\S]/;

type ExecMessage = NonNullable<MessageInitShape<typeof ExecRequestSchema>["request"]>;
type AttachMessage = NonNullable<MessageInitShape<typeof AttachRequestSchema>["request"]>;
/** The fields of an exec's start. */
interface ExecFields {
  id: string;
  args: string[];
  env?: string[];
  workingDirectory?: string;
  user?: string;
  tty?: boolean;
  stdin?: boolean;
  window?: { columns: number; rows: number };
}

/** The API of a node, by gRPC. */
class Api implements Disposable {
  readonly cluster: Client<typeof ClusterService>;
  readonly images: Client<typeof ImageService>;
  readonly workloads: Client<typeof WorkloadService>;
  readonly #sessions: Http2SessionManager;

  constructor(node: NodeUnderTest) {
    this.#sessions = new Http2SessionManager(node.url);
    const transport = createGrpcTransport({
      baseUrl: node.url,
      sessionManager: this.#sessions,
      interceptors: [(next) => (request) => {
        request.header.set("authorization", `Bearer ${TOKEN}`);
        return next(request);
      }],
    });
    this.cluster = createClient(ClusterService, transport);
    this.images = createClient(ImageService, transport);
    this.workloads = createClient(WorkloadService, transport);
  }

  exec(start: ExecFields, options?: CallOptions): Exec {
    return new Exec(this.workloads, start, options);
  }

  /** What a command prints, and how it ends. */
  async run(
    id: string,
    script: string,
    start: Omit<ExecFields, "id" | "args"> = {},
  ): Promise<[string, string, number]> {
    const session = this.exec({ ...start, id, args: ["sh", "-c", script] });
    session.end();
    const code = await session.exitCode;
    return [session.stdout, session.stderr, code];
  }

  [Symbol.dispose](): void {
    this.#sessions.abort();
  }
}

/** Messages that a test sends one by one. */
class Outbox<T> implements AsyncIterable<T> {
  readonly #messages: T[] = [];
  #wake = () => {};
  #hasEnded = false;

  send(message: T): void {
    this.#messages.push(message);
    this.#wake();
  }

  end(): void {
    this.#hasEnded = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) yield message;
      else if (this.#hasEnded) return;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

/** An exec under way. */
class Exec {
  stdout = "";
  stderr = "";
  pid = 0;
  readonly exitCode: Promise<number>;
  readonly #outbox = new Outbox<{ request: ExecMessage }>();
  #onChange = () => {};

  constructor(workloads: Client<typeof WorkloadService>, start: ExecFields, options: CallOptions = {}) {
    this.send({ case: "start", value: start });
    this.exitCode = this.#read(workloads.exec(this.#outbox, { timeoutMs: DEADLINE_MS, ...options }));
    this.exitCode.catch(() => {}); // a test that cares awaits it
  }

  send(request: ExecMessage): void {
    this.#outbox.send({ request });
  }

  type(text: string): void {
    this.send({ case: "stdin", value: new TextEncoder().encode(text) });
  }

  end(): void {
    this.#outbox.end();
  }

  /** Resolves when it runs, and has printed what matches. */
  async until(pattern: RegExp): Promise<void> {
    const ended = this.exitCode.then((code) => {
      if (!pattern.test(this.stdout)) {
        throw new Error(`ended with ${code} after "${this.stdout}${this.stderr}"`);
      }
    });
    while (this.pid === 0 || !pattern.test(this.stdout)) {
      await Promise.race([ended, new Promise<void>((resolve) => this.#onChange = resolve)]);
    }
  }

  async #read(responses: ReturnType<Client<typeof WorkloadService>["exec"]>): Promise<number> {
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    for await (const { response } of responses) {
      if (response.case === "started") this.pid = response.value;
      if (response.case === "stdout") this.stdout += text(response.value);
      if (response.case === "stderr") this.stderr += text(response.value);
      if (response.case === "exitCode") return response.value;
      this.#onChange();
    }
    throw new Error("no exit code came");
  }
}

/** A node with {@linkcode IMAGE} and its API. */
async function start() {
  await using undo = new AsyncDisposableStack();
  const node = undo.use(await startNodeUnderTest());
  const api = undo.use(new Api(node));
  const tar = ociLayoutTar([{ image: busyboxImage(), name: IMAGE }]);
  const { images } = await api.images.load(pieces(tar));
  assert.deepEqual(images.map((image) => image.name), [IMAGE]);
  const owned = undo.move();
  return {
    node,
    api,
    spawn: async (fields: MessageInitShape<typeof ClusterService.method.spawn.input> = {}) =>
      (await api.cluster.spawn({ imageRef: IMAGE, memory: 64, ...fields })).id,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

Deno.test("exec over gRPC", async (t) => {
  await using there = await start();
  const { api } = there;
  const id = await there.spawn({ args: ["sleep", "1000"], env: ["COLOUR=red"] });

  await t.step("tells the streams apart and gives the exit code", async () => {
    assert.deepEqual(await api.run(id, "echo out; echo err >&2; exit 42"), ["out\n", "err\n", 42]);
  });

  await t.step("takes environment, user and working directory", async () => {
    const start = { env: ["A=b"], user: "app", workingDirectory: "/tmp" };
    const [stdout] = await api.run(id, "echo $COLOUR $A $(id -un) $(pwd)", start);
    assert.equal(stdout, "red b app /tmp\n");
  });

  await t.step("streams stdin to its end, more than fits any buffer", async () => {
    const session = api.exec({ id, args: ["wc", "-c"], stdin: true });
    const block = new Uint8Array(512 << 10);
    for (let n = 0; n < 16; n++) session.send({ case: "stdin", value: block });
    session.send({ case: "stdinClosed", value: true });
    assert.equal(await session.exitCode, 0);
    assert.equal(session.stdout, `${16 * block.length}\n`);
    session.end();
  });

  await t.step("delivers signals", async () => {
    const session = api.exec({
      id,
      args: ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"],
    });
    await session.until(/up/);
    session.send({ case: "signal", value: SIGTERM });
    assert.equal(await session.exitCode, 7);
    const other = api.exec({ id, args: ["sleep", "1000"] });
    await other.until(/^/);
    other.send({ case: "signal", value: SIGKILL });
    assert.equal(await other.exitCode, 128 + SIGKILL);
    session.end();
    other.end();
  });

  await t.step("has a terminal of the wanted size, which can be resized", async () => {
    const window = { columns: 91, rows: 33 };
    const session = api.exec({ id, args: ["sh"], tty: true, stdin: true, window });
    await session.until(/[#$] /);
    session.type("stty size; echo error >&2\n");
    await session.until(/33 91\r\n(.*\r\n)*error\r\n/);
    session.send({ case: "resize", value: { columns: 120, rows: 40 } });
    session.type("stty size\n");
    await session.until(/40 120\r\n/);
    session.type("exit 5\n");
    assert.equal(await session.exitCode, 5);
    assert.equal(session.stderr, "");
    session.end();
  });

  await t.step("tells a command that cannot be started by its exit code", async () => {
    const table: [string[], number, RegExp][] = [
      [["/nonexistent"], 127, /executable file not found/],
      [["/etc/passwd"], 126, /permission denied/],
    ];
    for (const [args, code, message] of table) {
      const error = await rejection(api.exec({ id, args }).exitCode);
      assert.equal(error.code, Code.FailedPrecondition);
      assert.match(error.rawMessage, message);
      assert.equal(error.findDetails(ExecStartFailureSchema)[0]?.exitCode, code);
    }
    const error = await rejection(api.exec({ id: "0123456789ab", args: ["true"] }).exitCode);
    assert.deepEqual([error.code, error.details], [Code.NotFound, []]);
  });

  await t.step("refuses what is wrong, and a session that does not begin with its start", async () => {
    const table: [ExecMessage[], RegExp][] = [
      [[{ case: "stdin", value: new Uint8Array(1) }], /first message must be its start/],
      [[{ case: "start", value: { id, args: [] } }], /a command is needed/],
      [[{ case: "start", value: { id: "../../etc/shadow", args: ["true"] } }], /Cannot accept id/],
      [[{ case: "start", value: { id, args: ["true"], env: ["novalue"] } }], /KEY=value/],
      [[sleep(), { case: "signal", value: 99 }], /signal "99"/],
      [[sleep(), { case: "resize", value: { columns: 0, rows: 1 } }], /columns "0"/],
      [[sleep(), { case: "resize", value: { columns: 9, rows: 9 } }], /no terminal/],
      [[sleep(), { case: "stdin", value: new Uint8Array(1) }], /stdin is not open/],
      [[sleep(), sleep()], /it runs/],
    ];
    function sleep(): ExecMessage {
      return { case: "start", value: { id, args: ["sleep", "1000"] } };
    }
    for (const [requests, message] of table) {
      const outbox = new Outbox<{ request: ExecMessage }>();
      for (const request of requests) outbox.send({ request });
      const calling = async () => {
        for await (const _ of api.workloads.exec(outbox, { timeoutMs: DEADLINE_MS }));
      };
      assert.match((await rejection(calling())).rawMessage, message);
      outbox.end();
    }
    await processesAre(api, id, /^sleep 1000$/);
  });

  await t.step("ends with its client: by cancellation, by deadline and by a broken connection", async () => {
    const leave = new AbortController();
    const cancelled = api.exec({ id, args: ["sleep", "2001"] }, { signal: leave.signal });
    await cancelled.until(/^/);
    leave.abort();
    assert.equal((await rejection(cancelled.exitCode)).code, Code.Canceled);

    const late = api.exec({ id, args: ["sleep", "2002"] }, { timeoutMs: 1_000 });
    assert.equal((await rejection(late.exitCode)).code, Code.DeadlineExceeded);

    using other = new Api(there.node);
    const broken = other.exec({ id, args: ["sleep", "2003"], stdin: true });
    await broken.until(/^/);
    other[Symbol.dispose]();
    await rejection(broken.exitCode);
    await processesAre(api, id, /^sleep 1000$/);
  });

  await t.step("ends when the container is stopped", async () => {
    const session = api.exec({ id, args: ["sleep", "1000"] });
    await session.until(/^/);
    await api.cluster.stop({ id, graceMs: 1 });
    assert.equal(await session.exitCode, 128 + SIGKILL);
    session.end();
  });
});

Deno.test("attach over gRPC", async (t) => {
  await using there = await start();
  const { api } = there;
  const attach = async (requests: AttachMessage[], until: RegExp) => {
    const outbox = new Outbox<{ request: AttachMessage }>();
    for (const request of requests) outbox.send({ request });
    let [text, tty] = ["", false];
    const leave = new AbortController();
    const options = { timeoutMs: DEADLINE_MS, signal: leave.signal };
    for await (const { response } of api.workloads.attach(outbox, options)) {
      if (response.case === "tty") tty = response.value;
      if (response.case === "output") text += new TextDecoder().decode(response.value);
      if (response.case === "exitCode") return { text, tty, exitCode: response.value };
      if (until.test(text)) break;
    }
    outbox.end();
    leave.abort();
    return { text, tty };
  };
  const stdin = (text: string): AttachMessage => ({ case: "stdin", value: new TextEncoder().encode(text) });

  await t.step("types into a terminal, resizes it, and detaches without ending the container", async () => {
    const id = await there.spawn({ args: ["sh"], tty: true, stdin: true });
    const window = { columns: 70, rows: 20 };
    const start: AttachMessage = { case: "start", value: { id, stdin: true, window, tail: 100 } };
    const first = await attach([start, stdin("stty size\n")], /20 70\r\n/);
    assert.equal(first.tty, true);
    const resize: AttachMessage = { case: "resize", value: { columns: 80, rows: 25 } };
    await attach([start, resize, stdin("stty size\n")], /25 80\r\n/);
    const { states } = await api.cluster.list({});
    assert.deepEqual(states[0].workloads.map(({ status, generation }) => [status, generation]), [[
      "running",
      1n,
    ]]);
    const last = await attach([start, stdin("exit 3\n")], NEVER);
    assert.equal(last.exitCode, 3);
    await api.cluster.stop({ id });
  });

  await t.step(
    "replays the last lines, and gives the end of stdin to a process without a terminal",
    async () => {
      const id = await there.spawn({
        args: ["sh", "-c", "echo one; echo two; cat; echo end; exit 9"],
        stdin: true,
      });
      const start = (tail: number): AttachMessage => ({ case: "start", value: { id, stdin: true, tail } });
      const seen = await attach([start(10)], /two\n/);
      assert.equal(seen.tty, false);
      const rest = await attach([start(1), stdin("typed\n"), { case: "stdinClosed", value: true }], NEVER);
      assert.equal(rest.text, "two\ntyped\nend\n");
      assert.equal(rest.exitCode, 9);
      await api.cluster.stop({ id });
    },
  );

  await t.step("passes signals on", async () => {
    const script = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done";
    const id = await there.spawn({ args: ["sh", "-c", script] });
    await attach([{ case: "start", value: { id, tail: 10 } }], /up/);
    const ended = await attach([{ case: "start", value: { id } }, { case: "signal", value: SIGTERM }], NEVER);
    assert.deepEqual([ended.text, ended.exitCode], ["bye\n", 4]);
    await api.cluster.stop({ id });
  });
});

Deno.test("events, logs and progress over gRPC", async (t) => {
  await using there = await start();
  const { api } = there;

  await t.step("events tell of a workload's life", async () => {
    const leave = new AbortController();
    const types: string[] = [];
    const watching = (async () => {
      for await (
        const { type } of api.workloads.watchEvents({}, { signal: leave.signal, timeoutMs: DEADLINE_MS })
      ) {
        types.push(type);
        if (type === "stopped") return;
      }
    })();
    // The watch has no first message; when another call that came later is answered, it stands.
    await api.cluster.list({});
    const id = await there.spawn({ args: ["sh", "-c", "sleep 0.5; exit 3"] });
    await assert.doesNotReject(async () => {
      while (!types.includes("started")) {
        const late = AbortSignal.timeout(DEADLINE_MS);
        await new Promise((resolve) => setTimeout(resolve, 20));
        late.throwIfAborted();
      }
    });
    await api.cluster.stop({ id });
    await watching;
    assert.deepEqual(types.slice(0, 4), ["spawned", "exited", "restart-scheduled", "started"]);
    await rejection(async () => {
      for await (const _ of api.workloads.watchEvents({ id: "0123456789ab" }));
    });
  });

  await t.step("logs are followed to the end of the stream", async () => {
    const id = await there.spawn({ args: ["sh", "-c", "echo one; sleep 0.3; echo two; sleep 1000"] });
    let text = "";
    for await (const { data } of api.workloads.streamLogs({ id, follow: true }, { timeoutMs: DEADLINE_MS })) {
      text += new TextDecoder().decode(data);
      if (text.includes("two")) break;
    }
    assert.equal(text, "one\ntwo\n");
    await api.cluster.stop({ id, graceMs: 1 });
  });

  await t.step("a pull tells of every blob until it is there", async () => {
    await using registry = await startRegistry();
    const image = busyboxImage({ text: "other\n" });
    const imageRef = await registry.push(image, "test/pulled:1");
    const last = new Map<string, string>();
    let name = "";
    for await (const { event } of api.images.pull({ imageRef })) {
      if (event.case === "progress") last.set(event.value.digest, event.value.status);
      if (event.case === "image") name = event.value.name;
    }
    assert.equal(name, imageRef);
    for (const layer of image.layers) {
      assert(["done", "exists", "downloaded"].includes(last.get(layer.digest)!), JSON.stringify([...last]));
    }
    const absent = rejection(async () => {
      for await (const _ of api.images.pull({ imageRef: `${registry.host}/test/absent:1` }));
    });
    assert.equal((await absent).code, Code.NotFound);
  });

  await t.step("a spawn tells of its pull and its steps, and gives its result", async () => {
    await using registry = await startRegistry();
    const imageRef = await registry.push(busyboxImage({ text: "another\n" }), "test/spawned:1");
    const seen: string[] = [];
    let id = "";
    for await (const { event } of api.workloads.spawn({ imageRef, memory: 64 }, { timeoutMs: DEADLINE_MS })) {
      seen.push(event.case === "step" ? event.value : event.case!);
      if (event.case === "result") id = event.value.id;
    }
    assert.deepEqual([...new Set(seen)], ["pull", "unpacking", "network", "starting", "result"]);
    await api.cluster.stop({ id });
  });

  await t.step("an archive that is none is refused, and so is one that breaks off", async () => {
    const noise = rejection(api.images.load(pieces(new Uint8Array(100_000).fill(7))));
    assert.equal((await noise).code, Code.InvalidArgument);
    const whole = ociLayoutTar([{ image: busyboxImage({ text: "cut\n" }), name: "docker.io/test/cut:1" }]);
    await rejection(api.images.load(pieces(whole.subarray(0, whole.length / 2))));
    const { images } = await api.images.listImages({});
    assert(!images.some((image) => image.name.includes("cut")));
  });
});

/** Waits until all that runs in a container, besides what looks, are these. */
async function processesAre(api: Api, id: string, expected: RegExp): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const [stdout] = await api.run(
      id,
      "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null",
    );
    const lines = stdout.split("\n").map((line) => line.trim())
      .filter((line) => line !== "" && !/^(sh -c for|tr )/.test(line));
    if (lines.length === 1 && expected.test(lines[0])) return;
    if (performance.now() > endMs) throw new Error(`there still runs: ${lines.join("; ")}`);
  }
}

async function rejection(work: Promise<unknown> | (() => Promise<unknown>)): Promise<ConnectError> {
  try {
    await (typeof work === "function" ? work() : work);
  } catch (error) {
    assert(error instanceof ConnectError, String(error));
    return error;
  }
  assert.fail("it did not fail");
}

async function* pieces(bytes: Uint8Array<ArrayBuffer>): AsyncGenerator<{ data: Uint8Array<ArrayBuffer> }> {
  const size = 256 << 10;
  for (let at = 0; at < bytes.length; at += size) {
    yield await Promise.resolve({ data: bytes.subarray(at, at + size) });
  }
}
