import assert from "node:assert/strict";
import { buildImage, concat, type TestBlob } from "../../tests/support/images.ts";
import { randomBytes } from "../../tests/support/random.ts";
import { startContainerd, type TestContainerd } from "../../tests/support/containerd.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";
import type { Credentials } from "./auth.ts";
import { parseReference } from "./reference.ts";
import { RegistryClient, type RegistryClientOptions } from "./registry.ts";
import { ImageStore, type ImageStoreOptions, type UnpackedImage } from "./store.ts";

/** The snapshotter of every test. */
export const SNAPSHOTTER = "overlayfs";

/** What of images a containerd holds, sorted. */
export interface Holdings {
  images: string[];
  blobs: string[];
  ingests: string[];
  /** Committed and active ones. */
  snapshots: string[];
  leases: string[];
}

/** A containerd of the test's own and image stores on it. */
export class ImageBench implements AsyncDisposable {
  readonly client: ContainerdClient;
  readonly store: ImageStore;
  readonly #stores: ImageStore[] = [];

  private constructor(readonly containerd: TestContainerd) {
    this.client = containerd.client();
    this.store = this.newStore();
  }

  static async create(): Promise<ImageBench> {
    return new ImageBench(await startContainerd());
  }

  /** Another store on the same containerd. */
  newStore(options: Partial<ImageStoreOptions> = {}): ImageStore {
    const store = new ImageStore({
      client: this.client,
      snapshotter: SNAPSHOTTER,
      mirrors: {},
      insecureRegistries: [],
      credentials: () => Promise.resolve(undefined),
      ...options,
    });
    this.#stores.push(store);
    return store;
  }

  async holdings(): Promise<Holdings> {
    const blobs: string[] = [];
    for await (const { info } of this.client.content.list({})) {
      blobs.push(...info.map(({ digest }) => digest));
    }
    const snapshots: string[] = [];
    for await (const { info } of this.client.snapshots.list({ snapshotter: SNAPSHOTTER })) {
      snapshots.push(...info.map(({ name }) => name));
    }
    const { images } = await this.client.images.list({});
    const { statuses } = await this.client.content.listStatuses({});
    const { leases } = await this.client.leases.list({});
    return {
      images: images.map(({ name }) => name).sort(),
      blobs: blobs.sort(),
      ingests: statuses.map(({ ref }) => ref),
      snapshots: snapshots.sort(),
      leases: leases.map(({ id }) => id),
    };
  }

  /** Resolves when some blob is half-way in, with so many bytes. */
  async untilIngested(bytes: number): Promise<void> {
    for (;;) {
      const { statuses } = await this.client.content.listStatuses({});
      if (statuses.some(({ offset }) => offset >= bytes)) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Asserts that containerd holds nothing of images, neither finished nor half-done. */
  async assertEmpty(): Promise<void> {
    assert.deepEqual(await this.holdings(), {
      images: [],
      blobs: [],
      ingests: [],
      snapshots: [],
      leases: [],
    });
  }

  /** Runs `look` on the image's files, mounted read-only as a container would see them. */
  async withFiles<T>(image: UnpackedImage, look: (dir: string) => T | Promise<T>): Promise<T> {
    const key = `view-${crypto.randomUUID()}`;
    // A root for the garbage collection, which an image's removal sets off.
    const { mounts } = await this.client.snapshots.view({
      snapshotter: SNAPSHOTTER,
      key,
      parent: image.chainId,
      labels: { "containerd.io/gc.root": "1" },
    });
    const dir = await Deno.makeTempDir({ dir: this.containerd.scratch });
    const [{ type, source, options }] = mounts;
    await must("mount", "-t", type === "bind" ? "none" : type, "-o", options.join(","), source, dir);
    try {
      return await look(dir);
    } finally {
      await must("umount", dir);
      await this.client.snapshots.remove({ snapshotter: SNAPSHOTTER, key });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store[Symbol.asyncDispose]();
    await this.containerd[Symbol.asyncDispose]();
  }
}

/** Runs a program; throws what it says when it fails. */
export async function must(program: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
  if (!success) throw new Error(`Cannot run "${program}": ${new TextDecoder().decode(stderr)}`);
}

/** A check, for `assert.rejects`, of a runtime error's code and message. */
export function refusal(code: RuntimeErrorCode, reason: RegExp): (error: unknown) => true {
  return (error) => {
    assert(error instanceof RuntimeError, String(error));
    assert.match(error.message, reason);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, /^Cannot /);
    return true;
  };
}

/** An image with a layer of some hundred KiB that do not compress. */
export const REGISTRY_IMAGE = buildImage({
  layers: [{ noise: { bytes: randomBytes(300_000) } }],
  compression: "none",
});

/** A registry client whose waits are over at once and written down. */
export class TestRegistryClient implements Disposable {
  readonly waits: number[] = [];
  readonly asked: string[] = [];
  readonly client: RegistryClient;

  constructor(options: Partial<RegistryClientOptions> & { login?: Credentials } = {}) {
    this.client = new RegistryClient({
      mirrors: {},
      insecureRegistries: [],
      credentials: (host) => {
        this.asked.push(host);
        return Promise.resolve(options.login);
      },
      wait: (ms, signal) => {
        this.waits.push(ms);
        return signal?.aborted ? Promise.reject(signal.reason) : Promise.resolve();
      },
      ...options,
    });
  }

  manifest(text: string, signal?: AbortSignal) {
    const reference = parseReference(text);
    return this.client.manifest(reference, reference.digest ?? reference.tag!, signal);
  }

  async blob(text: string, blob: TestBlob, options: { offset?: number; signal?: AbortSignal } = {}) {
    const { endpoint } = await this.manifest(text);
    const chunks: Uint8Array[] = [];
    const stream = this.client.blob(parseReference(text), blob, { endpoint, offset: 0, ...options });
    for await (const chunk of stream) chunks.push(chunk);
    return concat(chunks);
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
  }
}
