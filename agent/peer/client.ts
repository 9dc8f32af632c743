import type { DescService } from "@bufbuild/protobuf";
import { type Client, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RuntimeError } from "../../runtime/errors.ts";
import { errorOfCall, unreachable } from "./errors.ts";
import type { PeerAddress } from "./handshake/dial.ts";
import type { PeerKeys } from "./handshake/peer_keys.ts";
import { PEER_LIMITS, type PeerLimits } from "./limits.ts";
import type { Observe } from "./metrics.ts";
import { AUTHORITY, KEY_GONE, PeerSession, type PeerSessionOptions } from "./session.ts";

/** `timeoutMs` of a unary call that may take as long as it takes: its `signal` ends it. */
export const NO_TIMEOUT = 0;

/** What {@linkcode PeerClients} is given. */
export interface PeerClientsOptions {
  /** This node's id. */
  nodeId: string;
  keys: PeerKeys;
  /** Where a node is now, as membership knows; undefined for who is no member. */
  resolve: (nodeId: string) => Omit<PeerAddress, "nodeId"> | undefined;
  observe?: Observe;
  limits?: Partial<PeerLimits>;
}

/**
 * Clients of other nodes' services. There is one connection for each node, made by the first call and used by all; it is
 * dialled anew after it failed, and closed when it is idle, when the node has left, or moved.
 *
 * Every unary call has a deadline: the default, the call's own `timeoutMs`, or none with {@linkcode NO_TIMEOUT}. Streams
 * have none and end with their `signal` only: leaving a `for await` early does not cancel the call. Every failure is a
 * `RuntimeError`: `unavailable` with `Cannot reach node "x": reason` where there is no connection to be had or it was
 * lost, else what the other node threw.
 */
export class PeerClients implements AsyncDisposable {
  readonly #options: PeerClientsOptions;
  readonly #limits: PeerLimits;
  /** The one used last stands last. */
  readonly #sessions = new Map<string, PeerSession>();
  readonly #transports = new WeakMap<PeerSession, Transport>();
  #isClosed = false;

  constructor(options: PeerClientsOptions) {
    this.#options = options;
    this.#limits = { ...PEER_LIMITS, ...options.limits };
  }

