import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Image as ImageRecord } from "../../proto/gen/containerd/services/images/v1/images_pb.ts";
import { KeyedMutex } from "../keyed_mutex.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import { RuntimeError } from "../errors.ts";
import type { CredentialStore } from "./auth.ts";
import { hasContent, readContent } from "./content.ts";
import { Flights } from "./flights.ts";
import { endLeftLeases, withLease } from "./lease.ts";
import { loadArchive } from "./load.ts";
import {
  chainIds,
  type ConfigFile,
  hostPlatform,
  type ImageConfig,
  INDEX_TYPES,
  type Manifest,
  MAX_CONFIG_BYTES,
  MAX_MANIFEST_BYTES,
  parseIndex,
  parseManifest,
  platformName,
  selectPlatform,
} from "./manifest.ts";
import type { Image, PullProgress } from "./mod.ts";
import { type PullContext, pullImage } from "./pull.ts";
import { parseReference } from "./reference.ts";
import { checkConfig, layersToUnpack } from "./register.ts";
import { RegistryClient } from "./registry.ts";
import { type Wait, waitMs } from "./retry.ts";
import { hasSnapshot, unpackLayer } from "./unpack.ts";

export interface ImageStoreOptions {
  client: ContainerdClient;
  snapshotter: string;
  /** Registry host to the base URLs tried first. */
  mirrors: Readonly<Record<string, readonly string[]>>;
  /** Registry hosts that may be spoken to in plain HTTP besides loopback. */
  insecureRegistries: readonly string[];
  credentials: CredentialStore;
  /** Time without a byte after which a connection to a registry counts as dead. */
  stallTimeoutMs?: number;
  /** Replaced in tests. */
  wait?: Wait;
}

/** An image that is present and unpacked, as a container needs it. */
export interface UnpackedImage {
  /** Canonical name. */
  name: string;
  digest: string;
  /** The committed snapshot that containers start from. */
  chainId: string;
  config: ImageConfig;
}

export interface PullOptions {
  signal?: AbortSignal;
  onProgress?: (progress: PullProgress) => void;
}

/** Images in containerd's store: pulled, loaded, listed, removed. Methods throw {@linkcode RuntimeError}. */
export class ImageStore implements AsyncDisposable {
  readonly #options: ImageStoreOptions;
  readonly #context: PullContext;
  readonly #flights = new Flights<void, PullProgress>();

