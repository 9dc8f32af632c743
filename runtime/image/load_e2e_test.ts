import assert from "node:assert/strict";
import {
  blobPath,
  blobsOf,
  buildImage,
  buildIndex,
  busyboxImage,
  compress,
  dockerArchiveTar,
  HOST_PLATFORM,
  jsonBlob,
  ociLayoutTar,
  type TarEntry,
  writeTar,
} from "../../tests/support/images.ts";
import { ImageBench, must, refusal } from "./testing.ts";

const NAME = "docker.io/test/loaded:1";

function fresh(text: string = crypto.randomUUID()) {
  return buildImage({
    layers: [{ text: { content: text } }, { more: { content: "more" } }],
    compression: "none",
  });
}

async function* pieces(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += 50_000) {
    await Promise.resolve();
    yield bytes.subarray(offset, offset + 50_000);
  }
}

async function* file(path: string): AsyncIterable<Uint8Array> {
  using opened = await Deno.open(path);
  yield* opened.readable.values({ preventCancel: true });
}

Deno.test("archives of both kinds are loaded, plain, gzipped and zstd-compressed", async () => {
  await using bench = await ImageBench.create();
  for (const compression of ["none", "gzip", "zstd"] as const) {
    for (const kind of ["oci", "docker"] as const) {
      const text = `${kind} ${compression}`;
      const image = fresh(text);
      const tar = kind === "oci"
        ? ociLayoutTar([{ image, name: NAME }])
        : dockerArchiveTar([{ image, names: [NAME, "test/other:2"] }]);
      const loaded = await bench.store.load(pieces(compress(tar, compression)));
      assert.deepEqual(
        loaded.map(({ name }) => name).sort(),
        kind === "oci" ? [NAME] : [NAME, "docker.io/test/other:2"],
      );
      const unpacked = await bench.store.ensure(NAME);
      await bench.withFiles(unpacked, async (dir) => {
        assert.equal(await Deno.readTextFile(`${dir}/text`), text);
      });
    }
  }
  for (const { name } of await bench.store.list()) await bench.store.remove(name);
  await bench.assertEmpty();
});

Deno.test("what skopeo and umoci write is loaded", async (t) => {
  await using bench = await ImageBench.create();
  const dir = await Deno.makeTempDir({ dir: bench.containerd.scratch });
  await t.step("umoci's layout", async () => {
    const layout = `${dir}/layout`;
    await must("umoci", "init", "--layout", layout);
    await must("umoci", "new", "--image", `${layout}:base`);
    await must("umoci", "unpack", "--image", `${layout}:base`, `${dir}/bundle`);
    await Deno.writeTextFile(`${dir}/bundle/rootfs/text`, "by umoci");
    await must("umoci", "repack", "--image", `${layout}:test/umoci`, `${dir}/bundle`);
    await must("umoci", "rm", "--image", `${layout}:base`).catch(() => undefined);
    await must("tar", "-C", layout, "-cf", `${dir}/layout.tar`, ".");
    const images = await bench.store.load(file(`${dir}/layout.tar`)).catch((error) => error);
    // umoci takes the new tag's slash for a name of a layout; what it wrote decides.
    assert(Array.isArray(images), String(images));
    await bench.withFiles(await bench.store.ensure(images.at(-1).name), async (root) => {
      assert.equal(await Deno.readTextFile(`${root}/text`), "by umoci");
    });
  });
  await t.step("skopeo's docker-archive", async () => {
    const image = busyboxImage({ text: "by skopeo\n" });
    await Deno.mkdir(`${dir}/oci`);
    await Deno.writeFile(`${dir}/oci.tar`, ociLayoutTar([{ image, name: "web" }]));
    await must("tar", "-C", `${dir}/oci`, "-xf", `${dir}/oci.tar`);
    await must("skopeo", "copy", `oci:${dir}/oci:web`, `docker-archive:${dir}/docker.tar:test/skopeo:3`);
    const [{ name }] = await bench.store.load(file(`${dir}/docker.tar`));
    assert.equal(name, "docker.io/test/skopeo:3");
    const unpacked = await bench.store.ensure(name);
    assert.deepEqual(unpacked.config.Cmd, ["/bin/start"]);
    await bench.withFiles(unpacked, async (root) => {
      assert.equal(await Deno.readTextFile(`${root}/www/index.html`), "by skopeo\n");
    });
  });
});

Deno.test("an archive with an index gives this machine's image; one with several images gives all", async () => {
  await using bench = await ImageBench.create();
  const other = buildImage({
    layers: [{ a: { content: "s390x" } }],
    platform: { os: "linux", architecture: "s390x" },
  });
  const mine = fresh();
  const index = buildIndex([other, mine]);
  const second = fresh();
  const loaded = await bench.store.load(
    pieces(
      ociLayoutTar([{ image: index, name: NAME }, { image: second, name: "test/second" }, {
        image: fresh(),
      }]),
    ),
  );
  assert.deepEqual(loaded.map(({ name, digest, platform }) => [name, digest, platform]), [
    [NAME, index.manifest.digest, `${HOST_PLATFORM.os}/${HOST_PLATFORM.architecture}`],
    [
      "docker.io/test/second:latest",
      second.manifest.digest,
      `${HOST_PLATFORM.os}/${HOST_PLATFORM.architecture}`,
    ],
  ]);
  for (const { name } of loaded) await bench.store.ensure(name);
});

