import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { IncomingMessage, ServerResponse } from "node:http";
import http2 from "node:http2";
import net from "node:net";
import tls from "node:tls";
import { silentLog } from "../../runtime/log.ts";
import { writeCertificate } from "../proxy/test_certificate.ts";
import {
  type ApiListener,
  type ApiListenerOptions,
  IDLE_TIMEOUT_MS,
  listenApi,
  MAX_CONCURRENT_STREAMS,
  MAX_CONNECTIONS,
  MAX_HEADER_BYTES,
} from "./listener.ts";

const ROUNDS = 20;
const BODY = '{"text":"hello"}';
const BIG = `{"text":"${"a".repeat(200_000)}"}`;

/** Pieces that a client writes; a number is a pause in milliseconds between them. */
const VARIANTS: Record<string, (string | number)[]> = {
  "head and body at once": [head(BODY) + BODY],
  "head, then body": [head(BODY), BODY],
  "head, and the body later": [head(BODY), 10, BODY],
  "a first byte that HTTP/2 begins with too": [head(BODY).slice(0, 1), 5, head(BODY).slice(1) + BODY],
  "nine bytes at a time": (head(BODY) + BODY).match(/[^]{1,9}/g)!,
  "one byte at a time, slowly": [...head(BODY).slice(0, 5)].flatMap((byte) => [byte, 1]).concat(
    head(BODY).slice(5) + BODY,
  ),
  "200 KB": [head(BIG), BIG],
};
/** How TLS begins. */
const HALF_HELLO = Uint8Array.from([22, 3, 1, 2, 0]);

Deno.test("an HTTP/1.1 client loses no request to a connection that ends behind an answer", async () => {
  await using api = await listen();
  for (let i = 0; i < 50; i++) {
    const response = await fetch(`http://127.0.0.1:${api.address.port}/`, { method: "POST", body: "1234" });
    assert.equal(response.headers.get("connection"), "close");
    assert.equal(await response.text(), "4");
  }
});

Deno.test("one port in the clear takes HTTP/1.1 in any pieces, and HTTP/2", async (t) => {
  await using listener = await listen();
  const { port } = listener.address;
  for (const [name, pieces] of Object.entries(VARIANTS)) {
    await t.step(name, async () => {
      const length = name === "200 KB" ? BIG.length : BODY.length;
      for (let round = 0; round < ROUNDS; round++) {
        assert.equal(await http1(net.connect(port, "127.0.0.1"), pieces), `200 ${length}`);
      }
    });
  }
  await t.step("HTTP/2", async () => {
    for (let round = 0; round < ROUNDS; round++) {
      assert.equal(
        await http2Call(`http://127.0.0.1:${port}`, round % 2 ? BIG : BODY),
        `200 ${(round % 2 ? BIG : BODY).length}`,
      );
    }
  });
  await t.step("an HTTP/2 preface in pieces", async () => {
    for (const cut of [1, 2, 3, 10, 23]) {
      const connect = () => {
        const socket = net.connect(port, "127.0.0.1");
        const write = socket.write.bind(socket);
        let isFirst = true;
        // deno-lint-ignore no-explicit-any
        (socket as any).write = (data: Buffer, ...rest: any[]) => {
          if (!isFirst) return (write as (...args: unknown[]) => boolean)(data, ...rest);
          isFirst = false;
          write(Buffer.from(data).subarray(0, cut));
          return (write as (...args: unknown[]) => boolean)(Buffer.from(data).subarray(cut), ...rest);
        };
        return socket;
      };
      assert.equal(
        await http2Call(`http://127.0.0.1:${port}`, BODY, { createConnection: connect }),
        `200 ${BODY.length}`,
      );
    }
  });
  await t.step("both at the same time", async () => {
    const calls = Array.from(
      { length: 30 },
      (_, n) =>
        n % 2
          ? http2Call(`http://127.0.0.1:${port}`, BIG)
          : http1(net.connect(port, "127.0.0.1"), VARIANTS["200 KB"]),
    );
    assert.deepEqual(new Set(await Promise.all(calls)), new Set([`200 ${BIG.length}`]));
  });
});

