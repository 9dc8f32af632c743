import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { freePort } from "../../../tests/support/free_port.ts";
import { loadPeerCertificate, type PeerCertificate } from "../certificate.ts";
import { openTls } from "../testing.ts";
import { dialPeer, PROTOCOL } from "./dial.ts";
import { proveAsClient, proveAsServer } from "./exchange.ts";
import { HandshakeError, type Refusal } from "./refusal.ts";

const KEYS = [new Uint8Array(32).fill(1)];
const OTHER_KEYS = [new Uint8Array(32).fill(2)];
const A = { nodeId: "a", keys: KEYS };
const B = { nodeId: "b", keys: KEYS };

Deno.test("a node dials another, both prove membership, and the first bytes that follow are not lost", async () => {
  await using server = await serve(async (socket, certificate) => {
    const { nodeId, key } = await proveAsServer(socket, { ...B, certificate: certificate.der });
    assert.deepEqual({ nodeId, key }, { nodeId: "a", key: KEYS[0] });
    socket.end("hello");
  });
  const socket = await dialPeer(server.peer, { ...A, protocol: PROTOCOL.calls });
  assert.equal(await text(socket), "hello");
  assert.deepEqual(server.failures, []);
});

Deno.test("a client that meets another certificate than the announced one sends nothing", async () => {
  const received = Promise.withResolvers<number>();
  await using server = await serve(async (socket) => {
    let bytes = 0;
    socket.on("data", (data) => bytes += data.length);
    socket.on("error", () => {});
    socket.once("close", () => received.resolve(bytes));
    await received.promise;
  });
  const peer = {
    ...server.peer,
    fingerprint: server.peer.fingerprint.replace(/^./, (c) => c === "A" ? "B" : "A"),
  };
  await assert.rejects(dialPeer(peer, { ...A, protocol: PROTOCOL.calls }), is("certificate", "us"));
  assert.equal(await received.promise, 0);
  await assert.rejects(
    dialPeer({ ...peer, fingerprint: "short" }, { ...A, protocol: PROTOCOL.calls }),
    is("certificate", "us"),
  );
});

Deno.test("both ends learn why a handshake failed", async () => {
  const cases: [Partial<typeof A>, Partial<typeof B>, Refusal, "us" | "peer"][] = [
    [{ keys: OTHER_KEYS }, {}, "proof", "peer"],
    [{ keys: [] }, {}, "key-needed", "peer"],
    [{}, { keys: [] }, "no-key", "peer"],
    [{}, { nodeId: "c" }, "wrong-node", "us"],
  ];
  for (const [client, answering, refusal, by] of cases) {
    await using server = await serve(async (socket, { der }) => {
      await proveAsServer(socket, { ...B, ...answering, certificate: der });
    });
    const dialled = dialPeer(server.peer, { ...A, ...client, protocol: PROTOCOL.calls });
    await assert.rejects(dialled, is(refusal, by));
    await server.settled();
    assert.match(server.failures.join(), by === "peer" ? new RegExp(`^${refusal}$`) : /^closed$/);
  }
});

Deno.test("a man in the middle with a certificate of his own cannot pass the proofs on, pinned or not", async () => {
  await using server = await serve(async (socket, { der }) => {
    await proveAsServer(socket, { ...B, certificate: der });
  });
  await using middle = await serve((near) => {
    const far = tls.connect({
      port: server.peer.port,
      host: "127.0.0.1",
      rejectUnauthorized: false,
      ALPNProtocols: [PROTOCOL.calls],
    });
    far.on("error", () => {});
    near.on("error", () => {});
    near.pipe(far).pipe(near);
    return once(near, "close");
  });
  // The victim believes that this is the server's certificate.
  const deceived = { ...server.peer, port: middle.peer.port, fingerprint: middle.peer.fingerprint };
  await assert.rejects(dialPeer(deceived, { ...A, protocol: PROTOCOL.calls }), is("proof", "peer"));
  await server.settled();
  assert.deepEqual(server.failures, ["proof"]);
});

Deno.test("an end that says nothing, or that goes away, is given up", async () => {
  await using silent = await serve((socket) => {
    socket.on("error", () => {});
    socket.resume();
    return once(socket, "close");
  });
  const options = { ...A, protocol: PROTOCOL.calls, timeoutMs: 200 };
  await assert.rejects(dialPeer(silent.peer, options), is("timeout", "us"));

  await using patient = await serve(async (socket, { der }) => {
    await proveAsServer(socket, { ...B, certificate: der, timeoutMs: 200 });
  });
  const quiet = await openTls(patient.peer.port);
  await once(quiet, "close");
  await patient.settled();
  assert.deepEqual(patient.failures, ["timeout"]);

  await using leaving = await serve((socket) => {
    socket.on("error", () => {});
    socket.destroy();
    return Promise.resolve();
  });
  await assert.rejects(dialPeer(leaving.peer, { ...A, protocol: PROTOCOL.calls }), is("closed", "us"));
});

