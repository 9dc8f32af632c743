import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { encodePing } from "../gossip/codec/messages.ts";
import { encodePushPull } from "../gossip/codec/push_pull.ts";
import { encodeQuery, encodeUserEvent } from "../gossip/codec/serf_messages.ts";
import { createSerf } from "../gossip/mod.ts";
import { ClusterEvent, VmSpawnRequestSchema } from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { encodeFragments } from "./cluster/go_fragments.ts";
import { encodeClusterMessage } from "./control/cluster_messages.ts";
import { exportedBinding, peerCertificate } from "./peer/handshake/channel.ts";
import { dialPeer, PROTOCOL } from "./peer/handshake/dial.ts";
import { ClientProof } from "./peer/handshake/membership_proof.ts";
import { bodyLength, HEADER_BYTES, NONCE_BYTES } from "./peer/handshake/messages.ts";
import { derivePeerKeys } from "./peer/handshake/peer_keys.ts";
import { HandshakeError } from "./peer/handshake/refusal.ts";
import { openTls } from "./peer/testing.ts";
import { checkBind } from "./security/bind.ts";
import { startNodes, type TestNode, until } from "./testing.ts";

const KEY = new Uint8Array(32).fill(1);
const OTHER_KEY = new Uint8Array(32).fill(2);
const TOKEN = "the-token-of-this-test";
const API = "cluster.services.api.ClusterService";
/** Garbage of each kind that is sent. */
const GARBAGE = 200;