Deno.test("one TLS port takes HTTP/1.1 in any pieces, and HTTP/2", async (t) => {
  const dir = await Deno.makeTempDir();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const files = await writeCertificate(dir, "localhost");
  await using listener = await listen(files);
  const { port } = listener.address;
  const ca = await Deno.readTextFile(files.certFile);
  for (const [name, pieces] of Object.entries(VARIANTS)) {
    await t.step(name, async () => {
      const length = name === "200 KB" ? BIG.length : BODY.length;
      for (let round = 0; round < 5; round++) {
        const socket = tls.connect({
          host: "127.0.0.1",
          port,
          ca,
          servername: "localhost",
          ALPNProtocols: ["http/1.1"],
        });
        assert.equal(await http1(socket, pieces), `200 ${length}`);
      }
    });
  }
  await t.step("HTTP/2", async () => {
    for (let round = 0; round < 5; round++) {
      const options = { ca, servername: "localhost" };
      assert.equal(await http2Call(`https://localhost:${port}`, BIG, options), `200 ${BIG.length}`);
    }
  });
  await t.step("plain HTTP is not answered", async () => {
    assert.equal(await http1(net.connect(port, "127.0.0.1"), [head(BODY), BODY]), "");
  });
});

Deno.test("a new certificate is served to new connections, and a broken one is not", async () => {
  const dir = await Deno.makeTempDir();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  await using listener = await listen(await writeCertificate(dir, "first"));
  const served = () =>
    new Promise<unknown>((resolve, reject) => {
      const { port } = listener.address;
      let name: unknown;
      const socket = tls.connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
        name = socket.getPeerCertificate().subject.CN;
        socket.destroy();
      });
      socket.on("error", reject);
      socket.once("close", () => name === undefined ? reject(new Error("closed too early")) : resolve(name));
    });
  assert.equal(await served(), "first");
  await writeCertificate(dir, "second");
  while (await served().catch(String) !== "second"); // the old server may drop what it has just accepted
  await Deno.writeTextFile(`${dir}/cert.pem`, "broken");
  for (let round = 0; round < 5; round++) assert.equal(await served(), "second");
  await writeCertificate(dir, "third");
  while (await served().catch(String) !== "third");
});

Deno.test("noise, a head that is too large and a client that leaves harm nobody else", async () => {
  await using listener = await listen();
  const { port } = listener.address;
  const connect = () => net.connect(port, "127.0.0.1");
  assert.equal(await http1(connect(), ["\x16\x03\x01\x00\xff", "\0".repeat(300)]), "");
  assert.equal(await http1(connect(), ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + "\0".repeat(300)]), "");
  const large = `GET / HTTP/1.1\r\nHost: x\r\nX-Large: ${"x".repeat(MAX_HEADER_BYTES)}\r\n\r\n`;
  assert.match(await http1(connect(), [large]), /^(431 |)/);
  const leaving = connect();
  await new Promise<void>((resolve) => leaving.write("P", () => resolve()));
  leaving.destroy();
  assert.equal(await http1(connect(), [head(BODY), BODY]), `200 ${BODY.length}`);
});

Deno.test("rule 8: of more connections than the limit one without an accepted call gives way; if there is none, the next is closed", async () => {
  let refused = 0, begun = 0;
  let full = Promise.withResolvers<void>();
  const handler = (request: IncomingMessage, response: ServerResponse, accepted: () => void) => {
    if (request.headers["x-may"]) accepted();
    if (++begun === MAX_CONNECTIONS) full.resolve();
    echo(request, response);
  };
  // None of them is closed for its silence meanwhile, however slow the machine.
  const options = { headTimeoutMs: IDLE_TIMEOUT_MS, onRefused: () => void refused++ };
  await using listener = await listen(undefined, handler, options);
  const { port } = listener.address;
  const sockets: net.Socket[] = [];
  const call = () => http1(net.connect(port, "127.0.0.1"), [head(BODY), BODY]);
  const fill = async (field: string) => {
    [begun, full] = [0, Promise.withResolvers()];
    for (let n = 0; n < MAX_CONNECTIONS; n++) {
      const socket = await connected(port);
      socket.on("error", () => {}); // it may be reset as it gives way
      socket.write(head(BODY).replace("\r\n\r\n", `\r\n${field}\r\n\r\n`));
      sockets.push(socket);
    }
    await full.promise;
  };
  try {
    await fill("X-Nobody: 1");
    assert.equal(refused, 0);
    assert.equal(await call(), `200 ${BODY.length}`);
    assert.equal(refused, 1);
    await fill("X-May: 1");
    const others = refused;
    assert.ok(others <= MAX_CONNECTIONS + 1 && others >= MAX_CONNECTIONS, `${others}`);
    for (let n = 1; n < 4; n++) {
      assert.equal(await call(), "");
      assert.equal(refused, others + n);
    }
    for (const socket of sockets.splice(-8)) await closed(socket);
    let answer = "";
    // The server sees the room when it sees the ends of those connections.
    while (answer === "") answer = await call();
    assert.equal(answer, `200 ${BODY.length}`);
  } finally {
    await Promise.all(sockets.map(closed));
  }
});

