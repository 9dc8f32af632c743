import type { KeyedMutex } from "../keyed_mutex.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import { RuntimeError } from "../errors.ts";
import { readArchive } from "./archive.ts";
import { addLabels, ingest, readContent } from "./content.ts";
import { withLease } from "./lease.ts";
import {
  type Descriptor,
  digestOf,
  hostPlatform,
  INDEX_TYPES,
  MANIFEST_TYPES,
  MAX_CONFIG_BYTES,
  MAX_MANIFEST_BYTES,
  parseIndex,
  parseManifest,
  selectPlatform,
} from "./manifest.ts";
import { parseReference } from "./reference.ts";
import {
  checkConfig,
  type Document,
  type ImageToRegister,
  layersToUnpack,
  registerImage,
} from "./register.ts";
import type { Wait } from "./retry.ts";
import { unpackLayer } from "./unpack.ts";

/** What loading works with. */
export interface LoadContext {
  client: ContainerdClient;
  snapshotter: string;
  chains: KeyedMutex;
  wait: Wait;
}

interface Stored {
  digest: string;
  size: number;
}

/**
 * Loads the images of an archive as it streams in: an OCI layout, or what `docker save` writes. Every file goes straight into
 * the content store under a lease; what no image refers to is garbage afterwards. Memory does not depend on the archive's size.
 *
 * Returns the canonical names of the images. Throws `invalid` for an archive without a named image.
 */
