import assert from "node:assert/strict";
import { buildImage, buildIndex } from "../../tests/support/images.ts";
import { RuntimeError } from "../errors.ts";
import {
  chainIds,
  type Descriptor,
  digestOf,
  INDEX_TYPES,
  MANIFEST_TYPES,
  manifestType,
  MAX_LAYERS,
  parseConfig,
  parseIndex,
  parseManifest,
  selectPlatform,
} from "./manifest.ts";

const HEX = "a".repeat(64);
const DESCRIPTOR = { mediaType: "x", digest: `sha256:${HEX}`, size: 1 };
const LAYER = { ...DESCRIPTOR, mediaType: "application/vnd.oci.image.layer.v1.tar+gzip" };

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function entry(platform: string): Descriptor {
  const [os, architecture, variant] = platform.split("/");
  return { ...DESCRIPTOR, platform: { os, architecture, variant } };
}

function refusal(code: string, reason: RegExp) {
  return (error: unknown) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, /^Cannot (read|use) /);
    assert.match(error.message, reason);
    return true;
  };
}

Deno.test("manifests of both formats are read", () => {
  for (const format of ["oci", "docker"] as const) {
    const image = buildImage({ layers: [{ a: { content: "a" } }, { b: { content: "b" } }], format });
    const manifest = parseManifest(image.manifest.bytes, "x");
    assert.equal(manifest.config.digest, image.config.digest);
    assert.deepEqual(manifest.layers.map((l) => l.digest), image.layers.map((l) => l.digest));
    const index = buildIndex([image], format);
    const [first] = parseIndex(index.manifest.bytes, "x");
    assert.equal(first.digest, image.manifest.digest);
    assert.equal(first.platform?.os, "linux");
  }
});

Deno.test("a bad manifest is refused with the reason", async (t) => {
  const good = { schemaVersion: 2, config: DESCRIPTOR, layers: [LAYER] };
  const table: [string, unknown, RegExp][] = [
    ["schema 1", { schemaVersion: 1, fsLayers: [] }, /schema version 1/],
    ["no layers", { ...good, layers: undefined }, /layers is not a list/],
    ["no config", { ...good, config: null }, /not an object/],
    ["too many layers", { ...good, layers: Array(MAX_LAYERS + 1).fill(LAYER) }, /more than 127 layers/],
    [
      "foreign layer",
      { ...good, layers: [{ ...LAYER, mediaType: "application/wasm" }] },
      /application\/wasm/,
    ],
    [
      "encrypted layer",
      { ...good, layers: [{ ...LAYER, mediaType: `${LAYER.mediaType}+encrypted` }] },
      /encrypted/,
    ],
    ["bad digest", { ...good, layers: [{ ...LAYER, digest: "sha256:../../x" }] }, /digest/],
    ["other hash", { ...good, config: { ...DESCRIPTOR, digest: `sha512:${HEX}${HEX}` } }, /digest/],
    ["negative size", { ...good, layers: [{ ...LAYER, size: -1 }] }, /size/],
    ["fractional size", { ...good, layers: [{ ...LAYER, size: 1.5 }] }, /size/],
    ["huge size", { ...good, layers: [{ ...LAYER, size: 2 ** 60 }] }, /size/],
    ["size as text", { ...good, layers: [{ ...LAYER, size: "1" }] }, /size/],
    ["array", [], /not a JSON object/],
    ["null", null, /not a JSON object/],
  ];
  for (const [name, value, reason] of table) {
    await t.step(
      name,
      () => assert.throws(() => parseManifest(json(value), "x"), refusal("invalid", reason)),
    );
  }
  await t.step("not JSON", () => {
    for (const bytes of [new Uint8Array(), new Uint8Array([0xff, 0xfe]), new TextEncoder().encode("{")]) {
      assert.throws(() => parseManifest(bytes, "x"), refusal("invalid", /not JSON/));
    }
  });
});

