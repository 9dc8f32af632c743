import assert from "node:assert/strict";
import {
  type ChannelBinding,
  ClientProof,
  type ProofOptions,
  ServerProof,
  type Step,
} from "./membership_proof.ts";
import { bodyLength, decodeMessage, encodeMessage, HEADER_BYTES, MAX_BODY_BYTES } from "./messages.ts";
import { derivePeerKeys, MAX_KEYS } from "./peer_keys.ts";
import { HandshakeError, REFUSAL_NAMES, refusalCode, refusalOf } from "./refusal.ts";

const [K1, K2, K3] = [1, 2, 3].map((fill) => new Uint8Array(32).fill(fill));
const BINDING: ChannelBinding = {
  protocol: "h2",
  clientExporter: new Uint8Array(32).fill(7),
  serverExporter: new Uint8Array(32).fill(8),
  serverFingerprint: new Uint8Array(32).fill(9),
};

type Side = Partial<Omit<ProofOptions, "binding">> & {
  binding?: Partial<ChannelBinding>;
  expectedId?: string;
};

Deno.test("two members of a cluster recognise each other", () => {
  const { client, server } = run({}, {});
  assert.deepEqual(client, { kind: "done", peerId: "b", key: K1 });
  assert.deepEqual(server, { kind: "done", peerId: "a", key: K1 });
});

Deno.test("two nodes without a key let each other in, and the messages say so", () => {
  const { client, server, wire } = run({ keys: [] }, { keys: [] });
  assert.equal(client.kind, "done");
  assert.equal(server.kind, "done");
  assert.deepEqual(wire.map((bytes) => decodeMessage(bytes)?.type), [
    "hello",
    "challenge",
    "proof",
    "accept",
  ]);
  assert.equal(wire[3].length, HEADER_BYTES);
});

Deno.test("a node with a key and one without refuse each other, and both know why", () => {
  const withoutKey = run({ keys: [] }, {});
  assert.deepEqual(refusals(withoutKey), { client: ["key-needed", "peer"], server: ["key-needed", "us"] });
  const withKey = run({}, { keys: [] });
  assert.deepEqual(refusals(withKey), { client: ["no-key", "peer"], server: ["no-key", "us"] });
});

Deno.test("a client with a key ends the talk when a server pretends that no key is needed", () => {
  const client = makeClient({});
  client.start();
  const challenge = encodeMessage({
    type: "challenge",
    version: 1,
    introduction: { keyed: false, nonce: new Uint8Array(32), nodeId: "b" },
  });
  assert.deepEqual(client.receive(challenge), { kind: "failed", refusal: "no-key", by: "us" });
});

Deno.test("a caller with another key is refused", () => {
  assert.deepEqual(refusals(run({ keys: [K2] }, {})), { client: ["proof", "peer"], server: ["proof", "us"] });
});

Deno.test("while keys rotate, any key of the server's ring will do, and the server answers by the same", () => {
  for (const keys of [[K1, K2], [K2, K1], [K3, K2, K1]]) {
    const { client, server } = run({ keys: [keys[0], K3] }, { keys: keys.toReversed() });
    assert.deepEqual(client, { kind: "done", peerId: "b", key: keys[0] });
    assert.deepEqual(server, { kind: "done", peerId: "a", key: keys[0] });
  }
  assert.deepEqual(refusals(run({ keys: [K3, K1] }, { keys: [K1] })).server, ["proof", "us"]);
});

Deno.test("no proof holds on a connection that differs in anything from the caller's", () => {
  const other = new Uint8Array(32).fill(1);
  const changes: Partial<ChannelBinding>[] = [
    { protocol: "hypercore-proxy/1" },
    { clientExporter: other },
    { serverExporter: other },
    { serverFingerprint: other },
    { clientExporter: new Uint8Array(), serverExporter: new Uint8Array() },
    { clientExporter: BINDING.serverExporter, serverExporter: BINDING.clientExporter },
    // The parts' lengths count, not only their bytes in a row.
    { protocol: "h2\x07", clientExporter: BINDING.clientExporter.subarray(1) },
  ];
  for (const binding of changes) {
    assert.deepEqual(refusals(run({}, { binding })).server, ["proof", "us"], JSON.stringify(binding));
  }
});

Deno.test("a bit flipped in any message on its way ends the handshake on both ends", () => {
  const { wire } = run({}, {});
  for (const [index, message] of wire.entries()) {
    for (let bit = 0; bit < message.length * 8; bit++) {
      const changed = message.slice();
      changed[bit >> 3] ^= 1 << (bit & 7);
      const result = run({}, {}, { replace: (at) => at === index ? changed : undefined });
      assert.equal(result.client.kind, "failed", `message ${index}, bit ${bit}`);
      // The last message is the server's own: it has been convinced before.
      if (index < 3) assert.notEqual(result.server.kind, "done", `message ${index}, bit ${bit}`);
    }
  }
});