Deno.test("an HTTP/2 connection has no more calls at once than the limit", async () => {
  let [open, most] = [0, 0];
  const full = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  await using listener = await listen(undefined, async (_request, response) => {
    most = Math.max(most, ++open);
    if (open === MAX_CONCURRENT_STREAMS) full.resolve();
    await gate.promise;
    open--;
    response.end("ok");
  });
  const client = http2.connect(`http://127.0.0.1:${listener.address.port}`);
  await new Promise((resolve) => client.once("remoteSettings", resolve));
  assert.equal(client.remoteSettings.maxConcurrentStreams, MAX_CONCURRENT_STREAMS);
  const calls = Array.from({ length: MAX_CONCURRENT_STREAMS + 20 }, () => statusOf(client, ""));
  await full.promise;
  gate.resolve();
  const answers = await Promise.all(calls);
  // What goes beyond is refused by stream, or waits at the client: never served at the same time.
  assert(answers.filter((answer) => answer.startsWith("200")).length >= MAX_CONCURRENT_STREAMS);
  assert(most <= MAX_CONCURRENT_STREAMS, `${most} at once`);
  await left(client);
});

Deno.test("rule 8: whoever says nothing, or does not go on with TLS, is closed in time", async () => {
  const dir = await Deno.makeTempDir();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  const files = await writeCertificate(dir, "api");
  const address = { host: "127.0.0.1", port: 0 };
  for (
    const [certificate, http2] of [[undefined, true], [undefined, false], [files, true], [
      files,
      false,
    ]] as const
  ) {
    const options = { address, tls: certificate, http2, handler: echo, log: silentLog, headTimeoutMs: 100 };
    await using listener = await listenApi(options);
    const { port } = listener.address;
    const secure = (protocol: string) =>
      tls.connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ALPNProtocols: [protocol] });
    const clear = () => net.connect(port, "127.0.0.1");
    const talks: [() => net.Socket, Uint8Array | string][] = [[clear, ""], [clear, HALF_HELLO]];
    const [http1, h2] = certificate ? [() => secure("http/1.1"), () => secure("h2")] : [clear, clear];
    talks.push([http1, ""], [http1, "GET / HT"]);
    if (http2) talks.push([h2, ""], [h2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
    await Promise.all(talks.map(([connect, first]) => {
      const socket = connect();
      socket.on("error", () => {}); // it may have been reset
      socket.resume();
      const ended = new Promise((resolve) => socket.once("close", resolve));
      if (first !== "") socket.write(first);
      return ended;
    }));
  }
});

Deno.test("body and answer may take longer than a head, by either protocol, in the clear and by TLS", async () => {
  const dir = await Deno.makeTempDir();
  await using undo = new AsyncDisposableStack();
  undo.defer(() => Deno.remove(dir, { recursive: true }));
  for (const certificate of [undefined, await writeCertificate(dir, "localhost")]) {
    let late = Promise.withResolvers<void>();
    let isReached = false;
    const handler = async (request: IncomingMessage, response: ServerResponse) => {
      isReached = true;
      // Their time began later than that of the call.
      for (let round = 0; round < 2; round++) await silence(port);
      late.resolve();
      echo(request, response);
    };
    await using listener = await listen(certificate, handler, { headTimeoutMs: 100 });
    const { port } = listener.address;
    const secure = { host: "127.0.0.1", port, rejectUnauthorized: false };
    const connect = () => certificate ? tls.connect(secure) : net.connect(port, "127.0.0.1");
    const calls = [
      () => {
        const socket = connect();
        socket.once("close", () => late.resolve());
        return http1(socket, [head(BODY), late.promise, BODY]);
      },
      () => http2Call(`${certificate ? "https" : "http"}://127.0.0.1:${port}`, BODY, secure),
    ];
    for (const call of calls) {
      isReached = false;
      let answer = "";
      while (!isReached) { // on a busy machine the head may be late
        late = Promise.withResolvers();
        answer = await call();
      }
      assert.equal(answer, `200 ${BODY.length}`);
    }
  }
});

