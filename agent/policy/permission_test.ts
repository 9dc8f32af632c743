import assert from "node:assert/strict";
import type { PlacedWorkload, PlacementRequest } from "./facts.ts";
import { requestFindings } from "./permission.ts";
import { fileParser, placed, placement } from "./testing.ts";
import type { PermissionsFile } from "./wire.ts";

const parse = fileParser();
const DIGEST = `sha256:${"a".repeat(64)}`;
const OTHER = `sha256:${"b".repeat(64)}`;

function reasons(
  permissions: PermissionsFile,
  request: Partial<PlacementRequest>,
  running: PlacedWorkload[] = [],
): string[] {
  return requestFindings(parse({ permissions }), placement(request), () => running)
    .map(({ rule, reason }) => `${rule}: ${reason}`);
}

const ports = (...pairs: [number, number][]) => ({
  ports: pairs.map(([hostPort, containerPort]) => ({ hostPort, containerPort })),
});

const rows: Record<
  string,
  {
    rule: PermissionsFile;
    admits: Partial<PlacementRequest>[];
    refuses: [Partial<PlacementRequest>, RegExp][];
  }
> = {
  "allowed images": {
    rule: { allowed_images: ["web", "registry.example/team/*:v1.*", "registry.example/base/**"] },
    admits: [
      { image: "web" },
      { image: "web:2" },
      { image: `web@${DIGEST}` },
      { image: "registry.example/team/api:v1.4" },
      { image: "registry.example/base/os/debian:12" },
    ],
    refuses: [
      [{ image: "webx" }, /allowed_images: image ".*\/webx:latest" is none of web, /],
      [{ image: "evil.example/library/web" }, /is none of/],
      [{ image: "localhost/web" }, /is none of/],
      [{ image: "registry.example/team/api:v2" }, /is none of/],
      [{ image: "registry.example/team/api/x:v1.4" }, /is none of/],
      [{ image: `registry.example/team/api:v1.4@${DIGEST}` }, /is none of/],
    ],
  },
  "denied images": {
    rule: { denied_images: ["**/miner", "web:1"] },
    admits: [{ image: "web:2" }],
    refuses: [[
      { image: "evil.example/x/miner:3" },
      /denied_images: image "evil\.example\/x\/miner:3" is one of/,
    ], [
      { image: "web:1" },
      /is one of web:1/,
    ]],
  },
  "allowed registries": {
    rule: { allowed_registries: ["registry.example", "*.internal:5000"] },
    admits: [{ image: "registry.example/a" }, { image: "eu.internal:5000/a" }],
    refuses: [[{ image: "a" }, /allowed_registries: registry /], [
      { image: "eu.internal/a" },
      /"eu\.internal"/,
    ]],
  },
  "images by digest": {
    rule: { require_image_digest: true },
    admits: [{ image: `web@${DIGEST}` }, { image: `web:1@${DIGEST}` }],
    refuses: [[{ image: "web:1" }, /require_image_digest: image .* is not given by its digest/]],
  },
  "one digest of an image": {
    rule: { required_image_digests: { web: DIGEST } },
    admits: [{ image: `web@${DIGEST}` }, { image: `web:1@${DIGEST}` }, { image: "other:1" }],
    refuses: [[{ image: "web:1" }, /required_image_digests/], [{ image: `web@${OTHER}` }, /required of web/]],
  },
  "the most vCPUs": {
    rule: { max_cores: 1.5 },
    admits: [{ milliCpus: 1500 }],
    refuses: [[{ milliCpus: 1501 }, /max_cores: 1\.501 vCPUs are asked for, at most 1\.5/]],
  },
  "the most memory": {
    rule: { max_memory_mib: 256 },
    admits: [{ memoryBytes: 256 * 2 ** 20 }],
    refuses: [[
      { memoryBytes: 257 * 2 ** 20 },
      /max_memory_mib: 257 MiB of memory are asked for, at most 256/,
    ]],
  },
  "the most environment variables": {
    rule: { max_env: 1 },
    admits: [{ env: ["A=1"] }],
    refuses: [[{ env: ["A=1", "B=2"] }, /max_env: 2 environment variables/]],
  },
  "the most ports": {
    rule: { max_ports: 1 },
    admits: [ports([80, 80])],
    refuses: [[ports([80, 80], [81, 80]), /max_ports: 2 ports/]],
  },
  "allowed host ports": {
    rule: { allowed_host_ports: [443, "8000-8099"] },
    admits: [ports([443, 1], [8000, 1], [8099, 1])],
    refuses: [[ports([80, 443]), /allowed_host_ports: host port 80 is none of 443, 8000-8099/]],
  },
  "allowed container ports": {
    rule: { allowed_container_ports: [8080] },
    admits: [ports([80, 8080])],
    refuses: [[ports([8080, 80]), /allowed_container_ports: container port 80 is none of 8080/]],
  },
  "allowed runtimes": {
    rule: { allowed_runtimes: ["runc", "io.containerd.*"] },
    admits: [{}, { runtime: { name: "io.containerd.kata.v2" } }],
    refuses: [[{ runtime: { name: "runsc" } }, /allowed_runtimes: runtime "runsc" is none of runc/]],
  },
  "allowed environment": {
    rule: { allowed_env_keys: ["APP_*", "TZ"] },
    admits: [{ env: ["APP_A=x", "TZ=UTC"] }],
    refuses: [[
      { env: ["APP_A=x", "LD_PRELOAD=secret"] },
      /allowed_env_keys: environment variable "LD_PRELOAD" is/,
    ]],
  },
  "required labels": {
    rule: { required_labels: ["team"] },
    admits: [{ labels: { team: "" } }],
    refuses: [[{ labels: { app: "x" } }, /required_labels: label "team" is missing/]],
  },
};
for (const [what, { rule, admits, refuses }] of Object.entries(rows)) {
  Deno.test(`${what}: what keeps the rule is admitted, what breaks it refused with the reason`, () => {
    for (const request of admits) assert.deepEqual(reasons(rule, request), []);
    for (const [request, message] of refuses) assert.match(reasons(rule, request).join("; "), message);
  });
}