Deno.test("what was recorded of one handshake does not open another", () => {
  const { wire } = run({}, {});
  const server = makeServer({ nonce: new Uint8Array(32).fill(0x55) });
  server.receive(wire[0]);
  assert.deepEqual(failure(server.receive(wire[2])), ["proof", "us"]);

  const client = makeClient({ nonce: new Uint8Array(32).fill(0x66) });
  client.start();
  assert.equal(client.receive(wire[1]).kind, "read");
  assert.deepEqual(failure(client.receive(wire[3])), ["proof", "us"]);
});

Deno.test("a proof sent back to who made it is not taken for the other end's", () => {
  const client = makeClient({});
  client.start();
  const challenge = makeServer({}).receive((makeClient({}).start() as { send: Uint8Array }).send);
  const proof = client.receive((challenge as { send: Uint8Array }).send) as { send: Uint8Array };
  const decoded = decodeMessage(proof.send);
  assert(decoded?.type === "proof");
  const reflected = encodeMessage({ type: "accept", mac: decoded.mac });
  assert.deepEqual(failure(client.receive(reflected)), ["proof", "us"]);
});

Deno.test("a man in the middle of two connections cannot pass the proofs from one to the other", () => {
  const [near, far] = [1, 2].map((fill) => ({ ...BINDING, clientExporter: new Uint8Array(32).fill(fill) }));
  assert.deepEqual(refusals(run({ binding: near }, { binding: far })), {
    client: ["proof", "peer"],
    server: ["proof", "us"],
  });
  // Nor when he holds the same certificate: the connections differ by what TLS exports. Nor the other way round.
  const client = makeClient({ binding: near }), server = makeServer({ binding: far });
  const challenge = server.receive((client.start() as { send: Uint8Array }).send) as { send: Uint8Array };
  client.receive(challenge.send);
  const own = run({ binding: far }, { binding: far });
  assert.deepEqual(failure(client.receive(own.wire[3])), ["proof", "us"]);
});

Deno.test("a client notices that another node answers than the one it called", () => {
  assert.deepEqual(refusals(run({ expectedId: "c" }, {})).client, ["wrong-node", "us"]);
});

Deno.test("messages out of turn, twice or after the end are refused", () => {
  const { wire } = run({}, {});
  const [hello, challenge, proof, accept] = wire;
  for (const first of [challenge, proof, accept]) {
    assert.deepEqual(failure(makeServer({}).receive(first)), ["malformed", "us"]);
  }
  const server = makeServer({});
  server.receive(hello);
  assert.deepEqual(failure(server.receive(hello)), ["malformed", "us"]);
  assert.deepEqual(failure(server.receive(proof)), ["malformed", "us"]);

  const client = makeClient({});
  client.start();
  assert.deepEqual(failure(client.receive(accept)), ["malformed", "us"]);
  assert.deepEqual(failure(client.receive(challenge)), ["malformed", "us"]);
});

Deno.test("an empty proof opens nothing where there is a key", () => {
  const server = makeServer({});
  server.receive((makeClient({}).start() as { send: Uint8Array }).send);
  const empty = encodeMessage({ type: "proof", mac: new Uint8Array() });
  assert.deepEqual(failure(server.receive(empty)), ["proof", "us"]);
});

Deno.test("another version of the handshake is told from garbage", () => {
  const hello = encodeMessage({
    type: "hello",
    version: 2,
    introduction: { keyed: true, nonce: new Uint8Array(32), nodeId: "a" },
  });
  assert.deepEqual(failure(makeServer({}).receive(hello)), ["version", "us"]);
  const client = makeClient({});
  client.start();
  hello[0] = 2;
  assert.deepEqual(failure(client.receive(hello)), ["version", "us"]);
});