Deno.test("a stranger with network access but no key neither reads, joins, places, stops, routes nor crashes anything", async (t) => {
  await using cluster = await startNodes(["first-node", "second-node"], () => ({
    parts: { ring: { keys: [KEY], isNew: false }, token: TOKEN },
  }));
  const [n1, n2] = cluster.nodes;
  const { port } = n1.running.cluster.membership.self.address;
  const fingerprint = n1.running.cluster.membership.self.tags.fp;
  const { id } = await authorized(n1, "Spawn", { imageRef: "web:1" });
  await until("n2 lists it", () => ids(n2).includes(id));
  const request = create(VmSpawnRequestSchema, { imageRef: "stolen:1", cores: 1, memory: 64 });
  const spawn = encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnRequestSchema, request);

  for (const [what, keys] of [["without a key", []], ["with a key of his own", [OTHER_KEY]]] as const) {
    await t.step(`he cannot join ${what}, and learns of nobody`, async () => {
      await using stranger = await createSerf({
        name: "stranger",
        bind: { host: "127.0.0.1", port: 0 },
        keys,
        profile: "local",
      });
      await assert.rejects(stranger.join([`127.0.0.1:${port}`]));
      assert.deepEqual(stranger.members().map(({ name }) => name), ["stranger"]);
    });
  }

  await t.step("packets in the clear get no answer, place nothing and tell nothing", async () => {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    let answers = 0;
    const reading = (async () => {
      for await (const _packet of socket) answers++;
    })();
    const own = socket.addr as Deno.NetAddr;
    const query = encodeQuery({
      ltime: 5,
      id: 7,
      addr: Uint8Array.of(127, 0, 0, 1),
      port: own.port,
      sourceNode: "stranger",
      filters: [],
      flags: 0,
      relayFactor: 0,
      timeoutNs: 90e9,
      name: "hypercore_query",
      payload: spawn,
    });
    const [fragment] = encodeFragments({ name: "second-node", uuid: crypto.randomUUID(), workloads: [] });
    const event = encodeUserEvent({
      ltime: 5,
      name: "hypercore_state_broadcast",
      payload: fragment,
      coalesce: false,
    });
    const packets = [
      encodePing({ seqNo: 1, node: "first-node" }),
      Uint8Array.of(8, ...query),
      Uint8Array.of(8, ...event),
    ];
    for (const packet of packets) {
      await socket.send(packet, { transport: "udp", hostname: "127.0.0.1", port });
    }
    for (let n = 0; n < GARBAGE; n++) {
      await socket.send(new Uint8Array(randomBytes(1 + n * 7)), {
        transport: "udp",
        hostname: "127.0.0.1",
        port,
      });
    }
    // Whoever has the key is answered on the same socket, after all that.
    await until("n1 has read what came", async () => {
      const answer = await n2.running.cluster.membership.serf.reachability({ timeoutMs: 1_000 });
      return answer.acks.includes("first-node");
    });
    assert.equal(answers, 0);
    socket.close();
    await reading;
  });

  await t.step("streams in the clear get no state", async () => {
    const streams = [
      encodePushPull({ join: true, nodes: [], userState: new Uint8Array() }),
      ...Array.from({ length: GARBAGE / 4 }, (_, n) => Uint8Array.of(n % 22, ...randomBytes(100))),
    ];
    for (const bytes of streams) {
      const answer = await exchange(port, bytes);
      // Nothing, or that it cannot be read, sealed as everything is.
      assert(answer === "" || answer.startsWith("\n"), answer);
      assert(!answer.includes("second-node"), answer);
      assert(!answer.includes(id), answer);
    }
  });

  await t.step("calls need a proof that he cannot make", async () => {
    const peer = { nodeId: n1.running.cluster.membership.self.id, host: "127.0.0.1", port, fingerprint };
    for (const [keys, refusal] of [[[], "key-needed"], [[OTHER_KEY], "proof"]] as const) {
      await assert.rejects(
        dialPeer(peer, { nodeId: "stranger", keys: derivePeerKeys(keys), protocol: PROTOCOL.calls }),
        (error) => error instanceof HandshakeError && error.refusal === refusal,
      );
    }
    // HTTP/2 at once, as if there were no proof.
    const socket = await openTls(port);
    socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    const answer: Uint8Array[] = [];
    socket.on("data", (bytes) => answer.push(bytes as Uint8Array));
    await once(socket, "close");
    assert.deepEqual(answer.map((bytes) => bytes[0]), [5]);
  });

  await t.step("a proof that he overheard opens no other connection", async () => {
    const first = await openTls(port);
    const member = new ClientProof({
      nodeId: "member",
      keys: derivePeerKeys([KEY]),
      nonce: new Uint8Array(NONCE_BYTES),
      binding: exportedBinding(first, { role: "client", serverCertificate: peerCertificate(first)! }),
    }, { expectedId: n1.running.cluster.membership.self.id });
    const hello = member.start().send!;
    first.write(hello);
    const proof = member.receive(await readMessage(first)).send!;
    first.write(proof);
    assert.equal((await readMessage(first))[0], 4); // accepted: it was a good one
    first.destroy();
    const second = await openTls(port);
    second.write(hello);
    await readMessage(second);
    second.write(proof);
    assert.equal((await readMessage(second))[0], 5); // refused
    second.destroy();
  });

  await t.step("the API takes nothing without the token, and is on loopback alone", async () => {
    for (const method of ["Spawn", "Stop", "List", "Logs"]) {
      const headers = { "content-type": "application/json" };
      const url = `http://127.0.0.1:${n1.running.apiAddress.port}/${API}/${method}`;
      const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ id }) });
      assert.equal(response.status, 401);
      assert(!(await response.text()).includes("web:1"));
    }
    assert.equal(n1.running.apiAddress.host, "127.0.0.1");
    assert.throws(
      () => checkBind({ host: "0.0.0.0", port: 8000 }, { insecure: false }),
      /Cannot listen on "0\.0\.0\.0:8000"/,
    );
  });

  await t.step("after all that the cluster is what it was, and works", async () => {
    for (const node of [n1, n2]) {
      const members = [...node.running.cluster.membership.members().values()];
      assert.deepEqual(members.map(({ name, status }) => `${name} ${status}`).sort(), [
        "first-node alive",
        "second-node alive",
      ]);
      assert.deepEqual(ids(node), [id]);
    }
    assert.deepEqual((await n2.engine.list()).length + (await n1.engine.list()).length, 1);
    await authorized(n2, "Stop", { id });
    await until("n1 lists it no more", () => ids(n1).length === 0);
  });
});

function ids(node: TestNode): string[] {
  return node.running.cluster.calls.list().states.flatMap(({ workloads }) => workloads.map(({ id }) => id));
}

async function authorized(node: TestNode, method: string, body: unknown): Promise<{ id: string }> {
  const response = await fetch(`http://127.0.0.1:${node.running.apiAddress.port}/${API}/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${TOKEN}` },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  assert.equal(response.status, 200, JSON.stringify(answer));
  return answer;
}

/** Sends, ends its half, and reads to the end. */
async function exchange(port: number, bytes: Uint8Array): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  let text = "";
  socket.on("error", () => {});
  socket.on("data", (chunk) => text += String(chunk));
  socket.end(bytes);
  await new Promise((resolve) => socket.once("close", resolve));
  return text;
}

async function readMessage(socket: tls.TLSSocket): Promise<Uint8Array> {
  const read = async (bytes: number): Promise<Uint8Array> => {
    for (;;) {
      const chunk = socket.read(bytes) as Uint8Array | null;
      if (chunk !== null) return new Uint8Array(chunk);
      await once(socket, "readable");
    }
  };
  const header = await read(HEADER_BYTES);
  const length = bodyLength(header)!;
  return Uint8Array.of(...header, ...length === 0 ? [] : await read(length));
}