  constructor(options: ImageStoreOptions) {
    this.#options = options;
    const wait = options.wait ?? waitMs;
    this.#context = {
      client: options.client,
      snapshotter: options.snapshotter,
      registry: new RegistryClient({ ...options, wait }),
      blobs: new KeyedMutex(),
      chains: new KeyedMutex(),
      wait,
      now: () => performance.now(),
    };
  }

  /** Ends what an agent that was killed left half-done. Call once, before the first pull. */
  async start(signal?: AbortSignal): Promise<void> {
    await endLeftLeases(this.#options.client, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#context.blobs.idle();
    this.#context.registry[Symbol.dispose]();
  }

  /** The image, made present and unpacked: pulled only when it is not here. Throws `invalid`, `not-found`, … */
  async ensure(text: string, options: PullOptions = {}): Promise<UnpackedImage> {
    const { name } = parseReference(text);
    return await this.#unpacked(name, options.signal) ?? await this.#pull(text, options);
  }

  /** Pulls the image, also when one of that name is here: the registry's wins. */
  async pull(text: string, options: PullOptions = {}): Promise<Image> {
    const { name } = await this.#pull(text, options);
    return await this.get(name, options.signal);
  }

  /** Loads the images of an archive (OCI layout or docker-archive; plain, gzip or zstd). */
  async load(archive: AsyncIterable<Uint8Array>, options: { signal?: AbortSignal } = {}): Promise<Image[]> {
    const names = await loadArchive(this.#context, archive, options.signal);
    return await Promise.all(names.map((name) => this.get(name, options.signal)));
  }

  async list(signal?: AbortSignal): Promise<Image[]> {
    const { images } = await this.#options.client.images.list({}, { signal });
    return await Promise.all(images.map((record) => this.#describe(record, signal)));
  }

  /** Throws `not-found`. */
  async get(text: string, signal?: AbortSignal): Promise<Image> {
    const { name } = parseReference(text);
    const record = await this.#record(name, signal);
    if (record === undefined) throw notHere(name);
    return await this.#describe(record, signal);
  }

  /** Forgets the name; what no other image and no container needs is gone when this resolves. Throws `not-found`. */
  async remove(text: string, signal?: AbortSignal): Promise<void> {
    const { name } = parseReference(text);
    try {
      await this.#options.client.images.delete({ name, sync: true }, { signal });
    } catch (error) {
      throw isNotFound(error) ? notHere(name, error) : error;
    }
  }

  async #pull(text: string, options: PullOptions): Promise<UnpackedImage> {
    const reference = parseReference(text);
    await this.#flights.join(
      reference.name,
      (flight) => pullImage(this.#context, reference, flight),
      options,
    );
    const image = await this.#unpacked(reference.name, options.signal);
    if (image === undefined) {
      throw new RuntimeError(
        "failed",
        `Cannot pull image "${reference.name}": it was removed at the same moment`,
      );
    }
    return image;
  }

  /** The image if all of it is here; layers that are here but not unpacked are unpacked. */
  async #unpacked(name: string, signal?: AbortSignal): Promise<UnpackedImage | undefined> {
    const record = await this.#record(name, signal);
    const parts = record && await this.#parts(record, signal);
    if (parts === undefined) return undefined;
    const { client, snapshotter } = this.#options;
    const chainId = chainIds(parts.config.diffIds).at(-1)!;
    const image = { name, digest: record!.target!.digest, chainId, config: parts.config.config };
    try {
      await client.snapshots.stat({ snapshotter, key: chainId }, { signal });
      return image;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    return await this.#unpackHere(parts, signal) ? image : undefined;
  }

  async #unpackHere(
    parts: { manifest: Manifest; config: ConfigFile },
    signal?: AbortSignal,
  ): Promise<boolean> {
    return await withLease(this.#options.client, async (leaseId) => {
      const context = { ...this.#context, leaseId, signal };
      for (const layer of layersToUnpack(parts.manifest, parts.config)) {
        if (await hasSnapshot(context, layer.chainId)) continue;
        if (!await hasContent(this.#options.client, layer.descriptor.digest, signal)) return false;
        await unpackLayer(context, layer);
      }
      return true;
    }, signal);
  }

  async #record(name: string, signal?: AbortSignal): Promise<ImageRecord | undefined> {
    try {
      return (await this.#options.client.images.get({ name }, { signal })).image;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Manifest and configuration for this platform; undefined when content of it is missing, as after a partial removal. */
  async #parts(
    record: ImageRecord,
    signal?: AbortSignal,
  ): Promise<{ manifest: Manifest; manifestBytes: number; config: ConfigFile } | undefined> {
    const { client } = this.#options;
    const target = record.target!;
    const document = (digest: string) =>
      readContent(client, digest, { maxBytes: MAX_MANIFEST_BYTES, signal });
    try {
      let bytes = await document(target.digest);
      if (INDEX_TYPES.includes(target.mediaType)) {
        const chosen = selectPlatform(parseIndex(bytes, record.name), hostPlatform(), record.name);
        bytes = await document(chosen.digest);
      }
      const manifest = parseManifest(bytes, record.name);
      const config = await readContent(client, manifest.config.digest, {
        maxBytes: MAX_CONFIG_BYTES,
        signal,
      });
      return {
        manifest,
        manifestBytes: bytes.length,
        config: checkConfig(config, { image: record.name, manifest }),
      };
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async #describe(record: ImageRecord, signal?: AbortSignal): Promise<Image> {
    const parts = await this.#parts(record, signal).catch((error) => {
      // Something other than a runnable image of this platform, put there by another client: listed all the same.
      if (error instanceof RuntimeError && error.code === "invalid") return undefined;
      throw error;
    });
    const blobs = parts === undefined ? [] : [parts.manifest.config, ...parts.manifest.layers];
    return {
      name: record.name,
      digest: record.target!.digest,
      sizeBytes: blobs.reduce((sum, blob) => sum + blob.size, parts?.manifestBytes ?? 0),
      createdAtMs: record.createdAt === undefined ? 0 : timestampMs(record.createdAt),
      platform: parts === undefined ? "" : platformName(parts.config.platform),
    };
  }
}

function notHere(name: string, cause?: unknown): RuntimeError {
  return new RuntimeError("not-found", `Cannot find image "${name}": it is not on this node`, { cause });
}
