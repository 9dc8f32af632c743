import { createHash } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { type TarEntry, writeTar } from "./tar.ts";

export { concat, type TarEntry, writeTar } from "./tar.ts";

/** How a layer's tar is packed. */
export type Compression = "gzip" | "none" | "zstd";

/** The `config` object of an image configuration. */
export interface TestImageConfig {
  Entrypoint?: string[];
  Cmd?: string[];
  Env?: string[];
  User?: string;
  WorkingDir?: string;
  StopSignal?: string;
  ExposedPorts?: Record<string, Record<never, never>>;
}

/** An OCI platform. */
export interface TestPlatform {
  os: string;
  architecture: string;
  variant?: string;
}

/** What {@linkcode buildImage} makes an image of. */
export interface ImageOptions {
  /** Lowest first: paths to entries, or the bytes of a tar made elsewhere. */
  layers: readonly (Readonly<Record<string, TarEntry>> | Uint8Array<ArrayBuffer>)[];
  config?: TestImageConfig;
  /** `gzip` by default; one for all layers or one each. */
  compression?: Compression | readonly Compression[];
  /** This machine's by default. */
  platform?: TestPlatform;
  /** Media types: `oci` by default. */
  format?: "oci" | "docker";
}

/** Some content and its descriptor. */
export interface TestBlob {
  mediaType: string;
  digest: string;
  size: number;
  bytes: Uint8Array<ArrayBuffer>;
}

/** An image for one platform. */
export interface TestImage {
  kind: "image";
  platform: TestPlatform;
  manifest: TestBlob;
  config: TestBlob;
  layers: TestBlob[];
  /** Of the uncompressed layers. */
  diffIds: string[];
}

/** Images for several platforms under one digest. */
export interface TestIndex {
  kind: "index";
  manifest: TestBlob;
  images: TestImage[];
}

const TYPES = {
  oci: {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: {
      none: "application/vnd.oci.image.layer.v1.tar",
      gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
      zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
    },
  },
  docker: {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: {
      none: "application/vnd.docker.image.rootfs.diff.tar",
      gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      zstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
    },
  },
} as const;

/** The platform of this machine. */
export const HOST_PLATFORM: TestPlatform = Deno.build.arch === "aarch64"
  ? { os: "linux", architecture: "arm64", variant: "v8" }
  : { os: "linux", architecture: "amd64" };

/**
 * Builds a small image in memory. The same options give the same digests.
 *
 * @example
 * ```ts
 * import { buildImage } from "./images.ts";
 * const image = buildImage({ layers: [{ "etc/motd": { content: "hi\n" } }], config: { Cmd: ["/bin/true"] } });
 * console.assert(image.layers.length === 1);
 * ```
 */
export function buildImage(options: ImageOptions): TestImage {
  const types = TYPES[options.format ?? "oci"];
  const platform = options.platform ?? HOST_PLATFORM;
  const tars = options.layers.map((layer) => layer instanceof Uint8Array ? layer : writeTar(layer));
  const diffIds = tars.map(digestOf);
  const layers = tars.map((tar, i) => {
    const compression = typeof options.compression === "object"
      ? options.compression[i]
      : options.compression ?? "gzip";
    return blob(types.layer[compression], compress(tar, compression));
  });
  const config = jsonBlob(types.config, {
    ...platform,
    created: "1970-01-01T00:00:00Z",
    config: options.config ?? {},
    rootfs: { type: "layers", diff_ids: diffIds },
    history: diffIds.map(() => ({ created: "1970-01-01T00:00:00Z", created_by: "test" })),
  });
  return withManifest({ platform, config, layers, diffIds }, types.manifest);
}

/** The image with another manifest media type or changed descriptors: for manifests that lie. */
export function withManifest(
  image: Pick<TestImage, "platform" | "config" | "layers" | "diffIds">,
  mediaType: string = TYPES.oci.manifest,
): TestImage {
  const manifest = jsonBlob(mediaType, {
    schemaVersion: 2,
    mediaType,
    config: descriptorOf(image.config),
    layers: image.layers.map(descriptorOf),
  });
  return { kind: "image", ...image, manifest };
}

/** One index over images of different platforms. */
export function buildIndex(images: readonly TestImage[], format: "oci" | "docker" = "oci"): TestIndex {
  const mediaType = TYPES[format].index;
  const manifests = images.map((image) => ({ ...descriptorOf(image.manifest), platform: image.platform }));
  return {
    kind: "index",
    manifest: jsonBlob(mediaType, { schemaVersion: 2, mediaType, manifests }),
    images: [...images],
  };
}

/** Options of {@linkcode busyboxImage} over those of {@linkcode buildImage}. */
export interface BusyboxOptions extends Partial<Omit<ImageOptions, "layers">> {
  /** The page served on port 8080. */
  text?: string;
  /** Further layers on top. */
  layers?: ImageOptions["layers"];
}

/**
 * A runnable image: the machine's static busybox with all its applets, users root and app (1000), a world-writable
 * `/tmp`, and by default a web server on port 8080 that serves `text` and ends at once on SIGTERM.
 */
