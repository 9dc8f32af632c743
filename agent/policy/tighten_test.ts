import assert from "node:assert/strict";
import { seededRandom } from "../../gossip/random.ts";
import { includesPort, MAX_GUEST_RULES } from "../../runtime/network/rules.ts";
import { evaluate } from "./evaluate.ts";
import type { Candidate } from "./facts.ts";
import type { Policy } from "./policy.ts";
import { candidate, fileParser, placed, placement } from "./testing.ts";
import { tighten, tightenNetwork } from "./tighten.ts";
import type { PermissionsFile, PolicyFile, RulesFile } from "./wire.ts";

const parse = fileParser();

Deno.test("upper limits become the smaller, lower ones the larger, absent ones do not count", () => {
  const a = parse({
    rules: { max_latency_ms: 50, min_reputation_score: 0.5, max_jitter_ms: 3 },
    permissions: { max_cores: 4 },
  });
  const b = parse({
    rules: { max_latency_ms: 80, min_reputation_score: 0.9 },
    permissions: { max_cores: 2, max_env: 0 },
  });
  for (const both of [tighten(a, b), tighten(b, a)]) {
    assert.equal(both.rules.maxLatencyMs, 50);
    assert.equal(both.rules.minReputationScore, 0.9);
    assert.equal(both.rules.maxJitterMs, 3);
    assert.equal(both.rules.maxQueueDepth, undefined);
    assert.equal(both.permissions.maxCores, 2);
    assert.equal(both.permissions.maxEnv, 0);
  }
});

Deno.test("lists are intersected, also where patterns only overlap", () => {
  const both = tighten(
    parse({ permissions: { allowed_images: ["registry.example/**"] } }),
    parse({ permissions: { allowed_images: ["**/web"] } }),
  );
  const isAdmitted = (image: string) =>
    evaluate(both, placement({ image }), [candidate()]).ranked.length === 1;
  assert.equal(isAdmitted("registry.example/a/web:1"), true);
  assert.equal(isAdmitted("registry.example/a/db:1"), false);
  assert.equal(isAdmitted("other.example/a/web:1"), false);
});

Deno.test("a permissive policy of a spawn loosens nothing: the cluster's stands, its own is noted", () => {
  const cluster = parse({ rules: { max_latency_ms: 50 } });
  const spawn = parse({ mode: "permissive", rules: { max_latency_ms: 5, unknown_values: "admit" } });
  const both = tighten(cluster, spawn);
  assert.equal(both.mode, "enforce");
  const nodes = [
    candidate({ name: "far", latencyMs: 60 }),
    candidate({ name: "near", latencyMs: 20 }),
    candidate({ name: "unknown", latencyMs: undefined }),
  ];
  const { ranked, refused } = evaluate(both, placement(), nodes);
  assert.deepEqual(ranked.map(({ node, violations }) => [node.name, violations.length]), [["near", 1]]);
  assert.deepEqual(refused.map(({ node }) => node.name), ["far", "unknown"]);
});

Deno.test("an enforcing policy of a spawn is enforced under a permissive cluster, whose rules are noted", () => {
  const both = tighten(
    parse({ mode: "permissive", rules: { max_latency_ms: 5 } }),
    parse({ rules: { max_latency_ms: 50 } }),
  );
  assert.equal(both.mode, "enforce");
  const { ranked } = evaluate(both, placement(), [candidate({ latencyMs: 20 })]);
  assert.equal(ranked[0].violations.length, 1);
});

Deno.test("what is done on failure is permissive only when both say so", () => {
  const of = (on_failure?: "refuse" | "permissive") => parse({ on_failure });
  assert.equal(tighten(of("permissive"), of("permissive")).onFailure, "permissive");
  assert.equal(tighten(of("permissive"), of()).onFailure, "refuse");
  assert.equal(tighten(of(), of("permissive")).onFailure, "refuse");
});

Deno.test("the weights are the spawn's where it has some", () => {
  const cluster = parse({ scoring: { price_weight: 1 } });
  assert.equal(tighten(cluster, parse({})).scoring?.priceWeight, 1);
  assert.equal(tighten(cluster, parse({ scoring: { queue_weight: 1 } })).scoring?.priceWeight, 0);
});

