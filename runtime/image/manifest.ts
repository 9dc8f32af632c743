import { createHash } from "node:crypto";
import { RuntimeError } from "../errors.ts";

/** Largest manifest or index taken, in bytes: the limit that the OCI distribution spec recommends. */
export const MAX_MANIFEST_BYTES = 4 << 20;
/** Largest image configuration taken, in bytes. */
export const MAX_CONFIG_BYTES = 8 << 20;
/** Overlayfs gives up long before; Docker stops at 127. */
export const MAX_LAYERS = 127;
const MAX_INDEX_ENTRIES = 1_000;

/** Media types of OCI and of Docker, by what they are. */
export const INDEX_TYPES: readonly string[] = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
export const MANIFEST_TYPES: readonly string[] = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];
const LAYER_TYPES: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.layer.v1.tar",
  "application/vnd.oci.image.layer.v1.tar+gzip",
  "application/vnd.oci.image.layer.v1.tar+zstd",
  "application/vnd.docker.image.rootfs.diff.tar",
  "application/vnd.docker.image.rootfs.diff.tar.gzip",
  "application/vnd.docker.image.rootfs.diff.tar.zstd",
]);

const CONFIG_TYPES: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
]);

/** A content descriptor of the OCI image spec. */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  platform?: Platform;
  annotations?: Readonly<Record<string, string>>;
}

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

export interface Manifest {
  config: Descriptor;
  layers: Descriptor[];
}

/** The `config` object of an image configuration, as far as a container needs it; spelling of the image spec. */
export interface ImageConfig {
  readonly User?: string;
  readonly Env?: readonly string[] | null;
  readonly Entrypoint?: readonly string[] | null;
  readonly Cmd?: readonly string[] | null;
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
}

/** What of an image configuration is used. */
export interface ConfigFile {
  platform: Platform;
  diffIds: string[];
  config: ImageConfig;
}

/** This machine's platform as images name it. */
export function hostPlatform(): Platform {
  return Deno.build.arch === "aarch64"
    ? { os: "linux", architecture: "arm64", variant: "v8" }
    : { os: "linux", architecture: "amd64" };
}

/** `linux/arm64/v8`. */
export function platformName(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant].filter(Boolean).join("/");
}

/** The sha256 digest of some bytes, as descriptors spell it. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/**
 * The entry of an index for a platform: variant and all if there is one, else without regard to the variant. Throws
 * `not-found` with the platforms on offer.
 */
export function selectPlatform(entries: readonly Descriptor[], wanted: Platform, image: string): Descriptor {
  const fits = entries.filter((entry) =>
    entry.platform?.os === wanted.os && entry.platform.architecture === wanted.architecture
  );
  const exact = fits.find((entry) => (entry.platform?.variant ?? "") === (wanted.variant ?? ""));
  // An entry without a platform, as some builders write, may fit: its configuration tells.
  const chosen = exact ?? fits[0] ?? (entries.length === 1 && !entries[0].platform ? entries[0] : undefined);
  if (chosen !== undefined) return chosen;
  const offered = entries.flatMap((entry) => entry.platform === undefined ? [] : platformName(entry.platform))
    .filter((name) => name !== "unknown/unknown");
  throw new RuntimeError(
    "not-found",
    `Cannot use image "${image}": it has nothing for ${platformName(wanted)}, only ${
      offered.join(", ") || "entries without a platform"
    }`,
  );
}

/** Parses an index; throws `invalid`. */
export function parseIndex(bytes: Uint8Array, image: string): Descriptor[] {
  const object = parseJson(bytes, `index of image "${image}"`);
  const entries = array(object.manifests, `index of image "${image}"`, "manifests");
  if (entries.length > MAX_INDEX_ENTRIES) {
    bad(`index of image "${image}"`, `more than ${MAX_INDEX_ENTRIES} entries`);
  }
  return entries.map((entry) => descriptor(entry, `index of image "${image}"`));
}

/** Parses a manifest; throws `invalid`, also for layers that cannot be unpacked. */
export function parseManifest(bytes: Uint8Array, image: string): Manifest {
  const what = `manifest of image "${image}"`;
  const object = parseJson(bytes, what);
  if (object.schemaVersion !== 2) bad(what, `schema version ${object.schemaVersion} is not supported`);
  const layers = array(object.layers, what, "layers").map((layer) => descriptor(layer, what));
  if (layers.length > MAX_LAYERS) bad(what, `more than ${MAX_LAYERS} layers`);
  for (const layer of layers) {
    if (!LAYER_TYPES.has(layer.mediaType)) {
      bad(what, `layers of type "${layer.mediaType}" cannot be unpacked`);
    }
  }
  const config = descriptor(object.config, what);
  if (!CONFIG_TYPES.has(config.mediaType)) bad(what, `it is no container image but a "${config.mediaType}"`);
  return { config, layers };
}

