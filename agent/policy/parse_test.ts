import assert from "node:assert/strict";
import { MAX_POLICY_BYTES, MAX_POLICY_DEPTH, MAX_PROBLEMS } from "./limits.ts";
import { PolicyParser } from "./parse.ts";
import { PolicyError } from "./policy_error.ts";

const parser = new PolicyParser();

function problems(text: string | Uint8Array): PolicyError {
  try {
    parser.parse(text, "p.json");
  } catch (error) {
    assert.ok(error instanceof PolicyError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: "the policy was taken" });
}

const lines = (...body: string[]) => `{\n  "name": "a",\n  "mode": "enforce",\n${body.join("\n")}\n}\n`;

const bad: [string, string, RegExp][] = [
  [
    "a word for a number",
    lines('  "rules": {', '    "max_latency_ms": "fast"', "  }"),
    /^Cannot use policy "p\.json": line 5, rules\.max_latency_ms: must be a number$/,
  ],
  [
    "a misspelt key",
    lines('  "rules": {', '    "max_latancy_ms": 5', "  }"),
    /line 5, rules\.max_latancy_ms: is not a known key; did you mean max_latency_ms\?$/,
  ],
  ["an unknown key", lines('  "colour": "red"'), /line 4, colour: is not a known key$/],
  [
    "an unknown key deep inside",
    lines('  "network": {', '    "egress": [{', '      "cidrr": "10.0.0.0/8"', "    }]", "  }"),
    /line 6, network\.egress\[0\]\.cidrr: is not a known key; did you mean cidr\?/,
  ],
  ["an unknown mode", '{"name":"a","mode":"strict"}', /line 1, mode: must be "enforce" or "permissive"/],
  ["no mode", '{"name":"a"}', /line 1: the policy has no mode/],
  ["no name", '{"mode":"enforce"}', /has no name/],
  ["an empty name", '{"name":"","mode":"enforce"}', /name: must be 1 to 128 of letters/],
  ["a list", "[]", /line 1: must be an object/],
  ["a reputation over 1", lines('  "rules": {"min_reputation_score": 1.5}'), /must be at most 1/],
  ["a negative latency", lines('  "rules": {"max_latency_ms": -1}'), /must be at least 0/],
  ["half a queue", lines('  "rules": {"max_queue_depth": 1.5}'), /must be a whole number/],
  ["an infinite price", lines('  "rules": {"max_price_per_gb": 1e999}'), /max_price_per_gb: must be/],
  ["a selector of nothing", lines('  "rules": {"not_beside": [{}]}'), /not_beside\[0\]: must not be empty/],
  [
    "a port of words",
    lines('  "permissions": {"allowed_host_ports": ["http"]}'),
    /allowed_host_ports\[0\]: must be a port from 1 to 65535/,
  ],
  [
    "a port over 65535",
    lines('  "permissions": {"allowed_host_ports": ["80-99999"]}'),
    /allowed_host_ports\[0\]: must be a port from 1 to 65535, or a range/,
  ],
  [
    "a port range backwards",
    lines('  "network": {"ingress_ports": ["90-80"]}'),
    /network\.ingress_ports\[0\]: must be a port/,
  ],
  [
    "a network with host bits",
    lines('  "network": {"egress": [', '    {"cidr": "10.0.0.1/8"}', "  ]}"),
    /line 5, network\.egress\[0\]\.cidr: it has host bits; did you mean 10\.0\.0\.0\/8\?/,
  ],
  ["an IPv6 network", lines('  "network": {"egress": [{"cidr": "::/0"}]}'), /must be an IPv4 network/],
  [
    "ports of icmp",
    lines('  "network": {"egress": [{"protocol": "icmp", "ports": [1]}]}'),
    /egress\[0\]\.ports: icmp has no ports/,
  ],
  [
    "a quota of nothing",
    lines('  "permissions": {"quotas": [{"label": "a", "value": "b"}]}'),
    /quotas\[0\]: names no maximum/,
  ],
  [
    "a tagged repository",
    lines('  "permissions": {"required_image_digests": {"web:1": "sha256:' + "0".repeat(64) + '"}}'),
    /required_image_digests\.web:1: names a repository/,
  ],
  [
    "a short digest",
    lines('  "permissions": {"required_image_digests": {"web": "sha256:12"}}'),
    /required_image_digests\.web: must be sha256:/,
  ],
  [
    "a label of spaces",
    lines('  "permissions": {"required_labels": ["a b"]}'),
    /required_labels\[0\]: must be a label's key/,
  ],
  ["a key twice", '{\n"name":"a",\n"mode":"enforce",\n"mode":"permissive"}', /line 4, mode: is listed twice/],
  ["a prototype", '{"name":"a","mode":"enforce","__proto__":{}}', /line 1, __proto__: is not a key/],
  ["a prototype as a tag", lines('  "rules": {"node_tags": {"__proto__": "x"}}'), /__proto__: is not a key/],
  [
    "a comma too many",
    '{"name":"a",\n"mode":"enforce",\n}',
    /line 3: it is not valid JSON: unexpected token/,
  ],
  ["no end", '{"name":"a"', /line 1: it is not valid JSON: unexpected end/],
  ["nothing", "", /not valid JSON/],
  ["a comment", "// hi\n{}", /line 1: it is not valid JSON/],
  ["a raw control character in a string", '{"name":"a\u0001"}', /not valid JSON/],
  [
    "half a character",
    '{"name":"a","mode":"enforce","description":"\\ud800"}',
    /description: holds half a surrogate/,
  ],
  ["half a character in a key", '{"name":"a","mode":"enforce","\\ud800":1}', /holds half a surrogate/],
  ["too deep a nest", "[".repeat(100_000), new RegExp(`nested deeper than ${MAX_POLICY_DEPTH}`)],
  ["too much", " ".repeat(MAX_POLICY_BYTES + 1), /has 262145 bytes, at most 262144 are read/],
  [
    "too long a list",
    lines(`  "rules": {"nodes": [${Array(257).fill('"n"').join(",")}]}`),
    /rules\.nodes: has more than 256 entries/,
  ],
];
for (const [what, text, message] of bad) {
  Deno.test(`a policy with ${what} is refused with line and key`, () => {
    assert.match(problems(text).message, message);
  });
}

