import assert from "node:assert/strict";
import { freePort } from "../../tests/support/free_port.ts";
import type { Proxy, ProxyOptions, Route } from "./mod.ts";
import { openProxy } from "./mod.ts";
import { writeAll } from "./sink.ts";

/** In `/proc/net/tcp`. */
const LISTENING = "0A";

/** A log that keeps what was logged. */
export function recordingLog() {
  const lines: string[] = [];
  const add = (message: string, fields?: Record<string, unknown>) =>
    void lines.push(`${message} ${JSON.stringify(fields ?? {})}`);
  return { lines, debug: add, info: add, warn: add, error: add };
}

/** A connection with reads that wait for what is expected. */
export class RawConnection implements Disposable {
  text = "";
  ended = false;
  constructor(readonly conn: Deno.Conn) {}

  static async open(port: number, hostname = "127.0.0.1"): Promise<RawConnection> {
    return new RawConnection(await Deno.connect({ hostname, port }));
  }

  async send(text: string): Promise<void> {
    await writeAll(this.conn, Uint8Array.from(text, (char) => char.charCodeAt(0)));
  }

  /** Reads until the text so far matches, and returns all of it up to the match's end. */
  async until(pattern: RegExp): Promise<string> {
    for (;;) {
      const match = pattern.exec(this.text);
      if (match) {
        const end = match.index + match[0].length;
        const taken = this.text.slice(0, end);
        this.text = this.text.slice(end);
        return taken;
      }
      assert.ok(
        await this.readOnce(),
        `the connection ended before ${pattern}: ${JSON.stringify(this.text)}`,
      );
    }
  }

  /** Reads to the end of the stream; a reset counts as an end. */
  async rest(): Promise<string> {
    while (await this.readOnce());
    return this.text;
  }

  /** Reads once; false at the end of the stream. */
  async readOnce(): Promise<boolean> {
    const buffer = new Uint8Array(65536);
    try {
      const count = await this.conn.read(buffer);
      if (count === null) return false;
      for (let i = 0; i < count; i++) this.text += String.fromCharCode(buffer[i]);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.ConnectionReset) return false;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    try {
      this.conn.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }
}

/** An upstream that does with each connection what it is told. */
export class TestUpstream implements AsyncDisposable {
  readonly port: number;
  accepted = 0;
  readonly #listener: Deno.TcpListener;
  readonly #connections = new Set<RawConnection>();
  readonly #running = new Set<Promise<void>>();

  constructor(serve: (connection: RawConnection, index: number) => Promise<void>, hostname = "127.0.0.1") {
    this.#listener = Deno.listen({ hostname, port: 0 });
    this.port = this.#listener.addr.port;
    const accept = async () => {
      for await (const conn of this.#listener) {
        const connection = new RawConnection(conn);
        this.#connections.add(connection);
        const run = serve(connection, this.accepted++).catch(() => {}).finally(() => {
          connection[Symbol.dispose]();
          this.#connections.delete(connection);
        });
        this.#running.add(run);
      }
    };
    this.#running.add(accept());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#connections) connection[Symbol.dispose]();
    await Promise.all(this.#running);
  }
}

/** Answers each request of a connection with its own head, and its body when it has a Content-Length. */
export async function echo(connection: RawConnection): Promise<void> {
  for (;;) {
    const head = await connection.until(/\r\n\r\n/);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    const body = await connection.until(new RegExp(`^[^]{${length}}`));
    const text = head + body;
    await connection.send(
      `HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${/^HEAD /.test(head) ? "" : text}`,
    );
  }
}

export interface TestProxy extends AsyncDisposable {
  proxy: Proxy;
  port: number;
  log: ReturnType<typeof recordingLog>;
}

/** A proxy whose workload `app` is that upstream. */
export async function proxyTo(
  upstream: { port: number } | undefined,
  options: Partial<ProxyOptions> = {},
): Promise<TestProxy> {
  const log = recordingLog();
  const proxy = await openProxy({ bindHosts: ["127.0.0.1"], workers: 1, log, ...options });
  const port = freePort();
  assert.deepEqual(await proxy.apply(upstream ? [appRoute(port, upstream.port)] : []), []);
  return { proxy, port, log, [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose]() };
}

export function appRoute(hostPort: number, port: number, hostname = "127.0.0.1"): Route {
  return { id: "app", aliases: ["web"], hostPort, upstream: { kind: "tcp", hostname, port } };
}

/** Sends raw bytes on a fresh connection, ends the sending half when asked, and returns everything that comes back. */
export async function exchangeRaw(port: number, text: string): Promise<string> {
  using client = await RawConnection.open(port);
  await client.send(text);
  return await client.rest();
}

/**
 * This process's descriptors of connections with that port: of those accepted on it, and of those opened to it. Other tests
 * may run in the process meanwhile.
 */
export function socketsOf(port: number): { accepted: number[]; opened: number[] } {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const local = new Set<string>(), remote = new Set<string>();
  for (const file of ["/proc/self/net/tcp", "/proc/self/net/tcp6"]) {
    for (const line of Deno.readTextFileSync(file).split("\n").slice(1)) {
      const [, own, peer, state, , , , , , inode] = line.trim().split(/\s+/);
      if (state === LISTENING) continue;
      if (own?.endsWith(suffix)) local.add(inode);
      if (peer?.endsWith(suffix)) remote.add(inode);
    }
  }
  const accepted: number[] = [], opened: number[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const inode = inodeOf(name);
    if (inode !== undefined && local.has(inode)) accepted.push(Number(name));
    if (inode !== undefined && remote.has(inode)) opened.push(Number(name));
  }
  return { accepted, opened };
}

function inodeOf(fd: string): string | undefined {
  try {
    return /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/self/fd/${fd}`))?.[1];
  } catch {
    return undefined; // closed meanwhile
  }
}
