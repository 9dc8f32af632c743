import { closeQuietly, writeAll } from "../sink.ts";

/** What stands between two nodes: passes connections on, until it is told to cut them or to pass nothing any more. */
export class TestRelay implements AsyncDisposable {
  readonly port: number;
  /** Connections so far. */
  accepted = 0;
  readonly #listener: Deno.TcpListener;
  readonly #pairs = new Set<Deno.Conn[]>();
  readonly #running = new Set<Promise<void>>();
  #flowing = Promise.withResolvers<void>();

  constructor(private readonly target: { hostname: string; port: number }, hostname = "127.0.0.1") {
    this.#flowing.resolve();
    this.#listener = Deno.listen({ hostname, port: 0 });
    this.port = this.#listener.addr.port;
    this.#running.add(this.#accept());
  }

  /** Connections that stand. */
  get open(): number {
    return this.#pairs.size;
  }

  /** Whatever is sent stays on its way, and who connects hears nothing. */
  stall(): void {
    this.#flowing = Promise.withResolvers();
  }

  /** Closes every connection. */
  cut(): void {
    for (const pair of this.#pairs) pair.forEach(closeQuietly);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    closeQuietly(this.#listener);
    this.#flowing.resolve();
    this.cut();
    await Promise.all(this.#running);
  }

  async #accept(): Promise<void> {
    try {
      for await (const near of this.#listener) {
        this.accepted++;
        this.#running.add(this.#pass(near));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }

  async #pass(near: Deno.Conn): Promise<void> {
    const pair = [near, await Deno.connect(this.target)];
    this.#pairs.add(pair);
    await Promise.all([this.#pump(pair[0], pair[1]), this.#pump(pair[1], pair[0])]);
    pair.forEach(closeQuietly);
    this.#pairs.delete(pair);
  }

  /** The end of one direction ends both. */
  async #pump(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
        await this.#flowing.promise;
        await writeAll(to, buffer.subarray(0, count));
      }
    } catch {
      // One of the nodes, or the test, has ended it.
    }
    closeQuietly(from);
    closeQuietly(to);
  }
}
