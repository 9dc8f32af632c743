import assert from "node:assert/strict";
import { seededRandom } from "../../gossip/mod.ts";
import { silentLog } from "../../runtime/log.ts";
import { verify } from "./identity.ts";
import { BeaconTeller } from "./metadata.ts";
import { registrationText } from "./registration.ts";
import { Registry } from "./registry.ts";
import { MAX_REGISTRY_ANSWER_BYTES, registryClient } from "./registry_client.ts";
import { endpointText, parseRegistryEndpoint } from "./registry_endpoint.ts";
import { CHANGED_MS, HEALTH_MS, REGISTER_MS, REGISTRY_RETRY_MS, RegistryLink } from "./registry_link.ts";
import { memoryIdentity } from "./testing.ts";

const link = () => new RegistryLink({ random: seededRandom(1) });
const DEADLINE_MS = 60_000;

/** Waits until it holds. */
async function until(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

Deno.test("a registry that is there is registered with, checked, and registered with again", () => {
  const one = link();
  assert.equal(one.due(0), "health");
  assert.equal(one.healthy(0), "register");
  one.registered(0);
  assert.deepEqual(one.state, { kind: "connected" });
  assert.equal(one.due(HEALTH_MS - 1), undefined);
  assert.equal(one.due(HEALTH_MS), "health");
  assert.equal(one.healthy(HEALTH_MS), undefined);
  assert.equal(one.due(REGISTER_MS), "register");
  one.registered(REGISTER_MS);
  one.changed();
  assert.equal(one.due(REGISTER_MS + CHANGED_MS - 1), undefined);
  assert.equal(one.due(REGISTER_MS + CHANGED_MS), "register");
});

Deno.test("a registry that is away is asked with growing pauses, and registered with anew when it is back", () => {
  const one = link();
  let nowMs = 0;
  const pauses: number[] = [];
  for (let i = 0; i < 12; i++) {
    assert.equal(one.due(nowMs), "health");
    one.failed("nobody is there", nowMs);
    assert.equal(one.due(nowMs), undefined);
    pauses.push(one.nextMs - nowMs);
    nowMs = one.nextMs;
  }
  pauses.forEach((pause, i) => {
    const most = Math.min(REGISTRY_RETRY_MS.last, REGISTRY_RETRY_MS.first * 2 ** i);
    assert.ok(pause >= most / 2 && pause <= most, `pause ${i}: ${pause}`);
  });
  assert.deepEqual(one.state, { kind: "disconnected", reason: "nobody is there" });
  assert.equal(one.healthy(nowMs), "register");
  one.registered(nowMs);
  one.failed("gone", nowMs);
  assert.ok(one.nextMs - nowMs <= REGISTRY_RETRY_MS.first);
});

Deno.test("endpoints are http, https or tcp, and nothing else", () => {
  for (
    const [text, shown] of [
      ["http://registry:9000", "http://registry:9000"],
      ["https://registry.example/beacons/", "https://registry.example/beacons"],
      ["tcp://127.0.0.1:9000", "tcp://127.0.0.1:9000"],
      ["tcp://[::1]:9000", "tcp://[::1]:9000"],
    ]
  ) assert.equal(endpointText(parseRegistryEndpoint(text)), shown);
  for (
    const [text, reason] of [
      ["registry", /not a URL/],
      ["ftp://x:1", /none of http/],
      ["tcp://x", /not tcp:\/\/host:port/],
      ["tcp://x:1/y", /not tcp:\/\/host:port/],
      ["http://u:p@x", /more than/],
      ["http://x/?y", /more than/],
    ] as const
  ) assert.throws(() => parseRegistryEndpoint(text), reason);
});

Deno.test("a registration is signed by the node that it is of", () => {
  const identity = memoryIdentity();
  const beacon = new BeaconTeller(identity).tell({
    capabilities: ["kvm"],
    queueDepth: 0,
    pricePerGb: 0.25,
    reputation: 0.5,
    startingReputation: 0.5,
    latencyMs: 1.5,
  }, 7);
  const text = registrationText(identity, { nodeName: "n1", version: "1", beacon, nowMs: 9 });
  const { registration, signature } = JSON.parse(text);
  const bytes = new TextEncoder().encode(registration);
  const isSigned = (key: Uint8Array) =>
    verify(key, "hypercore/register/1", bytes, Uint8Array.fromBase64(signature));
  assert.deepEqual([isSigned(identity.publicKey), isSigned(memoryIdentity().publicKey)], [true, false]);
  const { node, name, beacon: { price_per_gb, latency_ms } } = JSON.parse(registration);
  assert.deepEqual([node, name, price_per_gb, latency_ms], [identity.nodeId, "n1", "0.25", "1.5"]);
});

/** A registry over HTTP. */
function httpRegistry() {
  const seen: string[] = [];
  let isHealthy = true;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname } = new URL(request.url);
    seen.push(`${request.method} ${pathname} ${await request.text()}`);
    return new Response(null, { status: isHealthy ? 204 : 503 });
  });
  return {
    seen,
    port: server.addr.port,
    setHealthy: (value: boolean) => isHealthy = value,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/** A registry over TCP, which says this to each line. */
function tcpRegistry(answer: string) {
  const seen: string[] = [];
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serve = async () => {
    for await (const connection of listener) {
      using _connection = connection;
      try {
        const buffer = new Uint8Array(65_536);
        let text = "";
        while (!text.includes("\n")) {
          const read = await connection.read(buffer);
          if (read === null) break;
          text += new TextDecoder().decode(buffer.subarray(0, read));
        }
        seen.push(text.trimEnd());
        for (const piece of answer.match(/[^]{1,40000}/g) ?? []) {
          await connection.write(new TextEncoder().encode(piece));
        }
      } catch {
        // The client has gone.
      }
    }
  };
  const served = serve();
  return {
    seen,
    port: (listener.addr as Deno.NetAddr).port,
    async [Symbol.asyncDispose]() {
      listener.close();
      await served;
    },
  };
}

Deno.test("a node is known to an HTTP registry as soon as that is there", async () => {
  const states: boolean[] = [];
  await using server = httpRegistry();
  server.setHealthy(false);
  await using registry = new Registry({
    endpoint: parseRegistryEndpoint(`http://127.0.0.1:${server.port}/beacons/`),
    registration: () => '{"registration":"r","signature":"s"}',
    onState: (isConnected) => states.push(isConnected),
    log: silentLog,
  });
  registry.start();
  await until("it is found to be down", () => states.length === 1);
  assert.equal(registry.state.kind, "disconnected");
  server.seen.length = 0;
  server.setHealthy(true);
  await until("it is registered with", () => registry.state.kind === "connected");
  assert.deepEqual(states, [false, true]);
  assert.deepEqual(server.seen, [
    "GET /beacons/health ",
    'POST /beacons/register {"registration":"r","signature":"s"}',
  ]);
});

Deno.test("an HTTP registry that refuses is none, and neither is one that does not answer", async () => {
  await using server = httpRegistry();
  const client = registryClient({ kind: "http", base: `http://127.0.0.1:${server.port}` });
  const { signal } = new AbortController();
  await client.health(signal);
  await client.register("{}", signal);
  server.setHealthy(false);
  await assert.rejects(client.health(signal), /it answers \/health with status 503/);
  await assert.rejects(client.register("{}", signal), /it answers \/register with status 503/);
  const aborted = AbortSignal.abort(new Error("stop"));
  await assert.rejects(client.health(aborted));
  const gone = httpRegistry();
  await gone[Symbol.asyncDispose]();
  const away = registryClient({ kind: "http", base: `http://127.0.0.1:${gone.port}` });
  await assert.rejects(away.health(signal));
});

Deno.test("a node is known to a TCP registry by a line of JSON, and what it answers else is no yes", async () => {
  const { signal } = new AbortController();
  const clientOf = (port: number) => registryClient({ kind: "tcp", host: "127.0.0.1", port });
  {
    await using server = tcpRegistry('{"ok":true}\n');
    await using registry = new Registry({
      endpoint: { kind: "tcp", host: "127.0.0.1", port: server.port },
      registration: () => '{"registration":"r"}',
      log: silentLog,
    });
    registry.start();
    await until("it is registered with", () => registry.state.kind === "connected");
    assert.deepEqual(server.seen, [
      '{"type":"health"}',
      '{"type":"register","registration":{"registration":"r"}}',
    ]);
  }
  for (
    const [answer, reason] of [
      ['{"ok":false,"error":"full"}\n', /it refused: full/],
      ["null\n", /it refused/],
      ["hello\n", /JSON/],
      ["", /closed the connection without an answer/],
      ["x".repeat(2 * MAX_REGISTRY_ANSWER_BYTES), /longer than|reset/],
    ] as const
  ) {
    await using server = tcpRegistry(answer);
    await assert.rejects(clientOf(server.port).health(signal), reason);
  }
});
