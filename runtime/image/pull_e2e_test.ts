import assert from "node:assert/strict";
import { startFaultRegistry } from "../../tests/support/fault_registry.ts";
import {
  blobsOf,
  buildImage,
  buildIndex,
  busyboxImage,
  type Compression,
  HOST_PLATFORM,
  type TarEntry,
} from "../../tests/support/images.ts";
import { randomBytes } from "../../tests/support/random.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { dockerConfigCredentials } from "./auth.ts";
import { ImageBench, refusal, SNAPSHOTTER } from "./testing.ts";

Deno.test("an image is pulled from docker-registry by tag and by digest, and is what was pushed", async (t) => {
  await using bench = await ImageBench.create();
  await using registry = await startRegistry();
  const image = busyboxImage({ text: "hi\n", config: { User: "app", StopSignal: "SIGINT" } });
  const name = await registry.push(image, "test/web:1");
  await t.step("by tag", async () => {
    const progress = new Map<string, string[]>();
    const unpacked = await bench.store.ensure(name, {
      onProgress: ({ digest, status }) => progress.set(digest, [...progress.get(digest) ?? [], status]),
    });
    assert.equal(unpacked.name, name);
    assert.equal(unpacked.digest, image.manifest.digest);
    assert.deepEqual(unpacked.config.Cmd, ["/bin/start"]);
    assert.equal(unpacked.config.User, "app");
    assert.equal(unpacked.config.StopSignal, "SIGINT");
    await bench.withFiles(unpacked, async (dir) => {
      assert.equal(await Deno.readTextFile(`${dir}/www/index.html`), "hi\n");
      assert.equal((await Deno.stat(`${dir}/home/app`)).uid, 1000);
      assert.equal((await Deno.stat(`${dir}/tmp`)).mode! & 0o7777, 0o1777);
      assert.equal(await Deno.readLink(`${dir}/bin/sh`), "busybox");
    });
    for (const { digest } of image.layers) assert.equal(progress.get(digest)?.at(-1), "done");
    const { leases, ingests } = await bench.holdings();
    assert.deepEqual([leases, ingests], [[], []]);
  });
  await t.step("by digest, without the registry's blobs", async () => {
    const { digest } = await bench.store.ensure(`${registry.host}/test/web@${image.manifest.digest}`);
    assert.equal(digest, image.manifest.digest);
  });
  await t.step("what is here is not asked for", async () => {
    registry.parts.process.kill("SIGKILL");
    assert.equal((await bench.store.ensure(name)).digest, image.manifest.digest);
  });
});

Deno.test("docker-registry with a password: credentials from config.json and from a helper", async (t) => {
  await using bench = await ImageBench.create();
  await using registry = await startRegistry({ auth: { user: "user", password: "s3cret" } });
  const name = await registry.push(buildImage({ layers: [{ a: { content: "a" } }] }), "test/a:1");
  const dir = bench.containerd.scratch;
  const file = `${dir}/config.json`;
  const store = bench.newStore({ credentials: dockerConfigCredentials(file) });
  await t.step("none", async () => {
    await assert.rejects(store.ensure(name), refusal("unauthenticated", /user name and password/));
  });
  await t.step("wrong", async () => {
    await Deno.writeTextFile(file, JSON.stringify({ auths: { [registry.host]: { auth: btoa("user:no") } } }));
    await assert.rejects(store.ensure(name), refusal("unauthenticated", /refuses the credentials/));
    await bench.assertEmpty();
  });
  await t.step("config.json", async () => {
    const auths = { [registry.host]: { auth: btoa("user:s3cret") } };
    await Deno.writeTextFile(file, JSON.stringify({ auths }));
    await store.ensure(name);
    await store.remove(name);
  });
  await t.step("helper", async () => {
    const path = Deno.env.get("PATH")!;
    await Deno.writeTextFile(
      `${dir}/docker-credential-fake`,
      `#!/bin/sh\nread host; [ "$host" = ${registry.host} ] && echo '{"Username":"user","Secret":"s3cret"}'\n`,
      { mode: 0o755 },
    );
    await Deno.writeTextFile(file, JSON.stringify({ credsStore: "fake" }));
    Deno.env.set("PATH", `${dir}:${path}`);
    try {
      await bench.newStore({ credentials: dockerConfigCredentials(file) }).ensure(name);
    } finally {
      Deno.env.set("PATH", path);
    }
  });
});

