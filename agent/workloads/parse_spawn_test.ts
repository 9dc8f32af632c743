import assert from "node:assert/strict";
import { RuntimeError } from "../../runtime/errors.ts";
import * as limits from "./limits.ts";
import { parseEnv, parseIdOrName, parseSpawn } from "./parse_spawn.ts";
import { request } from "./testing.ts";

const context = { nodeName: "n1", reservedPorts: new Set([8000]) };
const parse = (fields: Parameters<typeof request>[0]) => parseSpawn(request(fields), context);

Deno.test("a spawn request without figures gets the defaults", () => {
  const spec = parse({ ports: { 443: 8080, 80: 8080 } });
  assert.equal(spec.milliCpus, 1000);
  assert.equal(spec.memoryBytes, 512 * 2 ** 20);
  assert.equal(spec.pidsLimit, 512);
  assert.deepEqual(spec.ports.map((port) => port.hostPort), [80, 443]);
  assert.equal(spec.runtime.name, "runc");
});

const bad: [string, Parameters<typeof request>[0], RegExp][] = [
  ["no image", { imageRef: "" }, /image_ref "": it is empty/],
  ["an image in capitals", { imageRef: "Web:1" }, /image_ref "Web:1"/],
  ["an image with a space", { imageRef: "web 1" }, /image_ref/],
  ["an image that is a path", { imageRef: "../../etc/shadow" }, /image_ref/],
  ["an image that is a flag", { imageRef: "--help" }, /image_ref/],
  ["a very long image", { imageRef: "a".repeat(limits.MAX_IMAGE_REF_LENGTH + 1) }, /at most 512/],
  ["absurd cores", { cores: limits.MAX_CORES + 1 }, /cores "4097": it must be 0 to 4096/],
  ["more milli-CPUs than cores", { cores: 1, milliCpus: 1001 }, /milli_cpus "1001"/],
  ["too little memory", { memory: 3 }, /memory "3": it must be 4 to/],
  ["absurd memory", { memory: 4_294_967_295 }, /memory "4294967295"/],
  ["host port 0", { ports: { 0: 80 } }, /ports "0": host port must be 1 to 65535/],
  ["host port 65536", { ports: { 65536: 80 } }, /host port/],
  ["container port 0", { ports: { 80: 0 } }, /container port/],
  ["the agent's own port", { ports: { 8000: 80 } }, /ports "8000": the agent itself/],
  [
    "too many ports",
    { ports: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [i + 1, 80])) },
    /at most 64/,
  ],
  ["a name with capitals", { name: "Web" }, /name "Web"/],
  ["a name like an id", { name: "0123456789ab" }, /taken for an id/],
  ["a runtime that is a path", { runtime: { name: "../x" } }, /runtime "..\/x"/],
  ["another node", { node: "n2" }, /node "n2": this node is "n1"/],
  ["an argument with a NUL", { args: ["a\0"] }, /args "a\?"/],
  ["a label without a key", { labels: { "": "x" } }, /labels "": a key is/],
  ["a label whose key is a sentence", { labels: { "a b": "x" } }, /labels "a b"/],
  ["a label with a control character", { labels: { a: "x\n" } }, /labels "a": its value/],
  [
    "a very long label key",
    { labels: { ["k".repeat(limits.MAX_LABEL_KEY_LENGTH + 1)]: "x" } },
    /a key is 1 to 128/,
  ],
  ["a very long label", { labels: { a: "x".repeat(limits.MAX_LABEL_VALUE_LENGTH + 1) } }, /more than 256/],
  [
    "too many labels",
    { labels: Object.fromEntries(Array.from({ length: limits.MAX_LABELS + 1 }, (_, i) => [`k${i}`, ""])) },
    /labels "65": at most 64/,
  ],
  ["a policy that is a path", { policy: "../../etc/shadow" }, /policy "\.\.\/\.\.\/etc\/shadow"/],
  ["two policies", { policy: "a", policyJson: "{}" }, /policy "a": there is a policy_json too/],
  ["a huge policy", { policyJson: " ".repeat(limits.MAX_SPAWN_POLICY_BYTES + 1) }, /at most 65536 bytes/],
  ["too many processes", { pidsLimit: limits.MAX_PIDS + 1 }, /pids_limit/],
];
for (const [what, fields, message] of bad) {
  Deno.test(`a spawn request with ${what} is refused by field, value and reason`, () => {
    assert.throws(() => parse(fields), (error) => {
      assert(error instanceof RuntimeError);
      assert.equal(error.code, "invalid");
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("an environment error never shows a value", () => {
  const secret = "s3cret";
  const cases = [
    [secret],
    [`A B=${secret}`],
    [`A=${secret}\0`],
    [`A=${secret}`, `A=${secret}`],
    [`=${secret}`],
    [`A=${secret}${"x".repeat(limits.MAX_ENV_ENTRY_BYTES)}`],
    Array.from({ length: 3 }, (_, i) => `A${i}=${secret}${"x".repeat(100_000)}`),
    Array.from({ length: limits.MAX_ENV_ENTRIES + 1 }, (_, i) => `A${i}=${secret}`),
  ];
  for (const env of cases) {
    assert.throws(() => parseEnv(env), (error: Error) => !error.message.includes(secret));
  }
});

Deno.test("good image references pass", () => {
  for (
    const imageRef of [
      "nginx",
      "nginx:1.25",
      "127.0.0.1:5000/test/web:1",
      "[::1]:5000/web",
      "ghcr.io/a/b__c/d-e.f@sha256:" + "a".repeat(64),
      "localhost/x:tag@sha256:" + "0".repeat(64),
    ]
  ) assert.equal(parse({ imageRef }).image, imageRef);
});

Deno.test("an id is nothing but an id or a name", () => {
  for (
    const id of ["../../etc/shadow", "", "a/b", "-x", "A".repeat(12), "x".repeat(64), "a\n", "..", "a.b"]
  ) {
    assert.throws(() => parseIdOrName(id), { code: "invalid" });
  }
  assert.equal(parseIdOrName("0123456789ab"), "0123456789ab");
  assert.equal(parseIdOrName("web-1"), "web-1");
});
