import type { KeyedMutex } from "../keyed_mutex.ts";
import { type ContainerdClient, inLease, NO_TIMEOUT } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import { pastLeftover } from "../containerd/leftover.ts";
import { RuntimeError } from "../errors.ts";
import { leaseSnapshot } from "./lease.ts";
import type { Descriptor } from "./manifest.ts";

/** What unpacking works with. */
export interface UnpackContext {
  client: ContainerdClient;
  snapshotter: string;
  /** One unpacking per chain id at a time. */
  chains: KeyedMutex;
  leaseId: string;
  signal?: AbortSignal;
}

/** One layer of an image, and where in its stack it is. */
export interface LayerToUnpack {
  descriptor: Descriptor;
  diffId: string;
  chainId: string;
  /** Chain id of the layers below; empty for the lowest. */
  parent: string;
}

/**
 * Unpacks a layer into a committed snapshot named by its chain id, unless that is there. Returns whether it unpacked.
 * Throws `failed` when the unpacked layer's digest is not the diff id.
 */
export function unpackLayer(context: UnpackContext, layer: LayerToUnpack): Promise<boolean> {
  return context.chains.run(layer.chainId, () => unpackAlone(context, layer), { signal: context.signal });
}

/** Whether a committed snapshot is there; it is put under the lease first, so that it stays. */
export async function hasSnapshot(context: UnpackContext, chainId: string): Promise<boolean> {
  const { client, snapshotter, leaseId, signal } = context;
  await leaseSnapshot(client, { snapshotter, key: chainId }, { leaseId, signal });
  try {
    await client.snapshots.stat({ snapshotter, key: chainId }, { signal });
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

/** Docker's layer types by their OCI names: containerd knows no decompressor for Docker's zstd. */
function ociLayerType(mediaType: string): string {
  return mediaType.replace(
    /^application\/vnd\.docker\.image\.rootfs\.diff\.tar(?:\.(gzip|zstd))?$/,
    (_, compression?: string) =>
      `application/vnd.oci.image.layer.v1.tar${compression === undefined ? "" : `+${compression}`}`,
  );
}

async function unpackAlone(context: UnpackContext, layer: LayerToUnpack): Promise<boolean> {
  const { client, snapshotter, leaseId, signal } = context;
  if (await hasSnapshot(context, layer.chainId)) return false;
  const key = `extract-${crypto.randomUUID()} ${layer.chainId}`;
  const { mounts } = await pastLeftover(() =>
    client.snapshots.prepare({ snapshotter, key, parent: layer.parent }, { signal, ...inLease(leaseId) })
  );
  try {
    const { applied } = await client.diff.apply({
      diff: {
        mediaType: ociLayerType(layer.descriptor.mediaType),
        digest: layer.descriptor.digest,
        size: BigInt(layer.descriptor.size),
      },
      mounts,
    }, { signal, timeoutMs: NO_TIMEOUT, ...inLease(leaseId) });
    if (applied?.digest !== layer.diffId) {
      throw new RuntimeError(
        "failed",
        `Cannot unpack layer "${layer.descriptor.digest}": its content is ${applied?.digest}, the image says ${layer.diffId}`,
      );
    }
    await client.snapshots.commit({ snapshotter, name: layer.chainId, key }, { signal, ...inLease(leaseId) });
    return true;
  } catch (error) {
    await client.snapshots.remove({ snapshotter, key }).catch((cleanup) => {
      if (!isNotFound(cleanup) && error instanceof RuntimeError && error.code !== "unavailable") {
        throw cleanup;
      }
    });
    // Another client, such as ctr, was faster with the same layer.
    if (error instanceof RuntimeError && error.code === "already-exists") return false;
    throw error;
  }
}
