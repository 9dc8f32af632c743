import assert from "node:assert/strict";
import { request } from "../workloads/testing.ts";
import { parseSpawn } from "../workloads/parse_spawn.ts";
import { canonicalJson } from "../canonical.ts";
import { hashOf, MAX_LINE_BYTES } from "./entry.ts";
import { MAX_LIST_LENGTH, specObject } from "./spec_object.ts";

const parse = (fields: Parameters<typeof request>[0]) =>
  specObject(parseSpawn(request(fields), { reservedPorts: new Set(), nodeName: "n1" }));

Deno.test("the spec in proofs says all that was asked for, but no value of the environment", () => {
  const spec = parse({ env: ["B=secret", "A=hidden"], args: ["run"], labels: { team: "x" }, name: "web" });
  const text = canonicalJson(spec);
  assert(!/secret|hidden/.test(text));
  assert.deepEqual([spec.env_keys, spec.ports, spec.args, spec.labels], [["A", "B"], ["8080:80"], ["run"], {
    team: "x",
  }]);
  assert.notEqual(
    hashOf(spec),
    hashOf(parse({ env: ["B=secret"], args: ["run"], labels: { team: "x" }, name: "web" })),
  );
});

Deno.test("lists that are too long stand in the spec by their hash, so that it fits a line", () => {
  const args = ["x".repeat(MAX_LIST_LENGTH - 4)];
  assert.deepEqual(parse({ args }).args, args);
  const long = ["x".repeat(MAX_LIST_LENGTH - 3)];
  assert.deepEqual(parse({ args: long }).args, { sha256: hashOf(long) });
  const env = Array.from({ length: 1_000 }, (_, i) => `${"K".repeat(200)}${i}=1`);
  const spec = parse({ args: Array.from({ length: 1_000 }, () => "y".repeat(100)), env });
  assert(canonicalJson(spec).length < MAX_LINE_BYTES / 2);
});