Deno.test("a policy that is no UTF-8 is refused", () => {
  assert.match(problems(new Uint8Array([0x7b, 0xff])).message, /not valid UTF-8/);
});

Deno.test("all problems are told in the order of the lines, the message names the first and counts the others", () => {
  const error = problems(
    lines('  "rules": {', '    "max_jitter_ms": "x",', '    "nodes": 1', "  },", '  "x": 1'),
  );
  assert.deepEqual(error.problems.map(({ line, path }) => `${line} ${path}`), [
    "5 rules.max_jitter_ms",
    "6 rules.nodes",
    "8 x",
  ]);
  assert.match(error.message, /line 5, .* \(and 2 more\)$/);
});

Deno.test("so many problems are told, and no more", () => {
  const keys = Array.from({ length: MAX_PROBLEMS + 5 }, (_, i) => `"k${i}":1`).join();
  assert.equal(problems(`{"name":"a","mode":"enforce",${keys}}`).problems.length, MAX_PROBLEMS);
});

Deno.test("the five examples are valid, and say what their names say", async () => {
  const folder = new URL("../../examples/policies/", import.meta.url);
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();
  assert.deepEqual(names, [
    "balanced.json",
    "cost-optimized.json",
    "high-trust.json",
    "low-latency.json",
    "permissive.json",
  ]);
  for (const name of names) {
    const { policy, notes } = parser.parse(await Deno.readFile(new URL(name, folder)), name);
    assert.equal(`${policy.name}.json`, name);
    assert.deepEqual(notes, []);
    assert.equal(policy.mode, policy.name === "permissive" ? "permissive" : "enforce");
  }
});

Deno.test("a file of the original is taken as it is, and its zeros mean no limit", () => {
  const { policy, notes } = parser.parse(
    JSON.stringify({
      name: "old",
      description: "d",
      mode: "enforce",
      rules: {
        required_capabilities: ["gpu"],
        max_latency_ms: 0,
        max_price_per_gb: 0.02,
        min_reputation_score: 0.7,
        max_queue_depth: 100,
        max_packet_loss: 2.5,
        max_jitter_ms: 30,
        prefer_low_latency: true,
        prefer_low_price: true,
        prefer_high_reputation: true,
      },
      scoring: { latency_weight: 0, price_weight: 0, reputation_weight: 0, queue_weight: 0 },
    }),
    "old.json",
  );
  assert.equal(policy.rules.maxLatencyMs, undefined);
  assert.equal(policy.rules.maxPacketLoss, 2.5);
  assert.deepEqual(policy.rules.requiredCapabilities, ["gpu"]);
  assert.deepEqual(notes, ["rules.max_latency_ms is 0, which means no limit"]);
});

Deno.test("the id of a policy is that of its content, whatever its layout", () => {
  const id = (text: string) => parser.parse(text, "p").policy.id;
  const same = id('{"name":"a","mode":"enforce"}');
  assert.match(same, /^sha256:[0-9a-f]{64}$/);
  assert.equal(id('{\n "mode": "enforce", "name": "a" }'), same);
  assert.notEqual(id('{"name":"a","mode":"permissive"}'), same);
});

Deno.test("what may have been meant otherwise is noted", () => {
  const notes = (body: unknown) =>
    parser.parse(JSON.stringify({ name: "a", mode: "enforce", ...body as object }), "p").notes;
  assert.match(notes({ mode: "permissive", network: { egress: [] } })[0], /network is not enforced/);
  assert.match(notes({ network: { egress: [{ ports: [443] }] } })[0], /no entry for DNS/);
  assert.deepEqual(notes({ network: { egress: [{ ports: ["50-60"] }] } }), []);
  assert.deepEqual(notes({ network: { egress: [] } }), []);
});