Deno.test("a reason never shows the value of an environment variable", () => {
  const text = reasons({ allowed_env_keys: [], max_env: 0 }, { env: ["A=s3cret"] }).join();
  assert.doesNotMatch(text, /s3cret/);
});

Deno.test("a quota counts what has the same value of the label, and not the workload itself", () => {
  const permissions: PermissionsFile = {
    quotas: [{ label: "team", max_workloads: 2, max_cores: 3, max_memory_mib: 1536 }],
  };
  const of = (team: string, id: string) => placed({ id, labels: { team } });
  const two = [of("a", "1"), of("a", "2"), of("b", "3")];
  assert.deepEqual(reasons(permissions, { labels: { team: "b" } }, two), []);
  assert.deepEqual(reasons(permissions, { labels: { team: "a" } }, two), [
    "permissions.quotas[0]: team=a has 2 of 2 workloads, 1 more are asked for",
  ]);
  assert.deepEqual(reasons(permissions, { id: "2", labels: { team: "a" } }, two), []);
  assert.match(
    reasons(permissions, { labels: { team: "b" }, milliCpus: 2500 }, two)[0],
    /1 of 3 vCPUs, 2\.5 more/,
  );
  assert.match(
    reasons(permissions, { labels: { team: "b" }, memoryBytes: 2 ** 30 + 1 }, two)[0],
    /512 of 1536 MiB of memory/,
  );
  assert.deepEqual(reasons(permissions, { labels: {} }, two), [], "no label, no quota");
});

Deno.test("a quota with a value is for the values that match", () => {
  const permissions: PermissionsFile = { quotas: [{ label: "team", value: "trial-*", max_workloads: 0 }] };
  assert.deepEqual(reasons(permissions, { labels: { team: "paying" } }), []);
  assert.match(reasons(permissions, { labels: { team: "trial-1" } })[0], /0 of 0 workloads/);
});

Deno.test("a port that the network rules close is refused at the spawn", () => {
  const policy = parse({ network: { ingress_ports: ["8000-8080"] } });
  const rules = (port: number) =>
    requestFindings(policy, placement(ports([80, port])), () => []).map(({ rule }) => rule);
  assert.deepEqual(rules(8080), []);
  assert.deepEqual(rules(22), ["network.ingress_ports"]);
});
