import { openCLibrary } from "./c_library.ts";

/** Of Linux: address families, and how `shutdown(2)` ends both directions. */
const AF_INET = 2, AF_INET6 = 10, SHUT_RDWR = 2;
/** Room for any socket address. */
const ADDRESS_BYTES = 128;

const NAME = { parameters: ["i32", "buffer", "buffer"], result: "i32" } as const;
const SYMBOLS = {
  getpeername: NAME,
  getsockname: NAME,
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
} as const;

/**
 * Finds the file descriptors of connections, which Deno does not tell, and shuts their sockets down. It asks every
 * descriptor of the process for its peer, in steps: some microseconds each.
 */
export class SocketScan implements Disposable {
  readonly #library = openCLibrary(SYMBOLS);
  readonly #address = new Uint8Array(ADDRESS_BYTES);
  readonly #view = new DataView(this.#address.buffer);
  readonly #length = new Uint8Array(Int32Array.BYTES_PER_ELEMENT);
  #wanted: ReadonlyMap<string, unknown> = new Map();
  #ports: ReadonlySet<number> = new Set();
  #next = 0;
  #end = 0;

  /**
   * Begins to look for these connections, by {@linkcode endpointsOf}. They must be open all the while: then no other socket
   * can have their endpoints, nor their descriptors. Whoever is found is to be taken out of `wanted`.
   */
  begin(wanted: ReadonlyMap<string, Deno.Conn>): void {
    this.#wanted = wanted;
    this.#ports = new Set([...wanted.values()].map(({ remoteAddr }) => (remoteAddr as Deno.NetAddr).port));
    this.#next = 0;
    this.#end = descriptorSlots();
  }

  /** Looks at that many descriptors more. Shuts down and calls `found` for each that is wanted; true when there is nothing left to look at or for. */
  step(descriptors: number, found: (endpoints: string) => void): boolean {
    const { getpeername, getsockname, shutdown } = this.#library.symbols;
    const end = Math.min(this.#end, this.#next + descriptors);
    for (; this.#next < end && this.#wanted.size > 0; this.#next++) {
      const fd = this.#next;
      const peer = this.#name(getpeername, fd);
      if (peer === undefined || !this.#ports.has(peer.port)) continue;
      const host = peer.host();
      const own = this.#name(getsockname, fd);
      if (own === undefined) continue;
      const endpoints = `${host} ${peer.port} ${own.host()} ${own.port}`;
      if (!this.#wanted.has(endpoints)) continue;
      shutdown(fd, SHUT_RDWR);
      found(endpoints);
    }
    return this.#next >= this.#end || this.#wanted.size === 0;
  }

  [Symbol.dispose](): void {
    this.#library.close();
  }

  /** Undefined for what is no connection. The host is read from a buffer that the next call overwrites. */
  #name(
    ask: (fd: number, address: BufferSource, length: BufferSource) => number,
    fd: number,
  ): { port: number; host(): string } | undefined {
    new DataView(this.#length.buffer).setInt32(0, ADDRESS_BYTES, true);
    if (ask(fd, this.#address, this.#length) !== 0) return undefined;
    const family = this.#view.getUint16(0, true);
    const port = this.#view.getUint16(2);
    if (family === AF_INET) return { port, host: () => this.#address.subarray(4, 8).join(".") };
    if (family !== AF_INET6) return undefined;
    const group = (_: unknown, i: number) => this.#view.getUint16(8 + 2 * i).toString(16);
    return { port, host: () => canonical(Array.from({ length: 8 }, group).join(":")) };
  }
}

/** Both ends of a connection: what tells it from all others that are open. */
export function endpointsOf({ remoteAddr, localAddr }: Deno.Conn): string {
  const remote = remoteAddr as Deno.NetAddr, local = localAddr as Deno.NetAddr;
  return `${canonical(remote.hostname)} ${remote.port} ${canonical(local.hostname)} ${local.port}`;
}

/** One spelling for every IPv6 address. */
function canonical(host: string): string {
  return host.includes(":") ? new URL(`http://[${host}]`).hostname : host;
}

/** As many as this process's table of descriptors has; each is smaller than that. */
function descriptorSlots(): number {
  return Number(/^FDSize:\s*(\d+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))?.[1] ?? 0);
}