Deno.test("an index gives this machine's image, and nothing of the others comes", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const [mine, other] = [HOST_PLATFORM, { os: "linux", architecture: "s390x" }].map((platform) =>
    buildImage({ layers: [{ arch: { content: platform.architecture } }], platform })
  );
  for (const format of ["oci", "docker"] as const) {
    const index = buildIndex([other, mine], format);
    const image = await bench.store.ensure(registry.add(index, `test/multi:${format}`));
    assert.equal(image.digest, index.manifest.digest);
    await bench.withFiles(image, async (dir) => {
      assert.equal(await Deno.readTextFile(`${dir}/arch`), HOST_PLATFORM.architecture);
    });
  }
  for (const { digest } of blobsOf(other)) assert.equal(registry.matching({ target: digest }).length, 0);
  const foreign = registry.add(buildIndex([other]), "test/foreign:1");
  await assert.rejects(
    bench.store.ensure(foreign),
    refusal("not-found", /nothing for linux\/.*only linux\/s390x/),
  );
  const single = registry.add(other, "test/single:1");
  await assert.rejects(bench.store.ensure(single), refusal("not-found", /it is for linux\/s390x/));
});

Deno.test("layers are unpacked whatever they are packed with, whiteouts and all", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const layers: Record<string, TarEntry>[] = [
    {
      "keep": { content: "1" },
      "gone": { content: "1" },
      "dir/old": { content: "1" },
      "opaque/old": { content: "1" },
      "link": { symlink: "keep" },
    },
    {
      ".wh.gone": {},
      "dir/.wh.old": {},
      "dir/new": { content: "2", uid: 7, gid: 8, mode: 0o4755 },
      "opaque/.wh..wh..opq": {},
      "opaque/new": { content: "2" },
      "hard": { hardlink: "dir/new", uid: 7, gid: 8, mode: 0o4755 },
    },
    { "keep": { content: "3" }, [`deep/${"n".repeat(120)}`]: { content: "3" } },
  ];
  const packings: (Compression | Compression[])[] = ["none", "gzip", "zstd", ["zstd", "none", "gzip"]];
  for (const [i, compression] of packings.entries()) {
    for (const format of ["oci", "docker"] as const) {
      // Another file each time, so that nothing is there already.
      const own = { [`own-${i}-${format}`]: { content: "x" } };
      const built = buildImage({
        layers: [{ ...layers[0], ...own }, ...layers.slice(1)],
        compression,
        format,
      });
      const image = await bench.store.ensure(registry.add(built, `test/layers-${i}:${format}`));
      await bench.withFiles(image, async (dir) => {
        const names = (path: string) =>
          [...Deno.readDirSync(`${dir}/${path}`)].map(({ name }) => name).sort();
        assert.deepEqual(names("").sort(), [
          "deep",
          "dir",
          "hard",
          "keep",
          "link",
          "opaque",
          Object.keys(own)[0],
        ]);
        assert.deepEqual(names("dir"), ["new"]);
        assert.deepEqual(names("opaque"), ["new"]);
        assert.equal(await Deno.readTextFile(`${dir}/link`), "3");
        const { uid, gid, mode } = await Deno.stat(`${dir}/dir/new`);
        assert.deepEqual([uid, gid, mode! & 0o7777], [7, 8, 0o4755]);
      });
    }
  }
});

