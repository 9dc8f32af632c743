import type http2 from "node:http2";
import net from "node:net";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Containers } from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import { Content } from "../../proto/gen/containerd/services/content/v1/content_pb.ts";
import { Diff } from "../../proto/gen/containerd/services/diff/v1/diff_pb.ts";
import { Events } from "../../proto/gen/containerd/services/events/v1/events_pb.ts";
import { Images } from "../../proto/gen/containerd/services/images/v1/images_pb.ts";
import { Introspection } from "../../proto/gen/containerd/services/introspection/v1/introspection_pb.ts";
import { Leases } from "../../proto/gen/containerd/services/leases/v1/leases_pb.ts";
import { Namespaces } from "../../proto/gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import { Snapshots } from "../../proto/gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { Tasks } from "../../proto/gen/containerd/services/tasks/v1/tasks_pb.ts";
import { Version } from "../../proto/gen/containerd/services/version/v1/version_pb.ts";
import { type Http2Call, Http2Link, requestOver } from "../http2_link.ts";
import { describeCall, type FailedCall, runtimeErrorFromConnect } from "./errors.ts";

/** Deadline of a unary call that names none, in milliseconds. */
export const DEFAULT_CALL_TIMEOUT_MS = 30_000;

/** `timeoutMs` of a call that may rightly take for ever, such as `Tasks.Wait`: its `signal` ends it. */
export const NO_TIMEOUT = 0;

/** Largest message taken from containerd, as containerd's own client has it. */
export const MAX_MESSAGE_BYTES = 16 << 20;

/** Any URL will do on a unix socket; containerd does not look at the authority. */
const BASE_URL = "http://localhost";

/** Where containerd is and what of it is meant. */
export interface ContainerdClientOptions {
  /** Path of containerd's gRPC socket. */
  socket: string;
  /** The containerd namespace of every call. */
  namespace: string;
  /** Deadline of unary calls that name none; {@linkcode DEFAULT_CALL_TIMEOUT_MS} by default. */
  timeoutMs?: number;
}

/**
 * Typed access to a containerd over its unix socket; works with 1.6 to 2.x. Every call carries the namespace, and
 * every unary call a deadline: the default, the call's own `timeoutMs`, or none with {@linkcode NO_TIMEOUT}. Streams
 * have no deadline and end with their `signal` only: leaving a `for await` early does not cancel the call.
 *
 * Every failure is a `RuntimeError`. When containerd goes away, calls in flight and streams fail with `unavailable`;
 * later calls connect anew by themselves.
 */
export class ContainerdClient implements AsyncDisposable {
  readonly socket: string;
  readonly namespace: string;
  readonly containers: Client<typeof Containers>;
  readonly content: Client<typeof Content>;
  readonly diff: Client<typeof Diff>;
  readonly events: Client<typeof Events>;
  readonly images: Client<typeof Images>;
  readonly introspection: Client<typeof Introspection>;
  readonly leases: Client<typeof Leases>;
  readonly namespaces: Client<typeof Namespaces>;
  readonly snapshots: Client<typeof Snapshots>;
  readonly tasks: Client<typeof Tasks>;
  readonly version: Client<typeof Version>;
  readonly #session: Session;

  constructor(options: ContainerdClientOptions) {
    this.socket = options.socket;
    this.namespace = options.namespace;
    this.#session = new Session(options.socket);
    const transport = containerdTransport(
      createGrpcTransport({
        baseUrl: BASE_URL,
        sessionManager: this.#session,
        acceptCompression: [],
        readMaxBytes: MAX_MESSAGE_BYTES,
        interceptors: [(next) => (request) => {
          request.header.set("containerd-namespace", options.namespace);
          return next(request);
        }],
      }),
      { socket: options.socket, timeoutMs: options.timeoutMs ?? DEFAULT_CALL_TIMEOUT_MS },
    );
    const client = <T extends DescService>(service: T): Client<T> => createClient(service, transport);
    this.containers = client(Containers);
    this.content = client(Content);
    this.diff = client(Diff);
    this.events = client(Events);
    this.images = client(Images);
    this.introspection = client(Introspection);
    this.leases = client(Leases);
    this.namespaces = client(Namespaces);
    this.snapshots = client(Snapshots);
    this.tasks = client(Tasks);
    this.version = client(Version);
  }

  /** Closes the connection; calls in flight fail with `unavailable`. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#session.close();
    return Promise.resolve();
  }
}

/**
 * Call options that put what the call creates under a lease, so that garbage collection leaves it alone.
 *
 * @example
 * ```ts ignore
 * await client.snapshots.prepare({ snapshotter, key, parent }, { signal, ...inLease(lease.id) });
 * ```
 */
export function inLease(leaseId: string): { headers: Record<string, string> } {
  return { headers: { "containerd-lease": leaseId } };
}

/** Adds to a transport what every call to containerd needs: a deadline, and errors translated once. */
function containerdTransport(inner: Transport, options: { socket: string; timeoutMs: number }): Transport {
  const translate = (error: unknown, call: Omit<FailedCall, "socket">) =>
    runtimeErrorFromConnect(error, { ...call, socket: options.socket });
  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      try {
        return await inner.unary(
          method,
          signal,
          timeoutMs ?? options.timeoutMs,
          header,
          input,
          contextValues,
        );
      } catch (error) {
        throw translate(error, { what: describeCall(method, input), signal });
      }
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const call = { what: describeCall(method, undefined), signal };
      try {
        const response = await inner.stream(method, signal, timeoutMs, header, input, contextValues);
        return { ...response, message: translated(response.message, (error) => translate(error, call)) };
      } catch (error) {
        throw translate(error, call);
      }
    },
  };
}

async function* translated<T>(
  messages: AsyncIterable<T>,
  translate: (error: unknown) => Error,
): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw translate(error);
  }
}

/** The connection to the socket: made by the first call, and again by the next call after it was lost. */
class Session {
  readonly authority = BASE_URL;
  readonly #socket: string;
  #link: Http2Link | undefined;
  #connecting: Promise<Http2Link> | undefined;
  #isClosed = false;

  constructor(socket: string) {
    this.#socket = socket;
  }

  request(...call: Http2Call): Promise<http2.ClientHttp2Stream> {
    return requestOver(() => this.#connected(), call);
  }

  /** Part of the session manager. */
  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#link?.heard(stream);
  }

  close(): void {
    this.#isClosed = true;
    this.#link?.destroy(CLOSED);
  }

  #connected(): Promise<Http2Link> {
    if (this.#link?.isOpen) return Promise.resolve(this.#link);
    return this.#connecting ??= this.#connect();
  }

  async #connect(): Promise<Http2Link> {
    try {
      if (this.#isClosed) throw CLOSED;
      const link = await Http2Link.connect(BASE_URL, () => net.connect(this.#socket));
      if (this.#isClosed) link.destroy(CLOSED);
      return this.#link = link;
    } finally {
      this.#connecting = undefined;
    }
  }
}

const CLOSED = new ConnectError("connection aborted", Code.Canceled);
