import assert from "node:assert/strict";
import { startFaultRegistry } from "../../tests/support/fault_registry.ts";
import { buildImage, withManifest } from "../../tests/support/images.ts";
import { randomBytes } from "../../tests/support/random.ts";
import { ImageBench, must, refusal, SNAPSHOTTER } from "./testing.ts";

const LARGE_LAYER_BYTES = 300 << 20;

Deno.test("a broken or stalled download goes on where it was", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const size = 6 << 20;
  const image = buildImage({ layers: [{ a: { bytes: randomBytes(size) } }], compression: "none" });
  const [{ digest }] = image.layers;
  const name = registry.add(image, "test/a:1");
  registry.fault = ({ target, attempt }) =>
    target !== digest || attempt > 3
      ? undefined
      : attempt === 2
      ? { kind: "stall", afterBytes: 1 << 20 }
      : { kind: "break", afterBytes: 1 << 20 };
  // Long enough that what is busy, this process or the machine, does not count as dead.
  await bench.newStore({ stallTimeoutMs: 5_000 }).ensure(name);
  const requests = registry.matching({ target: digest });
  assert.equal(requests.length, 5);
  for (const { rangeStart } of requests.slice(1)) assert(rangeStart! > 0);
  assert(registry.bytesSent({ target: digest }) < 1.6 * size, "about the size once, not five times");
});

Deno.test("what is not what its digest says leaves nothing behind", async (t) => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const image = buildImage({
    layers: [{ a: { bytes: randomBytes(100_000) } }, { b: { bytes: randomBytes(100_000) } }],
  });
  const name = registry.add(image, "test/a:1");
  for (const [what, { digest }] of Object.entries({ layer: image.layers[1], config: image.config })) {
    await t.step(`corrupt ${what}`, async () => {
      registry.fault = ({ target }) => target === digest ? { kind: "corrupt", at: 50 } : undefined;
      await assert.rejects(bench.store.ensure(name), refusal("failed", /digest/));
      await bench.assertEmpty();
    });
    await t.step(`${what} too long`, async () => {
      registry.fault = ({ target }) => target === digest ? { kind: "resize", bytes: 10 } : undefined;
      await assert.rejects(bench.store.ensure(name), refusal("failed", /larger than/));
      await bench.assertEmpty();
    });
  }
  registry.fault = () => undefined;
  await t.step("a layer that is not its diff id", async () => {
    const [other] = buildImage({ layers: [{ c: { content: "c" } }] }).layers;
    const lie = withManifest({ ...image, layers: [image.layers[0], other] });
    await assert.rejects(
      bench.store.ensure(registry.add(lie, "test/lie:1")),
      refusal("failed", /the image says/),
    );
    await bench.assertEmpty();
  });
  await t.step("a layer that is no tar", async () => {
    const bad = buildImage({ layers: [randomBytes(10_000)] });
    await assert.rejects(bench.store.ensure(registry.add(bad, "test/bad:1")), /^RuntimeError: Cannot /);
    await bench.assertEmpty();
  });
  await t.step("a missing blob", async () => {
    registry.fault = ({ target }) =>
      target === image.layers[0].digest ? { kind: "status", status: 404 } : undefined;
    await assert.rejects(bench.store.ensure(name), refusal("not-found", /has no blob/));
    await bench.assertEmpty();
  });
});

Deno.test("a layer cannot write outside its image", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const outside = await Deno.makeTempDir({ dir: bench.containerd.scratch });
  const climb = "../".repeat(40);
  const hostile = buildImage({
    layers: [{
      [`${climb}${outside.slice(1)}/climbed`]: { content: "x" },
      [`${outside}/absolute`]: { content: "x" },
      "door": { symlink: outside },
      "door/through-link": { content: "x" },
    }],
  });
  const image = await bench.store.ensure(registry.add(hostile, "test/evil:1")).catch((error) => {
    refusal(error.code, /Cannot/)(error);
    return undefined;
  });
  assert.deepEqual([...Deno.readDirSync(outside)], [], image ? "kept inside the image" : "refused");
});

Deno.test("one of two who wait may leave; when the last leaves, nothing stays", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const image = buildImage({ layers: [{ a: { bytes: randomBytes(3 << 20) } }], compression: "none" });
  const name = registry.add(image, "test/a:1");
  registry.fault = ({ target }) =>
    target === image.layers[0].digest ? { kind: "stall", afterBytes: 2 << 20 } : undefined;
  const first = new AbortController();
  const one = bench.store.ensure(name, { signal: first.signal });
  const two = bench.store.ensure(name);
  await bench.untilIngested(1 << 20);
  first.abort();
  await assert.rejects(one, refusal("canceled", /canceled/));
  assert.equal((await bench.holdings()).ingests.length, 1, "the other's pull goes on");
  registry.release();
  await two;
  await bench.store.remove(name);

  await using other = startFaultRegistry({ fault: registry.fault });
  const controller = new AbortController();
  const alone = bench.store.ensure(other.add(image, "test/a:1"), { signal: controller.signal });
  await bench.untilIngested(1 << 20);
  controller.abort();
  await assert.rejects(alone, refusal("canceled", /canceled/));
  await bench.assertEmpty();
});