Deno.test("messages that are too long, too short or hold no valid id are none", () => {
  assert.equal(bodyLength(Uint8Array.of(1, MAX_BODY_BYTES >> 8, MAX_BODY_BYTES & 0xff)), MAX_BODY_BYTES);
  assert.equal(
    bodyLength(Uint8Array.of(1, (MAX_BODY_BYTES + 1) >> 8, (MAX_BODY_BYTES + 1) & 0xff)),
    undefined,
  );
  assert.equal(bodyLength(Uint8Array.of(0, 0, 1)), undefined);
  assert.equal(bodyLength(Uint8Array.of(6, 0, 1)), undefined);
  assert.equal(bodyLength(Uint8Array.of(1, 0)), undefined);
  const { wire } = run({}, {});
  for (let length = 0; length < wire[0].length; length++) {
    assert.equal(decodeMessage(wire[0].subarray(0, length)), undefined);
    const shortened = wire[0].slice(0, length);
    if (length >= HEADER_BYTES) shortened[2] = length - HEADER_BYTES;
    assert.equal(decodeMessage(shortened), undefined);
  }
  for (const nodeId of ["", "a b", "a\n", "é", "x".repeat(129)]) {
    const introduction = { keyed: true, nonce: new Uint8Array(32), nodeId };
    assert.throws(() => encodeMessage({ type: "hello", version: 1, introduction }), /the id or the nonce/);
  }
  const evil = wire[0].slice();
  evil[evil.length - 1] = 0x0a;
  assert.equal(decodeMessage(evil), undefined);
});

Deno.test("keys for the proof differ from the cluster's keys and are bounded in number", () => {
  const derived = derivePeerKeys([K1, K2]);
  assert.equal(derived.length, 2);
  assert.deepEqual(derived.map((key) => key.length), [32, 32]);
  assert.notDeepEqual(derived[0], K1);
  assert.notDeepEqual(derived[0], derived[1]);
  // Known answer (HKDF-SHA-256 by OpenSSL 3), so that no change of ours parts a cluster in two.
  assert.equal(derived[0].toHex(), KNOWN_KEY);
  assert.equal(derivePeerKeys(Array.from({ length: MAX_KEYS + 1 }, () => K1)).length, MAX_KEYS);
  assert.deepEqual(derivePeerKeys([]), []);
});

Deno.test("the bytes of a handshake stay what they were", () => {
  const { wire } = run({ keys: derivePeerKeys([K1]) }, { keys: derivePeerKeys([K1]) });
  assert.deepEqual(wire.map((bytes) => bytes.toHex()), KNOWN_WIRE);
});

Deno.test("each refusal has a number of its own and reads well", () => {
  for (const name of REFUSAL_NAMES) {
    assert.equal(refusalOf(refusalCode(name)), name);
    assert.match(new HandshakeError(name, "us").message, /^(it|its|the|another) /);
    assert.match(new HandshakeError(name, "peer").message, /^it refused the connection: /);
  }
  assert.equal(refusalOf(200), "malformed");
});

const KNOWN_KEY = "f0f6866a524b288df5036a581d80577e46da17a9652f1c3fc89c6c5951961775";
const KNOWN_WIRE = [
  "0100230101010101010101010101010101010101010101010101010101010101010101010161",
  "0200230101020202020202020202020202020202020202020202020202020202020202020262",
  "030020609d1e1f9040b9f905ecfbdbaa75b54f20f291a2617e78123c44d4220d294e26",
  "040020a0c302224e52e4beb77600e04bdb56da728372a374a389220b06307afe6dfd94",
];

function makeClient({ expectedId = "b", ...side }: Side): ClientProof {
  return new ClientProof(options("a", 1, side), { expectedId });
}

function makeServer(side: Side): ServerProof {
  return new ServerProof(options("b", 2, side));
}

function options(nodeId: string, fill: number, { binding, ...side }: Side): ProofOptions {
  const nonce = new Uint8Array(32).fill(fill);
  return { nodeId, keys: [K1], nonce, ...side, binding: { ...BINDING, ...binding } };
}

/** Carries the messages from one end to the other until neither has more to say. */
function run(clientSide: Side, serverSide: Side, wireOptions: {
  replace?: (index: number) => Uint8Array | undefined;
} = {}): { client: Step; server: Step; wire: Uint8Array[] } {
  const client = makeClient(clientSide), server = makeServer(serverSide);
  const wire: Uint8Array[] = [];
  let last = { client: client.start(), server: { kind: "read" } as Step };
  for (let from: "client" | "server" = "client";;) {
    const { send } = last[from];
    last = { ...last, [from]: without(last[from]) };
    if (send === undefined) return { ...last, wire };
    const arrived = wireOptions.replace?.(wire.length) ?? send;
    wire.push(send);
    from = from === "client" ? "server" : "client";
    last = { ...last, [from]: (from === "client" ? client : server).receive(arrived) };
  }
}

function without({ send: _, ...step }: Step): Step {
  return step;
}

function failure(step: Step): [string, string] | undefined {
  return step.kind === "failed" ? [step.refusal, step.by] : undefined;
}

function refusals({ client, server }: { client: Step; server: Step }) {
  return { client: failure(client), server: failure(server) };
}
