import { LIMITS } from "../codec/limits.ts";
import type { Endpoint } from "../endpoint.ts";
import { KnownSources } from "./known_sources.ts";
import type { ByteStream, Transport, TransportHandler } from "./transport.ts";

/** Packets waiting to be sent; more are dropped. */
export const MAX_SEND_QUEUE = 8_192;
/** Tries to find a port that is free for both UDP and TCP. */
const BIND_TRIES = 16;

/** Where and how to bind. */
export interface SocketTransportOptions {
  /** IP address; `0.0.0.0` and `::` mean all. */
  host: string;
  /** 0 means any that is free for both UDP and TCP. */
  port: number;
  /** False where another listener owns the TCP port and hands streams over by {@linkcode SocketTransport.accept}. */
  listenStreams?: boolean;
}

/** UDP and TCP on one port, by `Deno.listenDatagram` and `Deno.listen`. */
export class SocketTransport implements Transport {
  readonly local: { host: string; port: number };
  readonly #udp: Deno.DatagramConn;
  readonly #tcp: Deno.TcpListener | undefined;
  readonly #isV6: boolean;
  readonly #queue: { to: Endpoint; packet: Uint8Array }[] = [];
  readonly #sources = new KnownSources();
  #handler: TransportHandler | undefined;
  #loops: Promise<void>[] = [];
  #sending = false;
  #closed = false;
  /** Packets lost on this side: the queue was full, or the system refused them. */
  dropped = 0;

  private constructor(sockets: { udp: Deno.DatagramConn; tcp: Deno.TcpListener | undefined }) {
    this.#udp = sockets.udp;
    this.#tcp = sockets.tcp;
    const { hostname, port } = sockets.udp.addr as Deno.NetAddr;
    this.local = { host: hostname, port };
    this.#isV6 = hostname.includes(":");
  }

  /** Binds. Throws an Error that names the address where it is taken. */
  static bind(options: SocketTransportOptions): SocketTransport {
    const { host, port, listenStreams = true } = options;
    for (let tries = 1;; tries++) {
      let udp: Deno.DatagramConn | undefined;
      try {
        udp = Deno.listenDatagram({ transport: "udp", hostname: host, port });
        const { port: bound } = udp.addr as Deno.NetAddr;
        const tcp = listenStreams ? Deno.listen({ hostname: host, port: bound }) : undefined;
        return new SocketTransport({ udp, tcp });
      } catch (cause) {
        udp?.close();
        if (port === 0 && tries < BIND_TRIES && cause instanceof Deno.errors.AddrInUse) continue;
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new Error(`Cannot listen for gossip on "${host}:${port}": ${reason}`, { cause });
      }
    }
  }

  start(handler: TransportHandler): void {
    this.#handler = handler;
    this.#loops = [this.#receiveLoop(), this.#acceptLoop()];
  }

  /** Hands over a stream that another listener on the port accepted, from that IP address. */
  accept(stream: ByteStream, address: string): void {
    if (this.#handler === undefined || this.#closed) stream.close();
    else this.#handler.stream(stream, address);
  }

  send(to: Endpoint, packet: Uint8Array): void {
    if (this.#closed || this.#queue.length >= MAX_SEND_QUEUE) {
      this.dropped++;
      return;
    }
    this.#queue.push({ to, packet });
    if (!this.#sending) this.#loops[2] = this.#sendLoop();
  }

  async dial(to: Endpoint, signal: AbortSignal): Promise<ByteStream> {
    const conn = await Deno.connect({ hostname: to.host, port: to.port, signal });
    conn.setNoDelay(true);
    return conn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#udp.close();
    this.#tcp?.close();
    await Promise.all(this.#loops);
  }

  async #sendLoop(): Promise<void> {
    this.#sending = true;
    let next = 0;
    while (next < this.#queue.length && !this.#closed) {
      const { to, packet } = this.#queue[next++];
      if (next === MAX_SEND_QUEUE / 2) {
        this.#queue.splice(0, next);
        next = 0;
      }
      try {
        await this.#udp.send(packet, { transport: "udp", hostname: this.#hostFor(to), port: to.port });
      } catch {
        // UDP promises nothing: an unreachable peer shows by its silence.
        this.dropped++;
      }
    }
    this.#queue.length = 0;
    this.#sending = false;
  }

  #hostFor(to: Endpoint): string {
    return this.#isV6 && !to.host.includes(":") ? `::ffff:${to.host}` : to.host;
  }

  async #receiveLoop(): Promise<void> {
    const buffer = new Uint8Array(LIMITS.packetBytes);
    while (!this.#closed) {
      try {
        const [packet, from] = await this.#udp.receive(buffer);
        const { hostname, port } = from as Deno.NetAddr;
        const source = this.#sources.endpoint(hostname, port);
        if (source !== undefined) this.#handler?.packet(source, packet.slice());
      } catch (error) {
        if (this.#closed) return;
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
        // An ICMP error of an earlier send may show here; the socket is fine.
        if (!isSystemError(error)) throw error;
        this.dropped++;
      }
    }
  }

  async #acceptLoop(): Promise<void> {
    if (this.#tcp === undefined) return;
    while (!this.#closed) {
      try {
        const conn = await this.#tcp.accept();
        this.accept(conn, (conn.remoteAddr as Deno.NetAddr).hostname);
      } catch (error) {
        if (this.#closed) return;
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
        if (!isSystemError(error)) throw error;
        this.dropped++;
      }
    }
  }
}

/** Whether the operating system refused something, as opposed to a bug of ours. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && ("code" in error || error.name in Deno.errors);
}