Deno.test("leases that a killed agent left are ended at the next start", async () => {
  await using bench = await ImageBench.create();
  await bench.client.leases.create({ id: "left", labels: { "hypercore.engine/image": "1" } });
  await bench.client.leases.create({ id: "foreign", labels: {} });
  await bench.store.start();
  assert.deepEqual((await bench.holdings()).leases, ["foreign"]);
});

Deno.test("containerd dies in the middle of a pull: unavailable, and the next pull succeeds", async () => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const image = buildImage({ layers: [{ a: { bytes: randomBytes(3 << 20) } }], compression: "none" });
  const name = registry.add(image, "test/a:1");
  registry.fault = ({ target }) =>
    target === image.layers[0].digest ? { kind: "stall", afterBytes: 2 << 20 } : undefined;
  const failed = assert.rejects(bench.store.ensure(name), refusal("unavailable", /Cannot/));
  await bench.untilIngested(1 << 20);
  await bench.containerd.kill9();
  registry.release();
  await failed;
  await bench.containerd.start();
  await bench.store.start();
  await bench.store.ensure(name);
  await bench.store.remove(name);
  await bench.assertEmpty();
});

Deno.test("a full disk is told as such and is as empty as before afterwards", async () => {
  const dir = await Deno.makeTempDir({ prefix: "hc-full-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  await using bench = await ImageBench.create();
  await bench.containerd.stop();
  // containerd finds its root on a small file system of its own.
  const root = `${bench.containerd.dir}/root`;
  await must("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", root);
  await bench.containerd.start();
  await using registry = startFaultRegistry();
  const big = registry.add(
    buildImage({ layers: [{ a: { bytes: randomBytes(40 << 20) } }], compression: "none" }),
    "test/a:1",
  );
  await assert.rejects(bench.store.ensure(big), refusal("exhausted", /no space left/));
  await bench.assertEmpty();
  // This one fills it by unpacking: blob and snapshot together are too much.
  const twice = registry.add(buildImage({ layers: [{ a: { bytes: randomBytes(16 << 20) } }] }), "test/b:1");
  await assert.rejects(bench.store.ensure(twice), refusal("exhausted", /no space left/));
  await bench.assertEmpty();
  const small = registry.add(buildImage({ layers: [{ a: { content: "a" } }] }), "test/c:1");
  await bench.store.ensure(small);
});

Deno.test("memory does not grow with the size of a layer", async (t) => {
  await using bench = await ImageBench.create();
  await using registry = startFaultRegistry();
  const small = registry.add(
    buildImage({ layers: [{ a: { bytes: randomBytes(1 << 20) } }] }),
    "test/small:1",
  );
  const layer = { a: { bytes: randomBytes(LARGE_LAYER_BYTES) } };
  const large = registry.add(buildImage({ layers: [layer], compression: "none" }), "test/large:1");
  const [smallRss, largeRss] = [await peakRssOfPull(bench, small), await peakRssOfPull(bench, large)];
  const mib = (bytes: number) => Math.round(bytes / (1 << 20));
  await t.step(`peak RSS ${mib(smallRss)} MiB for 1 MiB, ${mib(largeRss)} MiB for 300 MiB`, () => {
    assert(largeRss - smallRss < LARGE_LAYER_BYTES / 2);
  });
});

/** Peak resident memory, in bytes, of a process that does nothing but pull an image. */
async function peakRssOfPull(bench: ImageBench, name: string): Promise<number> {
  const code = `
    import { ContainerdClient } from ${JSON.stringify(import.meta.resolve("../containerd/client.ts"))};
    import { ImageStore } from ${JSON.stringify(import.meta.resolve("./store.ts"))};
    await using client = new ContainerdClient(${
    JSON.stringify({ socket: bench.containerd.socket, namespace: bench.containerd.namespace })
  });
    await using store = new ImageStore({
      client, snapshotter: "${SNAPSHOTTER}", mirrors: {}, insecureRegistries: [], credentials: async () => undefined,
    });
    await store.pull(${JSON.stringify(name)});
    console.log(/VmHWM:\\s+(\\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))[1]);`;
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", code],
    cwd: new URL("../..", import.meta.url).pathname,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return Number(new TextDecoder().decode(stdout)) * 1024;
}
