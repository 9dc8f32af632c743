import assert from "node:assert/strict";
import { Hono } from "hono";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import type { Bindings } from "./app.ts";
import { listenHttp } from "./server.ts";

/** More than the buffers of two sockets and a pipe hold. */
const AHEAD_BYTES = 32 << 20;
const PIECE = new Uint8Array(64 << 10);

Deno.test("an answer goes out piece by piece, as it comes", async () => {
  let next = Promise.withResolvers<void>();
  const encoder = new TextEncoder();
  const source = async function* () {
    yield encoder.encode("one\n");
    await next.promise;
    yield encoder.encode("two\n");
  };
  for await (const url of served(() => new Response(ReadableStream.from(source())))) {
    next = Promise.withResolvers();
    await using client = new Client(url);
    assert.equal(await client.read(), "one\n");
    next.resolve();
    assert.equal(await client.read(), "two\n");
    assert.equal(await client.read(), undefined);
  }
});

Deno.test("an endless answer waits for its reader, and its source ends when the reader leaves", async () => {
  let [made, read] = [0, 0];
  let isOverrun = false;
  let left = Promise.withResolvers<void>(), aborted = Promise.withResolvers<void>();
  const endless = (signal: AbortSignal) => {
    signal.addEventListener("abort", () => aborted.resolve());
    const pull = (controller: ReadableStreamDefaultController) => {
      made += PIECE.length;
      isOverrun = made - read > AHEAD_BYTES;
      if (isOverrun) controller.error(new Error("nobody waits for the reader"));
      else controller.enqueue(PIECE);
    };
    return new Response(new ReadableStream({ pull, cancel: () => left.resolve() }));
  };
  for await (const url of served(endless)) {
    [made, read, left, aborted] = [0, 0, Promise.withResolvers(), Promise.withResolvers()];
    {
      await using client = new Client(url);
      while (read < 2 * AHEAD_BYTES && !isOverrun) read += (await client.read())?.length ?? 0;
      assert(!isOverrun);
    }
    await Promise.all([left.promise, aborted.promise]);
  }
});

/** Addresses at which that answer is to be had: in the clear, and by TLS. */
async function* served(answer: (signal: AbortSignal) => Response): AsyncGenerator<string> {
  await using undo = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const app = new Hono<{ Bindings: Bindings }>().get("/", (c) => answer(c.env.signal));
  for (const tls of [undefined, await writeCertificate(dir, "n1")]) {
    const address = { host: "127.0.0.1", port: 0 };
    await using listener = await listenHttp(app, { address, tls, log: silentLog });
    yield `${tls ? "https" : "http"}://127.0.0.1:${listener.address.port}/`;
  }
}

/** curl, which reads no further than it is read. */
class Client implements AsyncDisposable {
  readonly #process;
  readonly #output;

  constructor(url: string) {
    const args = ["-s", "-k", "-N", "-m", "60", url];
    this.#process = new Deno.Command("curl", { args, stdout: "piped" }).spawn();
    this.#output = this.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** What comes next; undefined at the end. */
  async read(): Promise<string | undefined> {
    return (await this.#output.read()).value;
  }

  async [Symbol.asyncDispose]() {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#output.cancel();
    await this.#process.status;
  }
}
