import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
// @ts-types="@types/ws"
import { WebSocket, WebSocketServer } from "ws";
import { writeCertificate } from "../test_certificate.ts";
import { pair } from "./test_node.ts";

/** A workload that speaks WebSocket behind the node of a hop, the front by HTTP or HTTPS. */
class Scene implements AsyncDisposable {
  private constructor(
    private readonly server: WebSocketServer,
    private readonly url: string,
    private readonly ca: string | undefined,
    private readonly owned: AsyncDisposableStack,
  ) {}

  static async open(scheme: "ws" | "wss"): Promise<Scene> {
    await using stack = new AsyncDisposableStack();
    const server = new WebSocketServer({
      host: "127.0.0.1",
      port: 0,
      handleProtocols: (protocols) => protocols.has("chat") ? "chat" : false,
      perMessageDeflate: true,
      verifyClient: ({ req }, done) => done(req.url !== "/closed", 401, "not today", { "X-Why": "closed" }),
    });
    await once(server, "listening");
    stack.defer(() => {
      for (const client of server.clients) client.terminate();
      server.close();
    });
    const dir = await Deno.makeTempDir();
    stack.defer(() => Deno.remove(dir, { recursive: true }));
    const certificate = await writeCertificate(dir, "front");
    const nodes = stack.use(
      await pair(
        { port: (server.address() as AddressInfo).port },
        scheme === "wss" ? { tls: certificate } : {},
      ),
    );
    const ca = scheme === "wss" ? await Deno.readTextFile(certificate.certFile) : undefined;
    return new Scene(server, `${scheme}://127.0.0.1:${nodes.port}`, ca, stack.move());
  }

  /** A client on its way, through both proxies. */
  dial(path = "/"): WebSocket {
    const socket = new WebSocket(this.url + path, ["other", "chat"], {
      headers: { Host: "app.test" },
      ...(this.ca !== undefined && { ca: this.ca, servername: "localhost" }),
    });
    this.owned.defer(() => socket.terminate());
    return socket;
  }

  /** Both ends of a connection, and the request as the workload saw it. */
  async connect(): Promise<{ client: WebSocket; workload: WebSocket; request: IncomingMessage }> {
    const connected = once(this.server, "connection");
    const client = this.dial();
    await once(client, "open");
    const [workload, request] = await connected;
    return { client, workload, request };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.owned.disposeAsync();
  }
}

/** The next message, as text or bytes. */
async function message(socket: WebSocket): Promise<string | Uint8Array> {
  const [data, isBinary] = await once(socket, "message");
  return isBinary ? new Uint8Array(data) : String(data);
}

for (const scheme of ["ws", "wss"] as const) {
  Deno.test(`frames of a WebSocket take a hop as they are, ${scheme} in front: text, binary, fragments, ping and pong`, async () => {
    await using scene = await Scene.open(scheme);
    const { client, workload, request } = await scene.connect();
    assert.equal(client.protocol, "chat");
    assert.match(client.extensions, /permessage-deflate/);
    assert.equal(request.headers.host, "app.test");
    assert.equal(request.headers["x-forwarded-proto"], scheme === "wss" ? "https" : "http");
    for (const [from, to] of [[client, workload], [workload, client]]) {
      for (const text of ["hello", "", "ünïcödé ☃", "x".repeat(300_000)]) {
        const received = message(to);
        from.send(text);
        assert.equal(await received, text);
      }
      const bytes = crypto.getRandomValues(new Uint8Array(65_536));
      const binary = message(to);
      from.send(bytes);
      assert.deepEqual(await binary, bytes);

      // A ping between the fragments of a message is answered before it is whole.
      const whole = message(to);
      const pinged = once(to, "ping"), ponged = once(from, "pong");
      from.send("one ", { fin: false });
      from.ping("are you there?");
      assert.equal(String((await pinged)[0]), "are you there?");
      assert.equal(String((await ponged)[0]), "are you there?");
      from.send("two ", { fin: false });
      from.send("three", { fin: true });
      assert.equal(await whole, "one two three");
    }
  });

  Deno.test(`the end of a WebSocket takes a hop both ways, ${scheme} in front: close codes, and none where one end just goes`, async () => {
    await using scene = await Scene.open(scheme);
    for (const isClients of [true, false]) {
      const ends = async (end: (socket: WebSocket) => void) => {
        const { client, workload } = await scene.connect();
        const [ending, other] = isClients ? [client, workload] : [workload, client];
        const closed = Promise.all([once(ending, "close"), once(other, "close")]);
        end(ending);
        return (await closed).map(([code, reason]) => `${code} ${reason}`);
      };
      assert.deepEqual(await ends((socket) => socket.close(4001, "moved on")), [
        "4001 moved on",
        "4001 moved on",
      ]);
      assert.deepEqual(await ends((socket) => socket.close()), ["1005 ", "1005 "]);
      assert.deepEqual(await ends((socket) => socket.terminate()), ["1006 ", "1006 "]);
    }
  });

  Deno.test(`a workload that refuses a WebSocket is heard through a hop, ${scheme} in front`, async () => {
    await using scene = await Scene.open(scheme);
    const client = scene.dial("/closed");
    client.on("error", () => {}); // of a connection that never came to be
    const [, answer] = await once(client, "unexpected-response");
    assert.deepEqual([answer.statusCode, answer.headers["x-why"]], [401, "closed"]);
    answer.resume();
    await once(answer, "end");
  });
}
