import type { Buffer } from "node:buffer";
import net from "node:net";
import tls from "node:tls";
import { nodeStream, Places, SocketTransport } from "../../gossip/mod.ts";
import type { Log } from "../../runtime/log.ts";
import type { HostPort } from "../config.ts";
import { endpointsOf } from "../endpoints.ts";
import type { Caller } from "./caller.ts";
import type { PeerCertificate } from "./certificate.ts";
import { PROTOCOL } from "./handshake/dial.ts";
import { proveAsServer } from "./handshake/exchange.ts";
import type { PeerKeys } from "./handshake/peer_keys.ts";
import { HandshakeError } from "./handshake/refusal.ts";
import { PEER_LIMITS, type PeerLimits } from "./limits.ts";
import type { Observe } from "./metrics.ts";

/** First byte of a TLS connection: a handshake record (RFC 8446, section 5.1). Memberlist begins with others. */
const TLS_HANDSHAKE = 0x16;
/** Tries to find a port that is free for both UDP and TCP. */
const BIND_TRIES = 16;

/** What {@linkcode PeerPort.open} is given. */
export interface PeerPortOptions {
  /** Gossip address; port 0 means any that is free for both UDP and TCP. */
  bind: HostPort;
  nodeId: string;
  certificate: PeerCertificate;
  keys: PeerKeys;
  log: Log;
  observe?: Observe;
  limits?: Partial<PeerLimits>;
}

/** Who takes the connections that other nodes open. */
export interface PeerTakers {
  /** Takes connections for calls, of nodes that have proved their membership by `key`. */
  calls: { take(socket: tls.TLSSocket, caller: Caller & { key: Uint8Array | undefined }): void };
}

/**
 * The gossip port of a node, UDP and TCP. Of TCP connections the first byte tells what they are: TLS is from another
 * node's agent, anything else is a memberlist stream and goes to {@linkcode PeerPort.transport}.
 */
export class PeerPort implements AsyncDisposable {
  /** For gossip: the UDP socket of this port, and the streams. Gossip disposes of it. */
  readonly transport: SocketTransport;
  /** Where it listens; the real port when 0 was asked for. */
  readonly address: HostPort;
  readonly #options: PeerPortOptions & { limits: PeerLimits };
  readonly #server: net.Server;
  readonly #tls: tls.Server;
  readonly #pending: Places;
  readonly #sockets = new Set<net.Socket>();
  /** TLS handshakes under way, by {@linkcode endpointsOf}. */
  readonly #handshakes = new Map<string, Handshake>();
  readonly #closing = new AbortController();
  #takers: PeerTakers | undefined;