Deno.test("egress is what both allow: narrower networks, the same protocol, common ports", () => {
  const egress = (rules: NonNullable<PolicyFile["network"]>["egress"]) =>
    parse({ network: { egress: rules } }).network;
  const both = tightenNetwork(
    egress([{ cidr: "10.0.0.0/8", ports: ["1-100"] }, { cidr: "192.0.2.0/24" }]),
    egress([{ cidr: "10.1.0.0/16", protocol: "tcp", ports: ["80-443"] }, {
      cidr: "192.0.2.7",
      protocol: "icmp",
    }]),
  );
  assert.deepEqual(both?.egress, [
    { cidr: "10.1.0.0/16", protocol: "tcp", ports: [{ from: 80, to: 100 }] },
    { cidr: "192.0.2.7/32", protocol: "icmp" },
  ]);
  assert.deepEqual(tightenNetwork(egress([]), undefined), { egress: [] });
  assert.deepEqual(tightenNetwork(egress([]), egress([{}]))?.egress, []);
});

Deno.test("network policies that together have too many rules are an error", () => {
  const many = (octet: number) => ({
    egress: Array.from({ length: 20 }, (_, i) => ({
      cidr: "0.0.0.0/0",
      protocol: "tcp" as const,
      ports: [{ from: 1 + i * octet, to: 60_000 + i * octet }],
    })),
  });
  assert.throws(() => tightenNetwork(many(7), many(11)), new RegExp(`at most ${MAX_GUEST_RULES}`));
});

Deno.test("tightening never admits what either refuses, and refuses nothing that both admit", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const next = seededRandom(seed).float;
    const [a, b] = [randomPolicy(next), randomPolicy(next)];
    const nodes = Array.from({ length: 6 }, (_, index) => randomNode(next, index));
    const request = placement({
      image: pick(next, ["web:1", "registry.example/web:2", "db:1"]),
      milliCpus: 1000 * Math.ceil(next() * 4),
      env: some(next, ["APP_A=1", "TZ=x", "X=1"]),
      ports: some(next, [80, 443, 8080]).map((port) => ({ hostPort: port, containerPort: port })),
      labels: next() < 0.5 ? { team: "a" } : {},
    });
    const admits = (policy: Policy) => {
      const { ranked } = evaluate(policy, request, nodes);
      return new Set(ranked.map(({ node }) => node.name));
    };
    const [byA, byB, byBoth] = [admits(a), admits(b), admits(tighten(a, b))];
    for (const name of byBoth) {
      assert.ok(byA.has(name), `seed ${seed}: the cluster's policy refuses ${name}`);
      assert.ok(byB.has(name), `seed ${seed}: the spawn's policy refuses ${name}`);
    }
    const unknownTells = a.rules.unknownValues === b.rules.unknownValues;
    const hasSkew = [a, b].some(({ rules }) => rules.spread.some(({ maxSkew }) => maxSkew !== undefined));
    // With both, what is tighter may depend on the other: a limit of one and what to do with the unknown of the other.
    if (!unknownTells || hasSkew) continue;
    for (const name of byA.intersection(byB)) assert.ok(byBoth.has(name), `seed ${seed}: ${name} is lost`);
  }
});

