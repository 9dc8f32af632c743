import assert from "node:assert/strict";
import net from "node:net";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { type Http2Call, Http2Link, requestOver } from "../../runtime/http2_link.ts";
import { WholeStreams } from "./whole_streams.ts";

type SessionManager = NonNullable<Parameters<typeof createGrpcTransport>[0]["sessionManager"]>;

const READS = 10;
/** A reader that is busy this long after each message sees the end of the stream late, milliseconds. */
const BUSY_MS = 40;

/** A server in a process of its own: in one process with its client the end does not come while the client is busy. */
async function startServer() {
  const program = new URL("testing/quick_server.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", program],
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value = "" } = await lines.read();
  return {
    port: Number(value),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
      await lines.cancel();
    },
  };
}

async function readSlowly(url: string, sessionManager: SessionManager): Promise<number> {
  const client = createClient(WorkloadService, createGrpcTransport({ baseUrl: url, sessionManager }));
  let messages = 0;
  for await (const _ of client.streamLogs({ id: "x" })) {
    messages++;
    await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
  }
  return messages;
}

Deno.test("a stream that ends while its reader is busy is read to its end, by clients and over a link", async () => {
  await using server = await startServer();
  const url = `http://127.0.0.1:${server.port}`;
  for (let i = 0; i < READS; i++) {
    const streams = new WholeStreams(url);
    assert.equal(await readSlowly(url, streams), 4);
    streams.abort();

    const link = await Http2Link.connect(url, () => net.connect(server.port, "127.0.0.1"));
    const over = {
      authority: url,
      request: (...call: Http2Call) => requestOver(() => Promise.resolve(link), call),
      notifyResponseByteRead() {},
    };
    assert.equal(await readSlowly(url, over), 4);
    link.destroy();
  }
});
