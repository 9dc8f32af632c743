import type { ContainerdClient } from "../containerd/client.ts";
import { RuntimeError } from "../errors.ts";
import { ingest } from "./content.ts";
import {
  chainIds,
  type ConfigFile,
  type Descriptor,
  hostPlatform,
  type Manifest,
  parseConfig,
  platformName,
} from "./manifest.ts";
import type { LayerToUnpack } from "./unpack.ts";
import type { Wait } from "./retry.ts";

/** A document of an image that is small enough to hold: a manifest or an index. */
export interface Document {
  bytes: Uint8Array;
  digest: string;
  mediaType: string;
}

/**
 * Parses a configuration and checks that it fits its manifest and this machine. Throws `invalid`, or `not-found` for an
 * image of another platform.
 */
export function checkConfig(bytes: Uint8Array, context: { image: string; manifest: Manifest }): ConfigFile {
  const { image, manifest } = context;
  const config = parseConfig(bytes, image);
  const wanted = hostPlatform();
  if (config.platform.os !== wanted.os || config.platform.architecture !== wanted.architecture) {
    throw new RuntimeError(
      "not-found",
      `Cannot use image "${image}": it is for ${platformName(config.platform)}, this machine is ${
        platformName(wanted)
      }`,
    );
  }
  if (config.diffIds.length !== manifest.layers.length) {
    throw new RuntimeError(
      "invalid",
      `Cannot use image "${image}": its configuration names ${config.diffIds.length} layers, its manifest ${manifest.layers.length}`,
    );
  }
  if (manifest.layers.length === 0) {
    throw new RuntimeError("invalid", `Cannot use image "${image}": it has no layers`);
  }
  return config;
}

/** The layers of an image as {@linkcode unpackLayer} takes them, lowest first. */
export function layersToUnpack(manifest: Manifest, config: ConfigFile): LayerToUnpack[] {
  const chain = chainIds(config.diffIds);
  return manifest.layers.map((descriptor, i) => ({
    descriptor,
    diffId: config.diffIds[i],
    chainId: chain[i],
    parent: i === 0 ? "" : chain[i - 1],
  }));
}

/** What {@linkcode registerImage} needs; all blobs and snapshots are there, under the lease. */
export interface ImageToRegister {
  name: string;
  index?: Document & { chosen: number };
  manifest: Document & { parsed: Manifest };
  config: ConfigFile;
}

/**
 * Makes the image known under its name: stores index and manifest with the labels by which containerd's garbage collection
 * finds what belongs to them, labels the configuration with its snapshot, and creates or updates the image record.
 */
export async function registerImage(
  image: ImageToRegister,
  context: {
    client: ContainerdClient;
    snapshotter: string;
    leaseId: string;
    wait: Wait;
    signal?: AbortSignal;
  },
): Promise<void> {
  const { client, snapshotter, leaseId, wait, signal } = context;
  const { parsed } = image.manifest;
  const chainId = chainIds(image.config.diffIds).at(-1)!;
  await client.content.update({
    info: {
      digest: parsed.config.digest,
      labels: { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: chainId },
    },
    updateMask: { paths: [`labels.containerd.io/gc.ref.snapshot.${snapshotter}`] },
  }, { signal });
  const store = (document: Document, labels: Record<string, string>) =>
    ingest({
      client,
      leaseId,
      wait,
      signal,
      ref: `hypercore-${document.digest}`,
      size: document.bytes.length,
      digest: document.digest,
      labels,
      source: async function* (offset) {
        yield document.bytes.subarray(offset);
      },
    });
  await store(image.manifest, manifestLabels(parsed));
  if (image.index) {
    await store(image.index, {
      [`containerd.io/gc.ref.content.m.${image.index.chosen}`]: image.manifest.digest,
    });
  }
  const top = image.index ?? image.manifest;
  const target = { mediaType: top.mediaType, digest: top.digest, size: BigInt(top.bytes.length) };
  try {
    await client.images.create({ image: { name: image.name, target } }, { signal });
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== "already-exists") throw error;
    await client.images.update({ image: { name: image.name, target }, updateMask: { paths: ["target"] } }, {
      signal,
    });
  }
}

function manifestLabels(manifest: Manifest): Record<string, string> {
  return Object.fromEntries([
    ["containerd.io/gc.ref.content.config", manifest.config.digest],
    ...manifest.layers.map((layer: Descriptor, i) => [`containerd.io/gc.ref.content.l.${i}`, layer.digest]),
  ]);
}
