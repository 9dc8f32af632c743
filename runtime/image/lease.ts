import type { ContainerdClient } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import { untilDone } from "../containerd/until_done.ts";

/** Marks the leases of pulls and loads, so that those of an agent that was killed are found. */
// Its value is not empty: containerd drops labels without one.
const LEASE_LABEL = "hypercore.engine/image";
/** After this time containerd ends a lease that nobody did, in milliseconds. */
const LEASE_LIFETIME_MS = 24 * 60 * 60 * 1000;

/**
 * Runs `work` under a new lease: what it creates is safe from containerd's garbage collection until the end, and garbage
 * afterwards unless something refers to it.
 */
export async function withLease<T>(
  client: ContainerdClient,
  work: (leaseId: string) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const id = `hypercore-image-${crypto.randomUUID()}`;
  const expiry = new Date(Date.now() + LEASE_LIFETIME_MS).toISOString();
  signal?.throwIfAborted();
  let failed = true;
  try {
    // Not cut off by a cancellation, and ended also when the answer was lost: then it may be there all the same.
    await client.leases.create({ id, labels: { [LEASE_LABEL]: "1", "containerd.io/gc.expire": expiry } });
    signal?.throwIfAborted();
    const result = await work(id);
    failed = false;
    return result;
  } finally {
    // After a failure the garbage goes at once, so that a full disk is not full any longer.
    await untilDone(() => client.leases.delete({ id, sync: failed })).catch((error) => {
      if (!failed && !isNotFound(error)) throw error;
    });
  }
}

/** Ends the leases that a killed agent left in this namespace; returns how many. */
export async function endLeftLeases(client: ContainerdClient, signal?: AbortSignal): Promise<number> {
  const { leases } = await client.leases.list({ filters: [`labels."${LEASE_LABEL}"`] }, { signal });
  for (const { id } of leases) await client.leases.delete({ id }, { signal });
  return leases.length;
}

/** Puts a snapshot under a lease, whether it exists yet or not. */
export async function leaseSnapshot(
  client: ContainerdClient,
  snapshot: { snapshotter: string; key: string },
  options: { leaseId: string; signal?: AbortSignal },
): Promise<void> {
  await client.leases.addResource({
    id: options.leaseId,
    resource: { id: snapshot.key, type: `snapshots/${snapshot.snapshotter}` },
  }, { signal: options.signal });
}