Deno.test("tightening network rules allows exactly the packets that both allow", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const next = seededRandom(seed).float;
    const network = () =>
      parse({
        network: {
          egress: Array.from({ length: Math.floor(next() * 4) }, () => ({
            cidr: pick(next, ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24"]),
            protocol: pick(next, ["tcp", "udp", "any"] as const),
            ...(next() < 0.6 && { ports: [pick(next, [53, "1-100", "80-443"])] }),
          })),
          ingress_ports: [pick(next, [80, "1-1000", "500-9000"])],
        },
      }).network!;
    const [a, b] = [network(), network()];
    const both = tightenNetwork(a, b)!;
    const allows = (rules: typeof a, packet: { address: string; protocol: string; port: number }) =>
      rules.egress!.some(({ cidr, protocol, ports }) =>
        holds(cidr, packet.address) && (protocol === "any" || protocol === packet.protocol) &&
        (ports === undefined || includesPort(ports, packet.port))
      );
    for (const address of ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "8.8.8.8"]) {
      for (const protocol of ["tcp", "udp"]) {
        for (const port of [53, 80, 100, 101, 443, 444]) {
          const packet = { address, protocol, port };
          assert.equal(
            allows(both, packet),
            allows(a, packet) && allows(b, packet),
            `seed ${seed} ${JSON.stringify(packet)}`,
          );
        }
      }
    }
    for (const port of [80, 499, 500, 1000, 1001]) {
      const open = (rules: typeof a) => includesPort(rules.ingressPorts!, port);
      assert.equal(open(both), open(a) && open(b), `seed ${seed} port ${port}`);
    }
  }
});

/** Whether a network has an address, by text: `/8`, `/16`, `/24` and `/32` only. */
function holds(cidr: string, address: string): boolean {
  const [base, prefix] = cidr.split("/");
  const parts = Number(prefix) / 8;
  return base.split(".").slice(0, parts).join() === address.split(".").slice(0, parts).join();
}

function randomPolicy(next: () => number): Policy {
  const maybe = <T>(value: T) => next() < 0.25 ? value : undefined;
  const rules: RulesFile = {
    max_latency_ms: maybe(20 + 60 * next()),
    max_price_per_gb: maybe(next()),
    min_reputation_score: maybe(next()),
    max_jitter_ms: maybe(10 * next()),
    required_capabilities: maybe(some(next, ["gpu", "kvm"])),
    unknown_values: maybe(pick(next, ["admit", "refuse"] as const)),
    nodes: maybe(some(next, ["n0", "n1", "n2", "n*"])),
    not_nodes: maybe(some(next, ["n3", "n4"])),
    node_tags: maybe({ zone: pick(next, ["a", "b", "*"]) }),
    not_node_tags: maybe({ zone: pick(next, ["a", "b"]) }),
    not_beside: maybe([{ workload: "db" }]),
    beside: next() < 0.1 ? [{ image: "db", tag: "zone" }] : undefined,
    spread: next() < 0.1 ? [{ tag: "zone", max_skew: 1, among: { workload: "*" } }] : undefined,
  };
  const permissions: PermissionsFile = {
    allowed_images: maybe(some(next, ["web", "**/web", "db", "registry.example/**"])),
    allowed_registries: maybe(some(next, ["registry.example", "*"])),
    max_cores: maybe(Math.ceil(4 * next())),
    allowed_host_ports: maybe(some(next, [80, 443, "8000-8999"])),
    allowed_env_keys: maybe(some(next, ["APP_*", "TZ", "*"])),
    quotas: maybe([{ label: "team", max_workloads: Math.floor(next() * 3) }]),
    required_labels: next() < 0.1 ? ["team"] : undefined,
  };
  const mode = next() < 0.2 ? "permissive" : "enforce";
  return parse(JSON.parse(JSON.stringify({ mode, rules, permissions })));
}

function randomNode(next: () => number, index: number): Candidate {
  const maybe = (value: number) => next() < 0.85 ? value : undefined;
  return candidate({
    name: `n${index}`,
    latencyMs: maybe(100 * next()),
    pricePerGb: maybe(next()),
    reputation: maybe(next()),
    jitterMs: maybe(15 * next()),
    capabilities: next() < 0.9 ? some(next, ["gpu", "kvm"]) : undefined,
    tags: next() < 0.8 ? { zone: pick(next, ["a", "b"]) } : {},
    workloads: next() < 0.4
      ? [placed({ id: `w${index}`, name: "db", image: "db:1", labels: { team: "a" } })]
      : [],
  });
}

function pick<T>(next: () => number, items: readonly T[]): T {
  return items[Math.floor(next() * items.length)];
}

function some<T>(next: () => number, items: readonly T[]): T[] {
  return items.filter(() => next() < 0.6);
}