Deno.test("loading what is there already changes nothing", async () => {
  await using bench = await ImageBench.create();
  const image = fresh();
  const tar = ociLayoutTar([{ image, name: NAME }]);
  // The archive's own files, such as index.json, are garbage that containerd collects in its own time.
  const holdings = async () => {
    const { blobs, ...others } = await bench.holdings();
    const own = blobsOf(image).map(({ digest }) => digest);
    return { ...others, blobs: blobs.filter((digest) => own.includes(digest)) };
  };
  await bench.store.load(pieces(tar));
  const before = await holdings();
  assert.equal(before.blobs.length, 4);
  await bench.store.load(pieces(tar));
  await Promise.all([1, 2].map(() => bench.store.load(pieces(tar))));
  assert.deepEqual(await holdings(), before);
});

Deno.test("a bad archive is refused and leaves nothing", async (t) => {
  await using bench = await ImageBench.create();
  const image = fresh();
  const tar = ociLayoutTar([{ image, name: NAME }]);
  const layout = (change: (files: Record<string, TarEntry>) => void) => {
    const files: Record<string, TarEntry> = {};
    for (const { digest, bytes } of blobsOf(image)) files[blobPath(digest)] = { bytes };
    const { mediaType, digest, size } = image.manifest;
    const manifests = [{
      mediaType,
      digest,
      size,
      annotations: { "org.opencontainers.image.ref.name": NAME },
    }];
    files["index.json"] = { bytes: jsonBlob("", { schemaVersion: 2, manifests }).bytes };
    change(files);
    return writeTar(files);
  };
  const layer = blobPath(image.layers[0].digest);
  const table: [string, Uint8Array<ArrayBuffer>, RegExp][] = [
    ["empty", new Uint8Array(), /empty|not a tar/],
    ["no tar", new TextEncoder().encode("no tar ".repeat(200)), /Cannot load/],
    ["cut off", tar.slice(0, tar.length / 2 | 0), /Cannot load/],
    ["cut off, gzip", compress(tar, "gzip").slice(0, 500), /Cannot load/],
    ["no images", writeTar({ a: { content: "a" } }), /no image with a name/],
    ["no names", ociLayoutTar([{ image }]), /no image with a name/],
    ["a bad name", ociLayoutTar([{ image, name: "UP/per/CASE" }]), /Cannot use image/],
    ["climbing path", layout((files) => files["../../evil"] = { content: "x" }), /leads out of it/],
    [
      "climbing link",
      layout((files) => files["blobs/x"] = { symlink: "../../etc/passwd" }),
      /leads out of it/,
    ],
    ["layer missing", layout((files) => delete files[layer]), /lacks/],
    ["layer changed", layout((files) => files[layer] = { content: "other" }), /lacks|digest/],
    [
      "manifest changed",
      layout((files) => files[blobPath(image.manifest.digest)] = { bytes: fresh().manifest.bytes }),
      /has digest/,
    ],
    ["index.json not JSON", layout((files) => files["index.json"] = { content: "{" }), /not JSON/],
    ["manifest.json not a list", writeTar({ "manifest.json": { content: "{}" } }), /not a list/],
    ["manifest.json with null", writeTar({ "manifest.json": { content: "[null]" } }), /without Config/],
    [
      "manifest.json naming nothing",
      writeTar({ "manifest.json": { content: '[{"Config":"/etc/passwd","Layers":[],"RepoTags":["a:1"]}]' } }),
      /lacks "\/etc\/passwd"/,
    ],
  ];
  for (const [name, bytes, reason] of table) {
    await t.step(name, async () => {
      await assert.rejects(bench.store.load(pieces(bytes)), refusal("invalid", reason));
      await bench.assertEmpty();
    });
  }
  await t.step("another platform", async () => {
    const other = buildImage({
      layers: [{ a: { content: "a" } }],
      platform: { os: "linux", architecture: "s390x" },
    });
    const archive = ociLayoutTar([{ image: other, name: NAME }]);
    await assert.rejects(bench.store.load(pieces(archive)), refusal("not-found", /s390x/));
    await bench.assertEmpty();
  });
});

Deno.test("a load that is cancelled leaves nothing", async () => {
  await using bench = await ImageBench.create();
  const controller = new AbortController();
  const tar = ociLayoutTar([{ image: busyboxImage({ compression: "none" }), name: NAME }]);
  const source = async function* () {
    yield tar.subarray(0, 1 << 20);
    controller.abort();
    yield tar.subarray(1 << 20);
  };
  await assert.rejects(
    bench.store.load(source(), { signal: controller.signal }),
    refusal("canceled", /canceled/),
  );
  await bench.assertEmpty();
});
