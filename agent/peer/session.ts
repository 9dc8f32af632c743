import type http2 from "node:http2";
import { type Http2Call, Http2Link, requestOver } from "../../runtime/http2_link.ts";
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

/**
 * The one connection to a peer: dialled by the first call, shared by all, dialled anew by the next call after it was lost
 * or closed, or after the cluster's primary key changed. What connect-node calls a session manager.
 */
export class PeerSession {
  readonly authority = AUTHORITY;
  readonly peer: PeerAddress;
  readonly #options: PeerSessionOptions;
  readonly #closing = new AbortController();
  #current: Http2Link | undefined;
  /** By what membership was proved on the current one. */
  #key: Uint8Array | undefined;
  /** Asked by the peer to end, or made with a key that is on its way out, and ending. */
  #retiring: Http2Link[] = [];
  #dialling: Promise<Http2Link> | undefined;
  #waiting = 0;

  constructor(peer: PeerAddress, options: PeerSessionOptions) {
    this.peer = peer;
    this.#options = options;
  }

  get #name(): string {
    return this.peer.name ?? this.peer.nodeId;
  }

  /** Whether calls are under way. */
  get isBusy(): boolean {
    return this.#waiting > 0 || this.#current?.isBusy === true ||
      this.#retiring.some(({ isBusy }) => isBusy);
  }

  /** Whether there is a connection, or is about to be one. */
  get isOpen(): boolean {
    return this.#dialling !== undefined || this.#current?.isOpen === true;
  }

  /** Opens a stream. Throws `unavailable` where there is no connection to be had. */
  async request(...call: Http2Call): Promise<http2.ClientHttp2Stream> {
    this.#waiting++;
    try {
      return await requestOver(() => this.#connected(), call);
    } finally {
      this.#waiting--;
    }
  }

  /** Part of the session manager: tells that the connection is alive. */
  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#current?.heard(stream);
    for (const link of this.#retiring) link.heard(stream);
  }

  /** Closes the connection; calls under way fail with `unavailable` and this reason. */
  close(reason: string): void {
    if (this.#closing.signal.aborted) return;
    const error = unreachable(this.#name, reason);
    this.#closing.abort(error);
    this.#current?.destroy(error);
    for (const link of this.#retiring) link.destroy(error);
  }

  async #connected(): Promise<Http2Link> {
    this.#closing.signal.throwIfAborted();
    const current = this.#current;
    if (current !== undefined && current.isOpen) {
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

  async #dial(): Promise<Http2Link> {
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
      const link = await Http2Link.connect(AUTHORITY, () => socket, {
        pingIntervalMs: limits.clientPingMs,
        pingTimeoutMs: limits.pingTimeoutMs,
        idleMs: limits.clientIdleMs,
        settings: { initialWindowSize: STREAM_WINDOW_BYTES, enablePush: false },
      });
      if (this.#closing.signal.aborted) link.destroy();
      this.#closing.signal.throwIfAborted();
      this.#current = link;
      this.#key = held[0];
      observe?.({ kind: "dialled", ms: performance.now() - startedMs });
      return link;
    } catch (error) {
      this.#closing.signal.throwIfAborted();
      const reason = error instanceof HandshakeError ? error.refusal : "network";
      observe?.({ kind: "dial-failed", reason });
      throw unreachable(this.#name, reasonOf(error), { cause: error });
    }
  }

  #retire(link: Http2Link): void {
    if (this.#current !== link) return;
    this.#current = undefined;
    this.#retiring = [...this.#retiring.filter(({ isBusy }) => isBusy), link];
    link.retire();
  }
}

/** Bytes that a peer may be ahead of a slow reader, on one call. */
const STREAM_WINDOW_BYTES = 256 << 10;
