/**
 * Images: pulled by the OCI distribution spec or loaded from archives, kept in containerd's content store, unpacked into
 * its snapshots.
 *
 * @module
 */
export { type CredentialStore, dockerConfigCredentials } from "./auth.ts";
export type { ImageConfig } from "./manifest.ts";
export { parseReference, type Reference } from "./reference.ts";
export { ImageStore, type ImageStoreOptions, type PullOptions, type UnpackedImage } from "./store.ts";

/** How far one blob of a pull is. */
export interface PullProgress {
  digest: string;
  status: "waiting" | "downloading" | "downloaded" | "unpacking" | "done" | "exists";
  bytes: number;
  totalBytes: number;
  bytesPerSecond: number;
}

/** An image in containerd's store. */
export interface Image {
  /** Canonical name, e.g. `docker.io/library/nginx:1`. */
  name: string;
  /** Digest of what the name points at (index or manifest). */
  digest: string;
  /** Compressed bytes of all blobs of the platform's manifest. */
  sizeBytes: number;
  createdAtMs: number;
  /** `linux/amd64`; empty when it is not known. */
  platform: string;
}
