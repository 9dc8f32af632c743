import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { MAX_REFERENCE_LENGTH, parseReference } from "./reference.ts";

const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

Deno.test("a reference is completed as Docker does", async (t) => {
  const table: Record<string, string> = {
    "nginx": "docker.io/library/nginx:latest",
    "nginx:1.25": "docker.io/library/nginx:1.25",
    "someone/app": "docker.io/someone/app:latest",
    "docker.io/nginx": "docker.io/library/nginx:latest",
    "index.docker.io/library/nginx:1": "docker.io/library/nginx:1",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/a/b/c:v1": "localhost:5000/a/b/c:v1",
    "127.0.0.1:5000/app": "127.0.0.1:5000/app:latest",
    "[::1]:5000/app:x": "[::1]:5000/app:x",
    "registry.example.com/app": "registry.example.com/app:latest",
    "UPPER/app": "UPPER/app:latest",
    [`app@${DIGEST}`]: `docker.io/library/app@${DIGEST}`,
    [`app:1@${DIGEST}`]: `docker.io/library/app:1@${DIGEST}`,
    [`host:1/app@${DIGEST}`]: `host:1/app@${DIGEST}`,
    "a__b/c--d/e.f": "docker.io/a__b/c--d/e.f:latest",
    "app:_Tag.with-all_123": "docker.io/library/app:_Tag.with-all_123",
  };
  for (const [text, name] of Object.entries(table)) {
    await t.step(text, () => {
      assert.equal(parseReference(text).name, name);
      assert.deepEqual(parseReference(name), parseReference(text), "the canonical name means the same");
    });
  }
});

Deno.test("a reference is taken apart", () => {
  assert.deepEqual(parseReference(`host:5000/a/b:1@${DIGEST}`), {
    registry: "host:5000",
    repository: "a/b",
    tag: "1",
    digest: DIGEST,
    name: `host:5000/a/b:1@${DIGEST}`,
  });
});

Deno.test("a bad reference is refused with the reason", async (t) => {
  const table: Record<string, RegExp> = {
    "": /empty/,
    "https://host/app": /scheme/,
    "host/": /host/,
    "docker.io/": /missing|empty/,
    "/app": /empty path component/,
    "a//b": /empty path component/,
    "a/../b": /"\.\."/,
    "../../etc/passwd": /not a registry host/,
    "host.example/App": /"App"/,
    "app:": /tag ""/,
    "app:-x": /tag "-x"/,
    [`app:${"t".repeat(129)}`]: /tag/,
    "app name": /"app name"/,
    "app\n": /may hold/,
    "app;rm -rf": /may hold/,
    "--flag": /may hold/,
    "app@sha256:12": /digest/,
    "app@md5:0123": /digest/,
    [`app@${DIGEST.toUpperCase()}`]: /digest/,
    [`app@${DIGEST}@${DIGEST}`]: /digest/,
    "host:0/app": /not a registry host/,
    "host:65536/app": /not a registry host/,
    "-host.x/app": /not a registry host/,
    [`${"a".repeat(254)}`]: /longer than 255/,
    [`${"a".repeat(MAX_REFERENCE_LENGTH + 1)}`]: /longer than 512/,
  };
  for (const [text, reason] of Object.entries(table)) {
    await t.step(JSON.stringify(text.slice(0, 40)), () => {
      assert.throws(() => parseReference(text), (error: unknown) => {
        assert(error instanceof RuntimeError);
        assert.equal(error.code, "invalid");
        assert.match(error.message, /^Cannot use image "/);
        assert.match(error.message, reason);
        return true;
      });
    });
  }
});