Deno.test("the kind of a document is what it says of itself, then what the transport says, then its shape", () => {
  const image = buildImage({ layers: [{}] });
  assert.equal(manifestType(image.manifest.bytes, "text/plain", "x"), MANIFEST_TYPES[0]);
  assert.equal(
    manifestType(json({ manifests: [] }), `${INDEX_TYPES[1]}; charset=utf-8`, "x"),
    INDEX_TYPES[1],
  );
  assert.equal(manifestType(json({ manifests: [] }), "application/json", "x"), INDEX_TYPES[0]);
  assert.equal(manifestType(json({ schemaVersion: 2, layers: [] }), "", "x"), MANIFEST_TYPES[0]);
  assert.throws(
    () => manifestType(json({ schemaVersion: 1 }), "text/html", "x"),
    refusal("invalid", /text\/html/),
  );
});

Deno.test("an index gives the entry for the platform, its variant first", () => {
  const entries = ["linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/amd64", "windows/amd64"].map(entry);
  const pick = (platform: string) => entries.indexOf(selectPlatform(entries, entry(platform).platform!, "x"));
  assert.equal(pick("linux/amd64"), 3);
  assert.equal(pick("linux/arm/v7"), 1);
  assert.equal(pick("linux/arm64/v8"), 2);
  assert.throws(
    () => selectPlatform([...entries, entry("unknown/unknown")], { os: "linux", architecture: "s390x" }, "x"),
    refusal("not-found", /nothing for linux\/s390x, only linux\/arm\/v6, .*windows\/amd64$/),
  );
  assert.throws(
    () => selectPlatform([DESCRIPTOR, DESCRIPTOR], { os: "linux", architecture: "amd64" }, "x"),
    refusal("not-found", /entries without a platform/),
  );
  assert.equal(selectPlatform([DESCRIPTOR], { os: "linux", architecture: "amd64" }, "x"), DESCRIPTOR);
});

Deno.test("an index is bounded", () => {
  const manifests = Array(1_001).fill(DESCRIPTOR);
  assert.throws(() => parseIndex(json({ manifests }), "x"), refusal("invalid", /more than 1000 entries/));
});

Deno.test("a configuration gives what containers need", () => {
  const config = {
    User: "app",
    Env: ["A=1"],
    Entrypoint: ["/a"],
    Cmd: ["b"],
    WorkingDir: "/w",
    StopSignal: "SIGINT",
  };
  const image = buildImage({ layers: [{ a: { content: "a" } }], config });
  const file = parseConfig(image.config.bytes, "x");
  assert.deepEqual(file.diffIds, image.diffIds);
  assert.deepEqual(file.config, config);
});

Deno.test("a bad configuration is refused with the reason", async (t) => {
  const rootfs = { diff_ids: [] };
  const table: [string, unknown, RegExp][] = [
    ["no rootfs", {}, /diff_ids is not a list/],
    ["bad diff id", { rootfs: { diff_ids: ["sha256:x"] } }, /diff id/],
    ["number as diff id", { rootfs: { diff_ids: [1] } }, /diff id/],
    ["Env", { rootfs, config: { Env: "A=1" } }, /config\.Env is not a list/],
    ["Cmd", { rootfs, config: { Cmd: [1] } }, /config\.Cmd is not a list of strings/],
    ["config", { rootfs, config: 7 }, /config is not an object/],
  ];
  for (const [name, value, reason] of table) {
    await t.step(name, () => assert.throws(() => parseConfig(json(value), "x"), refusal("invalid", reason)));
  }
  await t.step("nulls are taken as absent", () => {
    const file = parseConfig(json({ rootfs, config: { Cmd: null, Env: null } }), "x");
    assert.deepEqual([file.config.Cmd, file.config.Env], [undefined, undefined]);
  });
});

Deno.test("chain ids follow the image specification", () => {
  const [a, b, c] = ["a", "b", "c"].map((x) => digestOf(new TextEncoder().encode(x)));
  const ab = digestOf(new TextEncoder().encode(`${a} ${b}`));
  assert.deepEqual(chainIds([a, b, c]), [a, ab, digestOf(new TextEncoder().encode(`${ab} ${c}`))]);
  assert.deepEqual(chainIds([]), []);
});