  /** Connections that are open. */
  get connections(): number {
    return [...this.#sessions.values()].filter(({ isOpen }) => isOpen).length;
  }

  /**
   * A service of another node. Costs nothing before it is called, and may be kept: each call finds out where the node
   * is at that time.
   *
   * @example
   * ```ts ignore
   * const { state } = await peers.client(PeerService, nodeId).fetchState({}, { signal });
   * ```
   */
  client<S extends DescService>(service: S, nodeId: string): Client<S> {
    return createClient(service, this.#transport(nodeId));
  }

  /** Closes connections to nodes that are no members any more, or are elsewhere. To be called when members change. */
  refresh(): void {
    for (const [nodeId, session] of this.#sessions) {
      if (!isSame(session.peer, this.#options.resolve(nodeId))) this.#drop(session, MOVED);
    }
  }

  /** Closes all connections; calls under way fail with `unavailable`. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const session of this.#sessions.values()) this.#drop(session, STOPPING);
    return Promise.resolve();
  }

  /** Finds the connection anew for each call, gives it a deadline, and translates errors. */
  #transport(nodeId: string): Transport {
    return {
      unary: async (method, signal, timeoutMs, header, input, contextValues) => {
        try {
          const deadlineMs = timeoutMs ?? this.#limits.callMs;
          return await this.#again(nodeId, (transport) => {
            return transport.unary(method, signal, deadlineMs, header, input, contextValues);
          });
        } catch (error) {
          throw errorOfCall(error, { node: this.#nameOf(nodeId), method, signal });
        }
      },
      stream: async (method, signal, timeoutMs, header, input, contextValues) => {
        const translate = (error: unknown) =>
          errorOfCall(error, { node: this.#nameOf(nodeId), method, signal });
        try {
          const call = (transport: Transport, messages: typeof input) =>
            transport.stream(method, signal, timeoutMs, header, messages, contextValues);
          let response: Awaited<ReturnType<typeof call>>;
          if (method.methodKind === "server_streaming") {
            const question = await Array.fromAsync(input);
            response = await this.#again(nodeId, (transport) => call(transport, iterate(question)));
          } else response = await call(this.#find(nodeId), input);
          return { ...response, message: translated(response.message, translate) };
        } catch (error) {
          throw translate(error);
        }
      },
    };
  }

  /** Makes a call, and once more over a new connection where the other node has dropped the key of this one. */
  async #again<T>(nodeId: string, call: (transport: Transport) => Promise<T>): Promise<T> {
    const transport = this.#find(nodeId);
    try {
      return await call(transport);
    } catch (error) {
      if (!isKeyGone(error)) throw error;
      const session = this.#sessions.get(nodeId);
      if (session !== undefined && this.#transports.get(session) === transport) session.renew();
      return await call(this.#find(nodeId));
    }
  }

  #find(nodeId: string): Transport {
    if (this.#isClosed) throw unreachable(this.#nameOf(nodeId), STOPPING);
    const address = this.#options.resolve(nodeId);
    const known = this.#sessions.get(nodeId);
    if (address === undefined) {
      if (known !== undefined) this.#drop(known, MOVED);
      throw unreachable(nodeId, "it is no member of this cluster");
    }
    if (known !== undefined && isSame(known.peer, address)) {
      this.#sessions.delete(nodeId);
      this.#sessions.set(nodeId, known);
      return this.#transports.get(known)!;
    }
    if (known !== undefined) this.#drop(known, MOVED);
    this.#makeRoom(nodeId);
    return this.#open({ nodeId, ...address });
  }

  #nameOf(nodeId: string): string {
    return this.#options.resolve(nodeId)?.name ?? nodeId;
  }

  #open(peer: PeerAddress): Transport {
    const { nodeId, keys, observe } = this.#options;
    const options: PeerSessionOptions = { nodeId, keys, observe, limits: this.#limits };
    const session = new PeerSession(peer, options);
    // Not Connect's protocol: where a connection is lost Deno ends the streams on it as if they were whole, and only gRPC
    // frames the bodies of unary calls so that what is cut off shows.
    const transport = createGrpcTransport({
      baseUrl: AUTHORITY,
      sessionManager: session,
      acceptCompression: [],
      readMaxBytes: this.#limits.messageBytes,
      writeMaxBytes: this.#limits.messageBytes,
    });
    this.#sessions.set(peer.nodeId, session);
    this.#transports.set(session, transport);
    return transport;
  }

  /** Closes the connection that was not used for the longest time. */
  #makeRoom(nodeId: string): void {
    if (this.#sessions.size < this.#limits.openPeers) return;
    const idle = [...this.#sessions.values()].find(({ isBusy }) => !isBusy);
    if (idle === undefined) {
      const reason = `calls to ${this.#limits.openPeers} other nodes are under way`;
      throw new RuntimeError("exhausted", `Cannot reach node "${this.#nameOf(nodeId)}": ${reason}`);
    }
    this.#drop(idle, "it was idle");
  }

  #drop(session: PeerSession, reason: string): void {
    this.#sessions.delete(session.peer.nodeId);
    session.close(reason);
  }
}

const MOVED = "it has left or moved";
const STOPPING = "this node is shutting down";

function isSame(peer: PeerAddress, address: Omit<PeerAddress, "nodeId"> | undefined): boolean {
  return address !== undefined && peer.host === address.host && peer.port === address.port &&
    peer.fingerprint === address.fingerprint;
}

function isKeyGone(error: unknown): boolean {
  return error instanceof ConnectError && error.rawMessage === `HTTP ${KEY_GONE}`;
}

async function* iterate<T>(messages: readonly T[]): AsyncGenerator<T> {
  yield* messages;
}

async function* translated<T>(
  messages: AsyncIterable<T>,
  translate: (error: unknown) => Error,
): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    throw translate(error);
  }
}
