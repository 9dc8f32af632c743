import assert from "node:assert/strict";
import { parseAuthority } from "./authority.ts";
import { HttpError } from "./http_error.ts";

Deno.test("an authority is split into its hostname and first label", () => {
  assert.deepEqual(parseAuthority("A1.Example.com:8080"), { hostname: "a1.example.com", label: "a1" });
  assert.deepEqual(parseAuthority("a1"), { hostname: "a1", label: "a1" });
  assert.deepEqual(parseAuthority("[::1]:80"), { hostname: "[::1]", label: "[::1]" });
  assert.deepEqual(parseAuthority("a:"), { hostname: "a", label: "a" });
});

for (
  const bad of [
    "",
    "a b",
    "u@a",
    "a/b",
    'a"',
    "a:b",
    "a:65536",
    "a:1:2",
    ":80",
    "[::1",
    "::1",
    "[g]",
    "a\\b",
    "a,b",
    "a".repeat(300),
  ]
) {
  Deno.test(`${JSON.stringify(bad.slice(0, 20))} is no authority`, () => {
    assert.throws(() => parseAuthority(bad), (error) => error instanceof HttpError && error.status === 400);
  });
}