Deno.test("an address that is taken is named", async () => {
  await using listener = await listen();
  const { host, port } = listener.address;
  await assert.rejects(
    listenApi({ address: { host, port }, handler: echo, log: silentLog }),
    new RegExp(`Cannot listen on "${host}:${port}"`),
  );
});

type Handler = ApiListenerOptions["handler"];

function listen(
  tls?: { certFile: string; keyFile: string },
  handler: (request: IncomingMessage, response: ServerResponse, accepted: () => void) => void = echo as never,
  options: Pick<ApiListenerOptions, "headTimeoutMs" | "onRefused"> = {},
): Promise<ApiListener> {
  return listenApi({
    ...options,
    address: { host: "127.0.0.1", port: 0 },
    tls,
    handler: handler as Handler,
    log: silentLog,
    certificatePollMs: 20,
  });
}

/** Answers with the length of the body. */
const echo: Handler = (request, response) => {
  let length = 0;
  request.on("data", (chunk: Buffer) => length += chunk.length);
  request.on("end", () => (response as ServerResponse).end(String(length)));
};

function head(body: string): string {
  return `POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`;
}

/** Status and body of the answer; empty when there is none. A promise is what is waited for between pieces. */
async function http1(
  socket: net.Socket,
  pieces: readonly (string | number | Promise<void>)[],
): Promise<string> {
  let text = "";
  socket.setNoDelay(true);
  socket.on("data", (chunk) => text += chunk);
  socket.on("error", () => {}); // the connection was refused or reset: there is no answer
  socket.on("end", () => socket.destroy());
  const ended = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  for (const piece of pieces) {
    if (typeof piece === "string") socket.write(piece);
    else if (typeof piece !== "number") await piece;
    else await new Promise((resolve) => setTimeout(resolve, piece));
  }
  await ended;
  const match = /^HTTP\/1.1 (\d+)[^]*?\r\n\r\n([^]*)$/.exec(text);
  return match ? `${match[1]} ${match[2]}`.replace(/(?<= )[0-9a-f]+\r\n(.*)\r\n0\r\n\r\n/, "$1") : "";
}

async function http2Call(
  url: string,
  body: string,
  options: http2.SecureClientSessionOptions = {},
): Promise<string> {
  const client = http2.connect(url, options);
  client.on("error", () => {}); // the call itself tells
  try {
    return await statusOf(client, body);
  } finally {
    await left(client);
  }
}

function statusOf(client: http2.ClientHttp2Session, body: string): Promise<string> {
  return new Promise((resolve) => {
    const call = client.request({ ":method": "POST", ":path": "/echo" });
    let [status, text] = ["", ""];
    call.on("response", (headers) => status = String(headers[":status"]));
    call.on("data", (chunk: Buffer) => text += chunk);
    call.on("error", () => {}); // a refused stream: there is no answer
    call.on("close", () => resolve(`${status} ${text}`));
    call.end(body);
  });
}

/** A connection that the server has taken. */
function connected(port: number): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** A connection on which nothing is said, until the server ends it. */
async function silence(port: number): Promise<void> {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {}); // it may have been reset
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
}

async function closed(socket: net.Socket): Promise<void> {
  if (socket.closed) return;
  socket.on("error", () => {}); // it may have been reset
  await new Promise((resolve) => socket.once("close", resolve).destroy());
}

async function left(client: http2.ClientHttp2Session): Promise<void> {
  if (client.destroyed) return;
  const end = new Promise((resolve) => client.once("close", resolve));
  client.close();
  await end;
}