export function loadArchive(
  context: LoadContext,
  source: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<string[]> {
  return withLease(context.client, async (leaseId) => {
    const load = new Load(context, leaseId, signal);
    await load.store(source);
    return await load.register();
  }, signal);
}

class Load {
  /** Path in the archive to content. */
  readonly #files = new Map<string, Stored>();
  readonly #links = new Map<string, string>();
  readonly #id = crypto.randomUUID();

  constructor(readonly context: LoadContext, readonly leaseId: string, readonly signal?: AbortSignal) {}

  async store(source: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const entry of readArchive(source, this.signal)) {
      if (entry.kind === "link") {
        this.#links.set(entry.path, entry.target);
        continue;
      }
      const { digest } = await this.#ingest(entry.size, () => entry.data);
      this.#files.set(entry.path, { digest, size: entry.size });
    }
  }

  async register(): Promise<string[]> {
    const found = this.#files.has("index.json") ? await this.#fromLayout() : [];
    const images = found.length > 0
      ? found
      : this.#files.has("manifest.json")
      ? await this.#fromDocker()
      : [];
    if (images.length === 0) {
      throw new RuntimeError("invalid", "Cannot load the image archive: it holds no image with a name");
    }
    for (const image of images) await this.#register(image);
    return images.map((image) => image.name);
  }

  async #register(image: Omit<ImageToRegister, "config">): Promise<void> {
    const { parsed } = image.manifest;
    for (const blob of [parsed.config, ...parsed.layers]) {
      if (![...this.#files.values()].some((file) => file.digest === blob.digest)) {
        throw new RuntimeError(
          "invalid",
          `Cannot load image "${image.name}": the archive lacks blob ${blob.digest}`,
        );
      }
    }
    const bytes = await this.#read(parsed.config.digest, MAX_CONFIG_BYTES);
    const config = checkConfig(bytes, { image: image.name, manifest: parsed });
    for (const layer of layersToUnpack(parsed, config)) {
      await addLabels(this.context.client, layer.descriptor.digest, {
        labels: { "containerd.io/uncompressed": layer.diffId },
        signal: this.signal,
      });
      await unpackLayer({ ...this.context, leaseId: this.leaseId, signal: this.signal }, layer);
    }
    await registerImage({ ...image, config }, {
      ...this.context,
      leaseId: this.leaseId,
      signal: this.signal,
    });
  }

  /** An OCI layout: `index.json` lists manifests or indexes, each with a name among its annotations. */
  async #fromLayout(): Promise<Omit<ImageToRegister, "config">[]> {
    const entries = parseIndex(await this.#readPath("index.json", MAX_MANIFEST_BYTES), "index.json");
    const images: Omit<ImageToRegister, "config">[] = [];
    for (const entry of entries) {
      const name = entry.annotations?.["io.containerd.image.name"] ??
        entry.annotations?.["org.opencontainers.image.ref.name"];
      if (name === undefined) continue;
      const reference = parseReference(name);
      if (!INDEX_TYPES.includes(entry.mediaType)) {
        images.push({ name: reference.name, manifest: await this.#manifest(entry, reference.name) });
        continue;
      }
      const index = await this.#document(entry);
      const inner = parseIndex(index.bytes, reference.name);
      const chosen = selectPlatform(inner, hostPlatform(), reference.name);
      images.push({
        name: reference.name,
        index: { ...index, chosen: inner.indexOf(chosen) },
        manifest: await this.#manifest(chosen, reference.name),
      });
    }
    return images;
  }

  /** What `docker save` writes: `manifest.json` names a configuration and layers by path; the manifest is made here. */
  async #fromDocker(): Promise<Omit<ImageToRegister, "config">[]> {
    const bytes = await this.#readPath("manifest.json", MAX_MANIFEST_BYTES);
    const images: Omit<ImageToRegister, "config">[] = [];
    for (const entry of parseDockerManifest(bytes)) {
      const layers: Descriptor[] = [];
      for (const path of entry.layers) {
        const { digest, size } = this.#file(path);
        layers.push({ mediaType: await this.#layerType(digest), digest, size });
      }
      const config = { mediaType: "application/vnd.oci.image.config.v1+json", ...this.#file(entry.config) };
      const manifest = new TextEncoder().encode(
        JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPES[0], config, layers }),
      );
      for (const tag of entry.tags) {
        const { name } = parseReference(tag);
        images.push({
          name,
          manifest: {
            bytes: manifest,
            digest: digestOf(manifest),
            mediaType: MANIFEST_TYPES[0],
            parsed: parseManifest(manifest, name),
          },
        });
      }
    }
    return images;
  }

  async #manifest(descriptor: Descriptor, image: string): Promise<ImageToRegister["manifest"]> {
    const document = await this.#document(descriptor);
    return { ...document, parsed: parseManifest(document.bytes, image) };
  }

  async #document({ digest, mediaType }: Descriptor): Promise<Document> {
    return {
      bytes: await this.#readPath(`blobs/sha256/${digest.slice(7)}`, MAX_MANIFEST_BYTES),
      digest,
      mediaType,
    };
  }

  #file(path: string): Stored {
    let at = path;
    for (let hops = 0; this.#links.has(at) && hops < 8; hops++) at = this.#links.get(at)!;
    const file = this.#files.get(at);
    if (file === undefined) {
      throw new RuntimeError("invalid", `Cannot load the image archive: it lacks ${JSON.stringify(path)}`);
    }
    const claimed = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(at)?.[1];
    if (claimed !== undefined && file.digest !== `sha256:${claimed}`) {
      throw new RuntimeError("invalid", `Cannot load the image archive: ${path} has digest ${file.digest}`);
    }
    return file;
  }

  async #readPath(path: string, maxBytes: number): Promise<Uint8Array> {
    return await this.#read(this.#file(path).digest, maxBytes);
  }

  #read(digest: string, maxBytes: number): Promise<Uint8Array> {
    return readContent(this.context.client, digest, { maxBytes, signal: this.signal });
  }

  async #layerType(digest: string): Promise<string> {
    const reading = new AbortController();
    try {
      const first = this.context.client.content.read({ digest, offset: 0n, size: 4n }, {
        signal: reading.signal,
      });
      for await (const { data } of first) {
        if (data[0] === 0x1f && data[1] === 0x8b) return "application/vnd.oci.image.layer.v1.tar+gzip";
        if (data[0] === 0x28 && data[1] === 0xb5) return "application/vnd.oci.image.layer.v1.tar+zstd";
      }
      return "application/vnd.oci.image.layer.v1.tar";
    } finally {
      reading.abort();
    }
  }

  #ingest(size: number, source: () => AsyncIterable<Uint8Array>): Promise<{ digest: string }> {
    return ingest({
      client: this.context.client,
      leaseId: this.leaseId,
      wait: this.context.wait,
      signal: this.signal,
      ref: `hypercore-load-${this.#id}-${this.#files.size}`,
      size,
      source,
    });
  }
}

function parseDockerManifest(bytes: Uint8Array): { config: string; layers: string[]; tags: string[] }[] {
  const refuse = (reason: string): never => {
    throw new RuntimeError("invalid", `Cannot load the image archive: manifest.json ${reason}`);
  };
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return refuse("is not JSON");
  }
  if (!Array.isArray(value)) return refuse("is not a list");
  return value.map((entry: Record<string, unknown> | null) => {
    const { Config: config, Layers: layers, RepoTags: tags } = entry ?? {};
    const isStrings = (list: unknown): list is string[] =>
      Array.isArray(list) && list.every((item) => typeof item === "string");
    if (typeof config !== "string" || !isStrings(layers)) {
      return refuse("has an entry without Config and Layers");
    }
    return { config, layers, tags: isStrings(tags) ? tags : [] };
  });
}
