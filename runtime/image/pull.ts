import type { KeyedMutex } from "../keyed_mutex.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import { RuntimeError } from "../errors.ts";
import { addLabels, ingest, readContent } from "./content.ts";
import type { Endpoint } from "./endpoints.ts";
import { withLease } from "./lease.ts";
import {
  type ConfigFile,
  type Descriptor,
  hostPlatform,
  INDEX_TYPES,
  MAX_CONFIG_BYTES,
  parseIndex,
  parseManifest,
  selectPlatform,
} from "./manifest.ts";
import type { PullProgress } from "./mod.ts";
import { BlobProgress } from "./progress.ts";
import type { Reference } from "./reference.ts";
import { checkConfig, type ImageToRegister, layersToUnpack, registerImage } from "./register.ts";
import type { RegistryClient } from "./registry.ts";
import type { Wait } from "./retry.ts";
import { type UnpackContext, unpackLayer } from "./unpack.ts";

/** Layers of one pull that are downloaded at the same time. */
export const MAX_PARALLEL_DOWNLOADS = 4;

/** What pulling works with; shared by all pulls of a store. */
export interface PullContext {
  client: ContainerdClient;
  snapshotter: string;
  registry: RegistryClient;
  /** One download per blob digest at a time. */
  blobs: KeyedMutex;
  /** One unpacking per chain id at a time. */
  chains: KeyedMutex;
  wait: Wait;
  now: () => number;
}

/**
 * Pulls an image: resolves the reference to this platform's manifest, downloads configuration and layers in parallel,
 * unpacks each layer as soon as those below it are, and registers the image. Under one lease: a failure or an abort leaves
 * nothing that containerd would keep.
 */
export function pullImage(
  context: PullContext,
  reference: Reference,
  options: { signal?: AbortSignal; onProgress?: (progress: PullProgress) => void },
): Promise<void> {
  return withLease(context.client, async (leaseId) => {
    const failure = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, failure.signal]) : failure.signal;
    const pull = new Pull(context, { reference, leaseId, signal, onProgress: options.onProgress });
    try {
      await pull.run();
    } catch (error) {
      // The first failure ends the others; what they began is over before the lease goes.
      failure.abort(error);
      await pull.settled();
      if (options.signal?.aborted) {
        throw new RuntimeError("canceled", `Cannot pull image "${reference.name}": canceled`, {
          cause: error,
        });
      }
      throw error;
    }
  }, options.signal);
}

interface PullRequest {
  reference: Reference;
  leaseId: string;
  signal: AbortSignal;
  onProgress?: (progress: PullProgress) => void;
}

class Pull {
  readonly #work: Promise<unknown>[] = [];

  constructor(readonly context: PullContext, readonly request: PullRequest) {}

  async run(): Promise<void> {
    const { context, request } = this;
    const { endpoint, image } = await this.#resolve();
    const { parsed } = image.manifest;
    const blobs = new Map([parsed.config, ...parsed.layers].map((blob) => [blob.digest, blob]));
    const progress = new Map(
      [...blobs.values()].map((blob) => [
        blob.digest,
        new BlobProgress(blob.digest, blob.size, { report: request.onProgress, now: context.now }),
      ]),
    );
    if (parsed.config.size > MAX_CONFIG_BYTES) {
      throw new RuntimeError(
        "invalid",
        `Cannot pull image "${image.name}": its configuration is larger than ${MAX_CONFIG_BYTES} bytes`,
      );
    }
    await this.#fetch(parsed.config, { endpoint, progress: progress.get(parsed.config.digest)! });
    const config = await this.#readConfig(image);
    const layers = layersToUnpack(parsed, config);
    const slots = new Slots(MAX_PARALLEL_DOWNLOADS);
    const downloads = new Map<string, Promise<void>>();
    for (const { descriptor } of layers) {
      if (downloads.has(descriptor.digest)) continue;
      const download = slots.run(() =>
        this.#fetch(descriptor, { endpoint, progress: progress.get(descriptor.digest)! })
      );
      downloads.set(descriptor.digest, download);
      this.#work.push(download.catch(() => undefined));
    }
    const unpack: UnpackContext = { ...context, leaseId: request.leaseId, signal: request.signal };
    const anyFailure = Promise.all(downloads.values());
    anyFailure.catch(() => undefined);
    for (const layer of layers) {
      await Promise.race([downloads.get(layer.descriptor.digest), rejectionOf(anyFailure)]);
      const blob = progress.get(layer.descriptor.digest)!;
      blob.status("unpacking");
      await addLabels(context.client, layer.descriptor.digest, {
        labels: { "containerd.io/uncompressed": layer.diffId },
        signal: request.signal,
      });
      await unpackLayer(unpack, layer);
      blob.status("done");
    }
    await registerImage({ ...image, config }, {
      ...context,
      leaseId: request.leaseId,
      signal: request.signal,
    });
  }