  private constructor(
    options: PeerPortOptions & { limits: PeerLimits },
    sockets: { transport: SocketTransport; server: net.Server },
  ) {
    this.#options = options;
    const { pending: all, pendingPerAddress: perAddress, pendingPerNetwork: perNetwork } = options.limits;
    this.#pending = new Places({ all, perAddress, perNetwork });
    this.transport = sockets.transport;
    this.#server = sockets.server;
    this.address = { host: options.bind.host, port: sockets.transport.local.port };
    this.#tls = tls.createServer({
      key: options.certificate.keyPem,
      cert: options.certificate.certPem,
      minVersion: "TLSv1.3",
      ALPNProtocols: [PROTOCOL.calls],
    });
    this.#tls.on("secureConnection", (socket) => this.#secured(socket));
    this.#tls.on("tlsClientError", (_error, socket) => socket.destroy());
    this.#server.on("connection", (socket) => this.#accepted(socket));
  }

  /** Binds UDP and TCP; memberlist streams are taken at once. Throws an Error that names the address. */
  static async open(options: PeerPortOptions): Promise<PeerPort> {
    const limits = { ...PEER_LIMITS, ...options.limits };
    const { host, port } = options.bind;
    for (let tries = 1;; tries++) {
      const transport = SocketTransport.bind({ host, port, listenStreams: false });
      const server = net.createServer({ noDelay: true });
      try {
        await listen(server, { host, port: transport.local.port });
        return new PeerPort({ ...options, limits }, { transport, server });
      } catch (cause) {
        await transport[Symbol.asyncDispose]();
        const { code, message } = cause as NodeJS.ErrnoException;
        if (port === 0 && tries < BIND_TRIES && code === "EADDRINUSE") continue;
        throw new Error(`Cannot listen for nodes on "${host}:${port}": ${message}`, { cause });
      }
    }
  }

  /** Connections that have not yet shown what they are. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Takes other nodes' connections from now on; before, they are closed. */
  serve(takers: PeerTakers): void {
    this.#takers = takers;
  }

  /** Closes the port and every connection that is left. The transport is gossip's to dispose of. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new HandshakeError("closing", "us"));
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #accepted(socket: net.Socket): void {
    const { limits, observe } = this.#options;
    // Stays for good: an error that nobody listens to would end the process, and each shows as a close as well.
    socket.on("error", () => {});
    const place = this.#pending.admit(socket.remoteAddress ?? "");
    if (place === undefined || this.#closing.signal.aborted) {
      place?.[Symbol.dispose]();
      observe?.({ kind: "refused", reason: "limit" });
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    const timer = setTimeout(() => {
      observe?.({ kind: "refused", reason: "silence" });
      socket.destroy();
    }, limits.firstByteMs);
    const ended = () => socket.destroy();
    socket.once("end", ended);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      clearTimeout(timer);
      place[Symbol.dispose]();
    });
    const peek = () => {
      const bytes = socket.read() as Buffer | null;
      if (bytes === null) return void socket.once("readable", peek);
      clearTimeout(timer);
      socket.off("end", ended);
      socket.unshift(bytes);
      if (bytes[0] === TLS_HANDSHAKE) return this.#begin(socket, place);
      place[Symbol.dispose]();
      observe?.({ kind: "stream" });
      this.transport.accept(nodeStream(socket), plainAddress(socket.remoteAddress ?? ""));
    };
    socket.once("readable", peek);
  }

  /** Starts TLS. */
  #begin(socket: net.Socket, place: Disposable): void {
    const { limits, observe } = this.#options;
    const name = endpointsOf(socket);
    const failed = () => {
      clearTimeout(timer);
      if (this.#handshakes.delete(name)) observe?.({ kind: "refused", reason: "tls" });
    };
    const timer = setTimeout(() => socket.destroy(), limits.handshakeMs);
    socket.once("close", failed);
    this.#handshakes.set(name, {
      place,
      startedMs: performance.now(),
      secured: () => {
        socket.off("close", failed);
        clearTimeout(timer);
        this.#handshakes.delete(name);
      },
    });
    this.#tls.emit("connection", socket);
  }

  /** TLS stands; what for, and who is it? */
  #secured(socket: tls.TLSSocket): void {
    const handshake = this.#handshakes.get(endpointsOf(socket));
    socket.on("error", () => {});
    if (handshake === undefined) return void socket.destroy();
    handshake.secured();
    const takers = this.#takers;
    if (takers !== undefined && socket.alpnProtocol === PROTOCOL.calls) {
      this.#prove(socket, { handshake, takers });
    } else {
      this.#options.observe?.({ kind: "refused", reason: takers === undefined ? "closing" : "malformed" });
      socket.destroy();
    }
  }

  /** Both ends prove that they are members. */
  async #prove(
    socket: tls.TLSSocket,
    { handshake, takers }: { handshake: Handshake; takers: PeerTakers },
  ): Promise<void> {
    const { nodeId, keys, certificate, limits, observe, log } = this.#options;
    const spentMs = performance.now() - handshake.startedMs;
    const proved = await proveAsServer(socket, {
      nodeId,
      keys: keys.current(),
      certificate: certificate.der,
      timeoutMs: limits.handshakeMs - spentMs,
      signal: this.#closing.signal,
    }).catch((error) => {
      if (!(error instanceof HandshakeError)) throw error;
      observe?.({ kind: "refused", reason: error.refusal });
      log.debug("a node's connection was refused", { from: socket.remoteAddress, reason: error.refusal });
    });
    if (proved === undefined) return;
    observe?.({ kind: "accepted", ms: performance.now() - handshake.startedMs });
    handshake.place[Symbol.dispose]();
    const host = plainAddress(socket.remoteAddress ?? "");
    takers.calls.take(socket, { nodeId: proved.nodeId, host, key: proved.key });
  }
}

/** A connection between its first byte and the end of TLS. */
interface Handshake {
  /** Held until the proofs are made, or the connection closes. */
  place: Disposable;
  startedMs: number;
  secured(): void;
}

/** An IPv4 address as such where a dual-stack socket has it as IPv6. */
function plainAddress(address: string): string {
  return address.startsWith("::ffff:") && address.includes(".") ? address.slice("::ffff:".length) : address;
}

function listen(server: net.Server, { host, port }: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}