export function busyboxImage(options: BusyboxOptions = {}): TestImage {
  const { text = "Hello from a container that Hypercore runs.\n", layers = [], config, ...rest } = options;
  return buildImage({
    ...rest,
    layers: [busyboxLayer(), { "www": { dir: true }, "www/index.html": { content: text } }, ...layers],
    config: {
      Cmd: ["/bin/start"],
      Env: ["PATH=/bin"],
      ExposedPorts: { "8080/tcp": {} },
      ...config,
    },
  });
}

function busyboxLayer(): Record<string, TarEntry> {
  const { stdout } = new Deno.Command("/bin/busybox", { args: ["--list"] }).outputSync();
  const applets = new TextDecoder().decode(stdout).split("\n").filter((name) =>
    name !== "" && name !== "busybox"
  );
  return {
    "bin": { dir: true },
    "bin/busybox": { bytes: Deno.readFileSync("/bin/busybox"), mode: 0o755 },
    ...Object.fromEntries(applets.map((name) => [`bin/${name}`, { symlink: "busybox", mode: 0o777 }])),
    // Process 1 gets no default action for signals, so the shell has to end the server itself.
    "bin/start": {
      mode: 0o755,
      content: "#!/bin/sh\ntrap 'kill \"$server\"; exit 0' TERM INT\n" +
        'httpd -f -p 8080 -h /www &\nserver=$!\necho "serving on port 8080"\nwait "$server"\n',
    },
    "etc": { dir: true },
    "etc/passwd": { content: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n" },
    "etc/group": { content: "root:x:0:\napp:x:1000:\n" },
    "home": { dir: true },
    "home/app": { dir: true, uid: 1000, gid: 1000 },
    "root": { dir: true, mode: 0o700 },
    "tmp": { dir: true, mode: 0o1777 },
  };
}

/** An image or index with the name that an archive gives it. */
export interface NamedImage {
  image: TestImage | TestIndex;
  /** A full reference (`org.opencontainers.image.ref.name`); absent for a nameless one. */
  name?: string;
}

/** The tar of an OCI image layout (image-spec, "Image Layout") with an index over the images. */
export function ociLayoutTar(images: readonly NamedImage[]): Uint8Array<ArrayBuffer> {
  const manifests = images.map(({ image, name }) => ({
    ...descriptorOf(image.manifest),
    ...(name === undefined ? {} : { annotations: { "org.opencontainers.image.ref.name": name } }),
  }));
  return writeTar({
    "blobs": { dir: true },
    "blobs/sha256": { dir: true },
    ...Object.fromEntries(
      images.flatMap(({ image }) => blobsOf(image)).map((
        blob,
      ) => [blobPath(blob.digest), { bytes: blob.bytes }]),
    ),
    "index.json": {
      content: JSON.stringify({ schemaVersion: 2, mediaType: TYPES.oci.index, manifests }),
    },
    "oci-layout": { content: JSON.stringify({ imageLayoutVersion: "1.0.0" }) },
  });
}

/** What `docker save` wrote before it wrote OCI layouts: `manifest.json`, configurations and uncompressed layers. */
export function dockerArchiveTar(
  images: readonly { image: TestImage; names: readonly string[] }[],
): Uint8Array<ArrayBuffer> {
  const files: Record<string, TarEntry> = {};
  const manifest = images.map(({ image, names }) => {
    const config = `${image.config.digest.slice(7)}.json`;
    files[config] = { bytes: image.config.bytes };
    const layers = image.layers.map((layer, i) => {
      const path = `${image.diffIds[i].slice(7)}/layer.tar`;
      files[path] = { bytes: layer.bytes };
      return path;
    });
    return { Config: config, RepoTags: names, Layers: layers };
  });
  return writeTar({ ...files, "manifest.json": { content: JSON.stringify(manifest) } });
}

/** Every blob of an image or index, its manifests last. */
export function blobsOf(image: TestImage | TestIndex): TestBlob[] {
  if (image.kind === "index") return [...image.images.flatMap(blobsOf), image.manifest];
  return [...image.layers, image.config, image.manifest];
}

/** Where an OCI layout keeps a blob. */
export function blobPath(digest: string): string {
  return `blobs/${digest.replace(":", "/")}`;
}

/** `sha256:…` of some bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Content with its descriptor. */
export function blob(mediaType: string, bytes: Uint8Array<ArrayBuffer>): TestBlob {
  return { mediaType, digest: digestOf(bytes), size: bytes.length, bytes };
}

/** A JSON document with its descriptor. */
export function jsonBlob(mediaType: string, value: unknown): TestBlob {
  return blob(mediaType, new TextEncoder().encode(JSON.stringify(value)));
}

/** Packs a tar as layers are packed. */
export function compress(bytes: Uint8Array<ArrayBuffer>, compression: Compression): Uint8Array<ArrayBuffer> {
  if (compression === "none") return bytes;
  return new Uint8Array(compression === "gzip" ? gzipSync(bytes) : zstdCompressSync(bytes));
}

function descriptorOf({ mediaType, digest, size }: TestBlob) {
  return { mediaType, digest, size };
}

if (import.meta.main) {
  const [file, name, text] = Deno.args;
  if (file === undefined || name === undefined) {
    console.error("usage: images.ts OUT.tar NAME [TEXT]: writes an OCI layout of a web server on port 8080");
    Deno.exit(2);
  }
  const image = busyboxImage(text === undefined ? {} : { text: `${text}\n` });
  await Deno.writeFile(file, ociLayoutTar([{ name, image }]));
}
