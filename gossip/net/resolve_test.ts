import assert from "node:assert/strict";
import { resolveEndpoints, type Resolver, systemResolver } from "./resolve.ts";

const SRV = 33;
const A = 1;

/** A DNS server for one test: answers from a table of records, everything else does not exist. */
function nameServer(
  records: Record<string, { type: number; data: number[] }[]>,
): AsyncDisposable & { port: number } {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const serve = (async () => {
    for await (const [query, from] of socket) await socket.send(answer(query, records), from);
  })();
  return {
    port: (socket.addr as Deno.NetAddr).port,
    async [Symbol.asyncDispose]() {
      socket.close();
      await serve;
    },
  };
}

function answer(query: Uint8Array, records: Record<string, { type: number; data: number[] }[]>): Uint8Array {
  let at = 12;
  const labels: string[] = [];
  while (query[at] !== 0) {
    labels.push(new TextDecoder().decode(query.subarray(at + 1, at + 1 + query[at])));
    at += query[at] + 1;
  }
  const type = (query[at + 1] << 8) | query[at + 2];
  const question = query.subarray(12, at + 5);
  const found = (records[labels.join(".").toLowerCase()] ?? []).filter((record) => record.type === type);
  const out = [
    ...query.subarray(0, 2),
    0x84,
    found.length > 0 ? 0 : 3,
    0,
    1,
    0,
    found.length,
    0,
    0,
    0,
    0,
    ...question,
  ];
  for (const { data } of found) {
    out.push(0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, data.length >> 8, data.length & 0xff, ...data);
  }
  return new Uint8Array(out);
}

function srv(
  priority: number,
  weight: number,
  port: number,
  target: string,
): { type: number; data: number[] } {
  const name = target.split(".").flatMap((label) => [label.length, ...new TextEncoder().encode(label)]);
  return { type: SRV, data: [0, priority, 0, weight, port >> 8, port & 0xff, ...name, 0] };
}

const table: Resolver = {
  host(name) {
    const hosts: Record<string, string[]> = {
      "seeds.test": Array.from({ length: 40 }, (_, i) => `10.0.0.${i + 1}`),
      "six.test": ["fd00::1", "10.0.0.1"],
      "one.test": ["10.0.1.1"],
    };
    return hosts[name] ? Promise.resolve(hosts[name]) : Promise.reject(new Error("no such host"));
  },
  service(name) {
    if (name !== "_serf._tcp.test") return Promise.reject(new Error("no such service"));
    return Promise.resolve([{ host: "gone.test", port: 1 }, { host: "one.test", port: 77 }, {
      host: "10.9.9.9",
      port: 78,
    }]);
  },
};

async function resolve(address: string): Promise<string[]> {
  const endpoints = await resolveEndpoints(address, { defaultPort: 7946, resolver: table });
  return endpoints.map(String);
}

Deno.test("a join address may be an IP address, a host, a node's name with either, each with or without a port", async () => {
  assert.deepEqual(await resolve("10.1.1.1"), ["10.1.1.1:7946"]);
  assert.deepEqual(await resolve("node-7/10.1.1.1:99"), ["10.1.1.1:99"]);
  assert.deepEqual(await resolve("[fd00::5]:99"), ["[fd00::5]:99"]);
  assert.deepEqual(await resolve("six.test:99"), ["[fd00::1]:99", "10.0.0.1:99"]);
});

Deno.test("a host name of many addresses gives the first sixteen", async () => {
  const endpoints = await resolve("seeds.test");
  assert.equal(endpoints.length, 16);
  assert.equal(endpoints[15], "10.0.0.16:7946");
});

Deno.test("a service name gives the hosts and ports of its records, also where one of them is gone", async () => {
  assert.deepEqual(await resolve("_serf._tcp.test"), ["10.0.1.1:77", "10.9.9.9:78"]);
});

Deno.test("what cannot be joined says why", async () => {
  await assert.rejects(
    () => resolve("nowhere.test"),
    /Cannot join "nowhere.test": the host name has no address: no such/,
  );
  await assert.rejects(
    () => resolve("_a._tcp.test"),
    /Cannot join "_a._tcp.test": the service name was not found/,
  );
  await assert.rejects(() => resolve("a:b:c"), /Cannot join "a:b:c": it is not host:port/);
  await assert.rejects(() => resolve("a:99999"), /it is not host:port/);
});

Deno.test("the machine's resolver knows /etc/hosts, and services by priority and weight", async () => {
  const system = systemResolver();
  assert.ok((await system.host("localhost")).some((address) => address === "127.0.0.1" || address === "::1"));
  await using server = nameServer({
    "_gossip._udp.cluster.test": [
      srv(20, 0, 7946, "last.test"),
      srv(10, 1, 7947, "second.test"),
      srv(10, 9, 7948, "first.test"),
    ],
    "first.test": [{ type: A, data: [10, 0, 0, 1] }],
  });
  const resolver = systemResolver({ nameServer: { ipAddr: "127.0.0.1", port: server.port } });
  assert.deepEqual(await resolver.service("_gossip._udp.cluster.test"), [
    { host: "first.test", port: 7948 },
    { host: "second.test", port: 7947 },
    { host: "last.test", port: 7946 },
  ]);
  await assert.rejects(() => resolver.service("_none._udp.cluster.test"));
});
