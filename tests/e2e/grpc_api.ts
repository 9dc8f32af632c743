import assert from "node:assert/strict";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import {
  type AttachRequestSchema,
  type ExecRequestSchema,
  WorkloadService,
} from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { busyboxImage, ociLayoutTar } from "../support/images.ts";
import { DEADLINE_MS } from "./agent_under_test.ts";
import { type NodeUnderTest, startNodeUnderTest, TOKEN } from "./node_under_test.ts";

const IMAGE = "docker.io/test/busybox:1";

/** What is sent into an exec. */
export type ExecMessage = NonNullable<MessageInitShape<typeof ExecRequestSchema>["request"]>;
/** What is sent into an attached session. */
export type AttachMessage = NonNullable<MessageInitShape<typeof AttachRequestSchema>["request"]>;
/** The fields of an exec's start. */
export interface ExecFields {
  id: string;
  args: string[];
  env?: string[];
  workingDirectory?: string;
  user?: string;
  tty?: boolean;
  stdin?: boolean;
  window?: { columns: number; rows: number };
}

/** A node with {@linkcode IMAGE} and its API. */
export async function startGrpcNode() {
  await using undo = new AsyncDisposableStack();
  const node = undo.use(await startNodeUnderTest());
  const api = undo.use(new GrpcApi(node));
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

/** The API of a node, by gRPC. */
export class GrpcApi implements Disposable {
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

  exec(start: ExecFields, options?: CallOptions): GrpcExec {
    return new GrpcExec(this.workloads, start, options);
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

/** An exec under way. */
export class GrpcExec {
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

/** Messages that a test sends one by one. */
export class Outbox<T> implements AsyncIterable<T> {
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

/** The error that a call fails with. */
export async function rejection(work: Promise<unknown> | (() => Promise<unknown>)): Promise<ConnectError> {
  try {
    await (typeof work === "function" ? work() : work);
  } catch (error) {
    assert(error instanceof ConnectError, String(error));
    return error;
  }
  assert.fail("it did not fail");
}

/** An archive as the API takes it. */
export async function* pieces(
  bytes: Uint8Array<ArrayBuffer>,
): AsyncGenerator<{ data: Uint8Array<ArrayBuffer> }> {
  const size = 256 << 10;
  for (let at = 0; at < bytes.length; at += size) {
    yield await Promise.resolve({ data: bytes.subarray(at, at + size) });
  }
}