Deno.test("pulls of one image at the same time download and unpack once", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const image = buildImage({
    layers: [{ a: { bytes: randomBytes(300_000) } }, { b: { bytes: randomBytes(200_000) } }],
  });
  const [first, second] = [registry.add(image, "test/one:1"), registry.add(image, "test/two:1")];
  const unpacked = await Promise.all(
    [first, first, second, first, second].map((name) => bench.store.ensure(name)),
  );
  assert.equal(new Set(unpacked.map(({ chainId }) => chainId)).size, 1);
  for (const { digest, size } of [...image.layers, image.config]) {
    assert.equal(registry.bytesSent({ target: digest }), size);
  }
  assert.equal((await bench.holdings()).snapshots.length, 2);
});

Deno.test("two stores, as two agents have, share a containerd without harm", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const name = registry.add(buildImage({ layers: [{ a: { bytes: randomBytes(500_000) } }] }), "test/a:1");
  const stores = [bench.store, bench.newStore()];
  const [one, two] = await Promise.all(stores.map((store) => store.ensure(name)));
  assert.deepEqual(one, two);
  const { leases, ingests, snapshots } = await bench.holdings();
  assert.deepEqual([leases, ingests, snapshots.length], [[], [], 1]);
});

Deno.test("images that share layers share blobs and snapshots; removing one leaves the other whole", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const base = { base: { bytes: randomBytes(200_000) } };
  const [one, two] = ["one", "two"].map((text) =>
    buildImage({ layers: [base, { text: { content: text } }] })
  );
  const names = [registry.add(one, "test/one:1"), registry.add(two, "test/two:1")];
  for (const name of names) await bench.store.ensure(name);
  assert.equal(registry.bytesSent({ target: one.layers[0].digest }), one.layers[0].size);
  assert.equal((await bench.holdings()).snapshots.length, 3);
  assert.deepEqual((await bench.store.list()).map(({ name }) => name).sort(), [...names].sort());
  const listed = await bench.store.get(names[0]);
  assert.equal(listed.digest, one.manifest.digest);
  assert.equal(listed.sizeBytes, blobsOf(one).reduce((sum, { size }) => sum + size, 0));
  assert.equal(listed.platform, `${HOST_PLATFORM.os}/${HOST_PLATFORM.architecture}`);
  assert(listed.createdAtMs > 0);

  await bench.store.remove(names[0]);
  const { blobs, snapshots } = await bench.holdings();
  assert.deepEqual(blobs, blobsOf(two).map(({ digest }) => digest).sort());
  assert.equal(snapshots.length, 2);
  await bench.withFiles(await bench.store.ensure(names[1]), async (dir) => {
    assert.equal(await Deno.readTextFile(`${dir}/text`), "two");
  });
  await bench.store.remove(names[1]);
  await bench.assertEmpty();
  await assert.rejects(bench.store.remove(names[1]), refusal("not-found", /not on this node/));
  await assert.rejects(bench.store.get(names[1]), refusal("not-found", /not on this node/));
});

Deno.test("an image whose snapshots were lost is unpacked again from its blobs", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const name = registry.add(
    buildImage({ layers: [{ a: { content: "a" } }, { b: { content: "b" } }] }),
    "test/a:1",
  );
  const { chainId } = await bench.store.ensure(name);
  const requests = registry.requests.length;
  await bench.client.snapshots.remove({ snapshotter: SNAPSHOTTER, key: chainId });
  assert.equal((await bench.store.ensure(name)).chainId, chainId);
  assert.equal(registry.requests.length, requests);
  assert.equal((await bench.holdings()).snapshots.length, 2);
});

Deno.test("pull takes the registry's image over the one that is here", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const [old, fresh] = ["old", "new"].map((content) => buildImage({ layers: [{ a: { content } }] }));
  const name = registry.add(old, "test/a:1");
  await bench.store.pull(name);
  registry.add(fresh, "test/a:1");
  assert.equal((await bench.store.ensure(name)).digest, old.manifest.digest);
  assert.equal((await bench.store.pull(name)).digest, fresh.manifest.digest);
  assert.equal((await bench.store.ensure(name)).digest, fresh.manifest.digest);
});
