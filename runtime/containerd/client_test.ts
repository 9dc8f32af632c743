import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { ContainerdClient, NO_TIMEOUT } from "./client.ts";

/** Longer than anything here takes; what never ends fails by it. */
const DEADLINE_MS = 60_000;

/** HTTP/2 frames: a server's empty settings; "go away" that names no stream as done. */
const SETTINGS = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GO_AWAY = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/** The beginning of an answer on stream 1: `:status: 200` and `content-type: application/grpc`. */
const ANSWER = [
  ...[0, 0, 20, 1, 4, 0, 0, 0, 1, 0x88, 0x0f, 0x10, 16],
  ...new TextEncoder().encode("application/grpc"),
];

/** What a containerd that is killed does with a connection. */
type Death = (connection: Deno.Conn) => Promise<void> | void;

const read = (connection: Deno.Conn) => connection.read(new Uint8Array(65_536));
const write = (connection: Deno.Conn, bytes: number[]) => connection.write(new Uint8Array(bytes));

const DEATHS: Record<string, Death> = {
  "at once": () => {},
  "in the middle of the greeting": async (connection) => {
    await connection.read(new Uint8Array(1));
  },
  "after its own greeting": async (connection) => {
    await write(connection, SETTINGS);
  },
  "when it has read the request": async (connection) => {
    await read(connection);
    await write(connection, SETTINGS);
    await read(connection);
  },
  "after it has asked for the end": async (connection) => {
    await read(connection);
    await write(connection, [...SETTINGS, ...GO_AWAY]);
    await read(connection);
  },
  "in the middle of the answer": async (connection) => {
    await read(connection);
    await write(connection, SETTINGS);
    await read(connection);
    await write(connection, ANSWER);
  },
};

/** A socket at which somebody dies with every connection, until disposed. */
function dying(path: string, death: Death): AsyncDisposable {
  const listener = Deno.listen({ transport: "unix", path });
  const serving = (async () => {
    for await (const connection of listener) {
      try {
        await death(connection);
      } catch {
        // The client was faster to close it.
      }
      connection.close();
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      listener.close();
      await serving;
    },
  };
}

async function failure(call: Promise<unknown>): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const timer = setTimeout(() => resolve("it never ended"), DEADLINE_MS);
  const outcome = call.then(() => "no failure", (error) => {
    return error instanceof RuntimeError ? error.code : String(error);
  });
  try {
    return await Promise.race([outcome, promise]);
  } finally {
    clearTimeout(timer);
  }
}

for (const [when, death] of Object.entries(DEATHS)) {
  Deno.test(`a call without a deadline fails when containerd dies ${when}, and so does the next`, async () => {
    const dir = await Deno.makeTempDir();
    try {
      const socket = `${dir}/s`;
      await using _server = dying(socket, death);
      await using client = new ContainerdClient({ socket, namespace: "n", timeoutMs: NO_TIMEOUT });
      for (let round = 0; round < 3; round++) {
        assert.equal(await failure(client.tasks.wait({ containerId: "c" })), "unavailable");
      }
      const calls = Array.from({ length: 20 }, () => failure(client.version.version({})));
      assert.deepEqual(new Set(await Promise.all(calls)), new Set(["unavailable"]));
      const events = (async () => {
        for await (const _ of client.events.subscribe({}));
      })();
      assert.equal(await failure(events), "unavailable");
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}

Deno.test("a call to a containerd that says nothing ends with its time, its signal, or the client", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const socket = `${dir}/s`;
    const listener = Deno.listen({ transport: "unix", path: socket });
    const client = new ContainerdClient({ socket, namespace: "n" });
    assert.equal(await failure(client.version.version({}, { timeoutMs: 20 })), "timeout");
    const abort = new AbortController();
    const wait = () =>
      client.tasks.wait({ containerId: "c" }, { timeoutMs: NO_TIMEOUT, signal: abort.signal });
    const canceled = failure(wait());
    abort.abort();
    assert.equal(await canceled, "canceled");
    assert.equal(await failure(wait()), "canceled");
    const cutOff = failure(client.tasks.wait({ containerId: "c" }, { timeoutMs: NO_TIMEOUT }));
    assert.equal(await failure(client.version.version({}, { timeoutMs: 20 })), "timeout");
    await client[Symbol.asyncDispose]();
    assert.equal(await cutOff, "unavailable");
    assert.equal(await failure(client.version.version({})), "unavailable");
    listener.close();
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
