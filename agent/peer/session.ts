import type http2 from "node:http2";
import type { TLSSocket } from "node:tls";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { dialPeer, type PeerAddress, PROTOCOL } from "./handshake/dial.ts";
import type { PeerKeys } from "./handshake/peer_keys.ts";
import { HandshakeError } from "./handshake/refusal.ts";
import { reasonOf, unreachable } from "./errors.ts";
import type { PeerLimits } from "./limits.ts";
import type { Observe } from "./metrics.ts";

/** Any will do: the connection is made elsewhere. */
export const AUTHORITY = "http://node.hypercore.internal";

/** HTTP status of a call that was not looked at: the connection was proved by a key that is no longer in force. */
export const KEY_GONE = 421;

/** What {@linkcode PeerSession} works with. */
export interface PeerSessionOptions {
  /** This node's id. */
  nodeId: string;
  keys: PeerKeys;
  limits: PeerLimits;
  observe?: Observe;
}

type RequestArguments = Parameters<Http2SessionManager["request"]>;

/**
 * The one connection to a peer: dialled by the first call, shared by all, dialled anew by the next call after it was lost
 * or closed, or after the cluster's primary key changed. What connect-node calls a session manager.
 */
export class PeerSession {
  readonly authority = AUTHORITY;
  readonly peer: PeerAddress;
  readonly #options: PeerSessionOptions;
  readonly #closing = new AbortController();
  #current: Http2SessionManager | undefined;
  /** By what membership was proved on the current one. */
  #key: Uint8Array | undefined;
  /** Asked by the peer to end, or made with a key that is on its way out, and ending. */
  #retiring: Http2SessionManager[] = [];
  #dialling: Promise<Http2SessionManager> | undefined;
  #waiting = 0;

  constructor(peer: PeerAddress, options: PeerSessionOptions) {
    this.peer = peer;
    this.#options = options;
  }

  /** Whether calls are under way. */
  get isBusy(): boolean {
    return this.#waiting > 0 || this.#retiring.some(isUsed) ||
      this.#current !== undefined && isUsed(this.#current);
  }

  /** Whether there is a connection, or is about to be one. */
  get isOpen(): boolean {
    return this.#dialling !== undefined || this.#current !== undefined && isConnected(this.#current);
  }

  /** Opens a stream. Throws `unavailable` where there is no connection to be had. */
  async request(...request: RequestArguments): Promise<http2.ClientHttp2Stream> {
    this.#waiting++;
    try {
      for (;;) {
        const manager = await this.#connected();
        try {
          return failingWhenCutOff(await manager.request(...request));
        } catch (error) {
          if (!(error instanceof SpentError)) throw error;
          this.#retire(manager);
        }
      }
    } finally {
      this.#waiting--;
    }
  }

  /** Part of the session manager: tells that the connection is alive. */
  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#current?.notifyResponseByteRead(stream);
    for (const manager of this.#retiring) manager.notifyResponseByteRead(stream);
  }

  /** Closes the connection; calls under way fail with `unavailable` and this reason. */
  close(reason: string): void {
    if (this.#closing.signal.aborted) return;
    const error = unreachable(this.peer.nodeId, reason);
    this.#closing.abort(error);
    this.#current?.abort(error);
    for (const manager of this.#retiring) manager.abort(error);
  }

  async #connected(): Promise<Http2SessionManager> {
    this.#closing.signal.throwIfAborted();
    const current = this.#current;
    if (current !== undefined && isConnected(current)) {
      if (this.#key === this.#options.keys.current()[0]) return current;
      // The peer closes it once the key is removed: what begins now is to outlive that.
      this.#retire(current);
    }
    this.#dialling ??= this.#dial().finally(() => this.#dialling = undefined);
    return await this.#dialling;
  }

  /** Next time it is dialled anew; calls under way go on. */
  renew(): void {
    if (this.#current !== undefined) this.#retire(this.#current);
  }

  async #dial(): Promise<Http2SessionManager> {
    const { nodeId, keys, limits, observe } = this.#options;
    const startedMs = performance.now();
    const held = keys.current();
    try {
      const socket = await dialPeer(this.peer, {
        nodeId,
        keys: held,
        protocol: PROTOCOL.calls,
        signal: this.#closing.signal,
      });
      const manager = sessionOver(socket, limits);
      this.#current = manager;
      this.#key = held[0];
      const state = await manager.connect();
      this.#closing.signal.throwIfAborted();
      if (state === "error") throw manager.error() ?? new HandshakeError("closed", "us");
      observe?.({ kind: "dialled", ms: performance.now() - startedMs });
      return manager;
    } catch (error) {
      this.#closing.signal.throwIfAborted();
      const reason = error instanceof HandshakeError ? error.refusal : "network";
      observe?.({ kind: "dial-failed", reason });
      throw unreachable(this.peer.nodeId, reasonOf(error), { cause: error });
    }
  }

  #retire(manager: Http2SessionManager): void {
    if (this.#current !== manager) return;
    this.#current = undefined;
    this.#retiring = [...this.#retiring.filter(isConnected), manager];
  }
}

/** The connection of a manager is used up; it would make a new one by itself. */
class SpentError extends Error {}

function sessionOver(socket: TLSSocket, limits: PeerLimits): Http2SessionManager {
  let isSpent = false;
  return new Http2SessionManager(AUTHORITY, {
    pingIntervalMs: limits.clientPingMs,
    pingTimeoutMs: limits.pingTimeoutMs,
    idleConnectionTimeoutMs: limits.clientIdleMs,
  }, {
    settings: { initialWindowSize: STREAM_WINDOW_BYTES, enablePush: false },
    createConnection() {
      if (isSpent) throw new SpentError("Cannot reopen a connection between nodes: it must be dialled anew");
      isSpent = true;
      return socket;
    },
  });
}

/**
 * Deno closes the streams of a connection that was lost as if they had ended well; without an answer nobody would notice.
 */
function failingWhenCutOff(stream: http2.ClientHttp2Stream): http2.ClientHttp2Stream {
  let isAnswered = false;
  stream.once("response", () => isAnswered = true);
  stream.once("close", () => {
    if (isAnswered || stream.rstCode !== 0 || stream.errored) return;
    const lost = new Error("the connection was closed");
    stream.emit("error", Object.assign(lost, { code: "ERR_HTTP2_STREAM_CANCEL" }));
  });
  return stream;
}

/** Bytes that a peer may be ahead of a slow reader, on one call. */
const STREAM_WINDOW_BYTES = 256 << 10;

function isConnected(manager: Http2SessionManager): boolean {
  const state = manager.state();
  return state !== "closed" && state !== "error";
}

function isUsed(manager: Http2SessionManager): boolean {
  const state = manager.state();
  return state === "open" || state === "verifying" || state === "connecting";
}