Deno.test("a dial ends with its signal, before and amid the handshake, and where nobody listens", async () => {
  await using silent = await serve((socket) => {
    socket.on("error", () => {});
    socket.resume();
    return once(socket, "close");
  });
  const reason = new Error("enough");
  const options = { ...A, protocol: PROTOCOL.calls };
  const gone = AbortSignal.abort(reason);
  await assert.rejects(dialPeer(silent.peer, { ...options, signal: gone }), reason);
  const soon = new AbortController();
  const dialled = dialPeer(silent.peer, { ...options, signal: soon.signal });
  await silent.opened();
  soon.abort(reason);
  await assert.rejects(dialled, reason);

  const port = freePort();
  await assert.rejects(dialPeer({ ...silent.peer, port }, options), /ECONNREFUSED/);
});

Deno.test("messages that come byte by byte are understood; garbage and half messages are refused", async () => {
  await using server = await serve(async (socket, { der }) => {
    await proveAsServer(socket, { ...B, certificate: der });
  });
  for (const garbage of ["GET / HTTP/1.1\r\n\r\n", "\x01\x01\x01", "\x05\x00\x01\x04"]) {
    const socket = await openTls(server.peer.port);
    socket.write(garbage);
    assert.equal(await text(socket), "\x05\x00\x01\x05");
  }
  const half = await openTls(server.peer.port);
  half.end("\x01\x00\x23\x01");
  await text(half);
  await server.settled();
  assert.deepEqual(server.failures, ["malformed", "malformed", "malformed", "closed"]);

  await using slow = await serve(async (socket, { der }) => {
    const write = socket.write.bind(socket) as (bytes: Uint8Array) => boolean;
    socket.setNoDelay(true);
    socket.write = (bytes: unknown) => {
      for (const byte of bytes as Uint8Array) write(Uint8Array.of(byte));
      return true;
    };
    await proveAsServer(socket, { ...B, certificate: der });
    socket.end();
  });
  await proveAsClient(await openTls(slow.peer.port), { ...A, peer: slow.peer });
});

Deno.test("what Deno calls a finished message is keying material that every TLS stack exports", async () => {
  const hex = (bytes: Uint8Array | undefined) => new Uint8Array(bytes!).toHex();
  let seen = Promise.withResolvers<Record<string, string>>();
  await using server = await serve(async (socket) => {
    socket.on("error", () => {});
    seen.resolve({ SERVER: hex(socket.getFinished()), CLIENT: hex(socket.getPeerFinished()) });
    socket.resume();
    await once(socket, "close");
  });
  for (const role of ["SERVER", "CLIENT"]) {
    seen = Promise.withResolvers();
    const label = `EXPORTER_DENO_TLS_FINISHED_${role}`;
    const { stdout } = await new Deno.Command("openssl", {
      args: [
        ...["s_client", "-connect", `127.0.0.1:${server.peer.port}`, "-alpn", PROTOCOL.calls, "-tls1_3"],
        ...["-keymatexport", label, "-keymatexportlen", "32"],
      ],
      stdin: "null",
      stderr: "null",
    }).output();
    const exported = /Keying material: ([0-9A-F]{64})/.exec(new TextDecoder().decode(stdout))?.[1];
    assert(exported !== undefined, label);
    assert.equal(exported.toLowerCase(), (await seen.promise)[role], label);
  }
});

type Serve = (socket: tls.TLSSocket, certificate: PeerCertificate) => Promise<unknown>;

/** A TLS server as a node has it, each connection served by `handle`. */
async function serve(handle: Serve) {
  const certificate = await certificateIn();
  const failures: string[] = [];
  const all: Promise<unknown>[] = [];
  let wake = () => {};
  const sockets = new Set<tls.TLSSocket>();
  const server = tls.createServer({
    key: certificate.keyPem,
    cert: certificate.certPem,
    ALPNProtocols: [PROTOCOL.calls],
    minVersion: "TLSv1.3",
  }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    all.push(
      handle(socket, certificate).catch((error) => failures.push(error?.refusal ?? String(error))),
    );
    wake();
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  return {
    failures,
    peer: { nodeId: "b", host: "127.0.0.1", port, fingerprint: certificate.fingerprint },
    /** Until a connection is open. */
    async opened() {
      while (all.length === 0) await new Promise<void>((resolve) => wake = resolve);
    },
    settled: () => Promise.all(all),
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
      await Promise.all(all);
    },
  };
}

async function certificateIn(): Promise<PeerCertificate> {
  const dir = await Deno.makeTempDir({ prefix: "hypercore-peer-" });
  try {
    return await loadPeerCertificate(dir, { nowMs: Date.UTC(2030, 0, 1) });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

async function text(socket: net.Socket): Promise<string> {
  let all = "";
  for await (const chunk of socket) {
    all += (chunk as { toString(encoding: string): string }).toString("latin1");
  }
  return all;
}

function is(refusal: Refusal, by: "us" | "peer") {
  return (error: unknown) => {
    assert(error instanceof HandshakeError, String(error));
    assert.deepEqual([error.refusal, error.by], [refusal, by]);
    return true;
  };
}
