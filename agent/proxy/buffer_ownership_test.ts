import assert from "node:assert/strict";
import { BufferPool } from "./buffers.ts";
import { Closer } from "./closer.ts";
import type { WorkerContext } from "./context.ts";
import { Counters } from "./counters.ts";
import { Deadlines } from "./deadlines.ts";
import { HopDialer } from "./hop/dialer.ts";
import { WindowBudget } from "./hop/mux/windows.ts";
import { HopSessions } from "./hop/sessions.ts";
import { StaleRoutes } from "./hop/stale_routes.ts";
import { Http1Connection } from "./http1_connection.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { RouteTable } from "./route_table.ts";
import { Source } from "./source.ts";
import { UpstreamConnection, UpstreamPool } from "./upstream_pool.ts";

/** Knows who owns a buffer, and spoils it for those who do not any more. */
class WatchedPool extends BufferPool {
  readonly #owned = new Set<Uint8Array>();

  override takeSmall(): Uint8Array<ArrayBuffer> {
    return this.#take(super.takeSmall());
  }

  override takeLarge(): Uint8Array<ArrayBuffer> {
    return this.#take(super.takeLarge());
  }

  override give(buffer: Uint8Array<ArrayBuffer>): void {
    assert.ok(this.#owned.delete(buffer), "a buffer is given back by one who does not own it");
    buffer.fill(0xee);
    super.give(buffer);
  }

  #take(buffer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    this.#owned.add(buffer);
    return buffer;
  }
}

/** One end of a connection: reads and writes wait until told, and reject when it is closed, as Deno's do. */
class FakeConn {
  written = "";
  readonly #reads: { into: Uint8Array; result: PromiseWithResolvers<number | null> }[] = [];
  readonly #writes: PromiseWithResolvers<number>[] = [];
  #arrived: (string | Error)[] = [];
  /** Writes are held back until they are let go. */
  holdsWrites = false;
  isClosed = false;

  read(into: Uint8Array): Promise<number | null> {
    const result = Promise.withResolvers<number | null>();
    this.#reads.push({ into, result });
    this.#serve();
    return result.promise;
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.isClosed) return Promise.reject(new Deno.errors.BadResource("closed"));
    const result = Promise.withResolvers<number>();
    this.written += new TextDecoder("latin1").decode(bytes);
    if (this.holdsWrites) this.#writes.push(result);
    else result.resolve(bytes.length);
    return result.promise;
  }

  closeWrite(): Promise<void> {
    return this.isClosed ? Promise.reject(new Deno.errors.BadResource("closed")) : Promise.resolve();
  }

  close(): void {
    this.isClosed = true;
    for (const write of this.#writes) write.reject(new Deno.errors.Interrupted("closed"));
    this.#serve();
  }

  arrives(what: string | Error): void {
    this.#arrived.push(what);
    this.#serve();
  }

  #serve(): void {
    while (this.#reads.length > 0 && (this.isClosed || this.#arrived.length > 0)) {
      const { into, result } = this.#reads.shift()!;
      if (this.isClosed) {
        result.reject(new Deno.errors.BadResource("closed"));
        continue;
      }
      const what = this.#arrived.shift()!;
      if (what instanceof Error) {
        result.reject(what);
        continue;
      }
      const bytes = Uint8Array.from(what, (char) => char.charCodeAt(0));
      into.set(bytes);
      result.resolve(bytes.length);
    }
  }
}

interface Relay extends Disposable {
  client: FakeConn;
  upstream: FakeConn;
  ended: Promise<void>;
}

/** A client's connection and the one that its requests go to. */
function relay(): Relay {
  const buffers = new WatchedPool();
  const limits = DEFAULT_LIMITS;
  const now = () => 0;
  const deadlines = new Deadlines({ sweepMs: 1_000_000, now });
  const client = new FakeConn(), upstream = new FakeConn();
  class FakeUpstreams extends UpstreamPool {
    override connect(): Promise<UpstreamConnection> {
      const target = { idle: [], open: 1, retired: false };
      const conn = upstream as unknown as Deno.Conn;
      return Promise.resolve(new UpstreamConnection(conn, target, this, buffers));
    }
  }
  const counters = new Counters();
  const dialer = new HopDialer(), budget = new WindowBudget();
  const hops = new HopSessions({ dialer, limits, buffers, deadlines, budget, now });
  const context: WorkerContext = {
    limits,
    buffers,
    deadlines,
    counters,
    closer: new Closer({ deadlines, limits, counters }),
    upstreams: new FakeUpstreams({ limits, buffers, deadlines, hops }),
    stale: new StaleRoutes({ waitMs: 0, maxWaits: 0, now, report: () => {} }),
    routes: new RouteTable([{
      id: "app",
      aliases: [],
      hostPort: 80,
      upstream: { kind: "tcp", hostname: "a", port: 1 },
    }]),
    now,
  };
  const conn = client as unknown as Deno.Conn;
  const connection = new Http1Connection(conn, new Source(conn, buffers), {
    context,
    client: { address: "127.0.0.1", hostPort: 80, secure: true },
  });
  return { client, upstream, ended: connection.run(), [Symbol.dispose]: () => deadlines.stop() };
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await undefined;
}

/** Until all that can go on has gone on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

const GET = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";
const GONE = new Deno.errors.UnexpectedEof("gone");

for (let delay = 0; delay < 16; delay++) {
  Deno.test(`a client that vanishes ${delay} promises after the answer's head came leaves no buffer in two hands`, async () => {
    using relayed = relay();
    const { client, upstream, ended } = relayed;
    client.arrives(GET);
    await settled();
    upstream.arrives("HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc");
    await turns(delay);
    client.arrives(GONE);
    await ended;
    await settled();
    assert.match(client.written, /^$|^HTTP\/1\.1 200 OK\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc$/);
  });
}

Deno.test("what is on its way to a client that vanishes is not another's yet", async () => {
  using relayed = relay();
  const { client, upstream, ended } = relayed;
  client.arrives(GET);
  await settled();
  client.holdsWrites = true;
  upstream.arrives(`HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n${"x".repeat(20_000)}`);
  await settled();
  client.arrives(GONE);
  await ended;
  await settled();
  assert.equal(upstream.isClosed, true);
});

Deno.test("what is on its way to a workload when its client vanishes is not another's yet", async () => {
  using relayed = relay();
  const { client, upstream, ended } = relayed;
  upstream.holdsWrites = true;
  client.arrives(`POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100000\r\n\r\n${"x".repeat(20_000)}`);
  await settled();
  upstream.arrives("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
  await settled();
  client.close();
  upstream.close();
  await ended;
  await settled();
});