  /** Resolves when no download of this pull runs. */
  async settled(): Promise<void> {
    await Promise.all(this.#work);
  }

  async #resolve(): Promise<{ endpoint: Endpoint; image: Omit<ImageToRegister, "config"> }> {
    const { registry } = this.context;
    const { reference, signal } = this.request;
    const { name } = reference;
    const top = await registry.manifest(reference, reference.digest ?? reference.tag!, signal);
    if (!INDEX_TYPES.includes(top.mediaType)) {
      return {
        endpoint: top.endpoint,
        image: { name, manifest: { ...top, parsed: parseManifest(top.bytes, name) } },
      };
    }
    const entries = parseIndex(top.bytes, name);
    const chosen = selectPlatform(entries, hostPlatform(), name);
    const inner = await registry.manifest(reference, chosen.digest, signal);
    if (INDEX_TYPES.includes(inner.mediaType)) {
      throw new RuntimeError("invalid", `Cannot pull image "${name}": its index points at another index`);
    }
    return {
      endpoint: inner.endpoint,
      image: {
        name,
        index: { ...top, chosen: entries.indexOf(chosen) },
        manifest: { ...inner, parsed: parseManifest(inner.bytes, name) },
      },
    };
  }

  /** Downloads a blob into the content store; a blob that is there, or that another pull brings, is not asked for. */
  #fetch(descriptor: Descriptor, options: { endpoint: Endpoint; progress: BlobProgress }): Promise<void> {
    const { client, blobs, registry, wait } = this.context;
    const { reference, leaseId, signal } = this.request;
    const { progress } = options;
    return blobs.run(descriptor.digest, async () => {
      let isEarlier = true;
      const { existed } = await ingest({
        client,
        leaseId,
        wait,
        signal,
        ref: `hypercore-${descriptor.digest}`,
        size: descriptor.size,
        digest: descriptor.digest,
        labels: { [`containerd.io/distribution.source.${reference.registry}`]: reference.repository },
        source: (offset) =>
          registry.blob(reference, descriptor, { endpoint: options.endpoint, offset, signal }),
        onOffset: (offset) => {
          if (isEarlier) progress.status("downloading");
          progress.bytes(offset, { isEarlier });
          isEarlier = false;
        },
      });
      progress.status(existed ? "exists" : "downloaded");
    }, { signal });
  }

  async #readConfig(image: Omit<ImageToRegister, "config">): Promise<ConfigFile> {
    const { parsed } = image.manifest;
    const bytes = await readContent(this.context.client, parsed.config.digest, {
      maxBytes: MAX_CONFIG_BYTES,
      signal: this.request.signal,
    });
    return checkConfig(bytes, { image: image.name, manifest: parsed });
  }
}

/** Never resolves; rejects when the promise does. */
function rejectionOf(promise: Promise<unknown>): Promise<never> {
  return new Promise((_, reject) => promise.catch(reject));
}

/** Lets so many run at a time, in order. */
class Slots {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(count: number) {
    this.#free = count;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