/** Parses an image configuration; throws `invalid`. */
export function parseConfig(bytes: Uint8Array, image: string): ConfigFile {
  const what = `configuration of image "${image}"`;
  const object = parseJson(bytes, what);
  const rootfs = object.rootfs as { diff_ids?: unknown } | undefined;
  const diffIds = array(rootfs?.diff_ids, what, "rootfs.diff_ids");
  for (const id of diffIds) {
    if (typeof id !== "string" || !isDigest(id)) bad(what, "a diff id is not a sha256 digest");
  }
  return {
    platform: {
      os: text(object.os) ?? "linux",
      architecture: text(object.architecture) ?? hostPlatform().architecture,
      variant: text(object.variant),
    },
    diffIds: diffIds as string[],
    config: containerConfig(object.config, what),
  };
}

/** Snapshot names of a stack of layers, lowest first (image spec, "Layer ChainID"). */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : digestOf(new TextEncoder().encode(`${parent} ${diffId}`)));
  }
  return chain;
}

export function isDigest(text: string): boolean {
  return /^sha256:[0-9a-f]{64}$/.test(text);
}

/** What kind of document a manifest's bytes are; the media type in the bytes wins over the transport's. */
export function manifestType(bytes: Uint8Array, transportType: string, image: string): string {
  const object = parseJson(bytes, `manifest of image "${image}"`);
  if (object.manifests !== undefined && (object.layers !== undefined || object.config !== undefined)) {
    return bad(`manifest of image "${image}"`, "it is both an index and a manifest");
  }
  const type = text(object.mediaType) ?? transportType.split(";")[0].trim();
  if (INDEX_TYPES.includes(type) || MANIFEST_TYPES.includes(type)) return type;
  if (Array.isArray(object.manifests)) return INDEX_TYPES[0];
  if (Array.isArray(object.layers) && object.schemaVersion === 2) return MANIFEST_TYPES[0];
  return bad(`manifest of image "${image}"`, `type "${type}" is not supported`);
}

function containerConfig(value: unknown, what: string): ImageConfig {
  if (value === undefined || value === null) return {};
  if (typeof value !== "object") return bad(what, "config is not an object");
  const object = value as Record<string, unknown>;
  return {
    User: text(object.User),
    Env: strings(object.Env, what, "config.Env"),
    Entrypoint: strings(object.Entrypoint, what, "config.Entrypoint"),
    Cmd: strings(object.Cmd, what, "config.Cmd"),
    WorkingDir: text(object.WorkingDir),
    StopSignal: text(object.StopSignal),
  };
}

function descriptor(value: unknown, what: string): Descriptor {
  if (typeof value !== "object" || value === null) return bad(what, "a descriptor is not an object");
  const { mediaType, digest, size, platform, annotations } = value as Record<string, unknown>;
  if (typeof mediaType !== "string") return bad(what, "a descriptor has no media type");
  if (typeof digest !== "string" || !isDigest(digest)) {
    return bad(what, "a digest is not sha256 and 64 hex digits");
  }
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    return bad(what, "a size is not a byte count");
  }
  const { os, architecture, variant } = (platform ?? {}) as Record<string, unknown>;
  return {
    mediaType,
    digest,
    size,
    ...(typeof os === "string" && typeof architecture === "string"
      ? { platform: { os, architecture, variant: text(variant) } }
      : {}),
    ...(typeof annotations === "object" && annotations !== null
      ? { annotations: annotations as Record<string, string> }
      : {}),
  };
}

function parseJson(bytes: Uint8Array, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new RuntimeError("invalid", `Cannot read the ${what}: it is not JSON`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return bad(what, "it is not a JSON object");
  }
  return value as Record<string, unknown>;
}

function array(value: unknown, what: string, field: string): unknown[] {
  return Array.isArray(value) ? value : bad(what, `${field} is not a list`);
}

function strings(value: unknown, what: string, field: string): string[] | undefined {
  if (value === undefined || value === null) return undefined;
  const list = array(value, what, field);
  if (list.some((item) => typeof item !== "string")) return bad(what, `${field} is not a list of strings`);
  return list as string[];
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function bad(what: string, reason: string): never {
  throw new RuntimeError("invalid", `Cannot read the ${what}: ${reason}`);
}
