import type { Mount } from "../../proto/gen/containerd/types/types_pb.ts";
import { DEFAULT_CALL_TIMEOUT_MS, inLease } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import { RuntimeError } from "../errors.ts";
import { type EngineContext, snapshotKey } from "./context.ts";
import { SNAPSHOT_OWNER_LABEL } from "./record.ts";
import { pastLeftover } from "../containerd/leftover.ts";
import { untilDone } from "../containerd/until_done.ts";

/** A lease that its maker did not live to end is ended by containerd after this time, in milliseconds. */
export const LEASE_EXPIRY_MS = 10 * 60_000;

const LEASE_PREFIX = "hypercore-";

/** A fresh id for {@linkcode createLease}: known before the lease is there, so that it can be ended whatever happens. */
export function newLeaseId(containerId: string): string {
  return `${LEASE_PREFIX}${containerId}-${crypto.randomUUID().slice(0, 8)}`;
}

/**
 * Keeps what is being made, and the image's snapshots, from garbage collection until a record refers to it. The calls
 * are not cut off by a cancellation: {@linkcode deleteLease} could overtake one that containerd is still at.
 */
export async function createLease(
  context: Pick<EngineContext, "client" | "snapshotter">,
  options: { leaseId: string; chainId: string; signal: AbortSignal },
): Promise<void> {
  const { client, snapshotter } = context;
  const { leaseId, chainId, signal } = options;
  const expire = new Date(Date.now() + LEASE_EXPIRY_MS).toISOString();
  signal.throwIfAborted();
  await client.leases.create({ id: leaseId, labels: { "containerd.io/gc.expire": expire } });
  signal.throwIfAborted();
  await client.leases.addResource({
    id: leaseId,
    resource: { type: `snapshots/${snapshotter}`, id: chainId },
  });
}

/** Ends a lease. Idempotent. */
export async function deleteLease(
  { client, absenceMs }: Pick<EngineContext, "client" | "absenceMs">,
  leaseId: string,
): Promise<void> {
  await untilDone(() => ignoreNotFound(client.leases.delete({ id: leaseId })), { absenceMs });
}

/** The leases of {@linkcode createLease} that have not ended, by the container they were made for. */
export async function leaseOwners(
  context: Pick<EngineContext, "client">,
): Promise<{ id: string; leaseId: string }[]> {
  const { leases } = await context.client.leases.list({}, { timeoutMs: DEFAULT_CALL_TIMEOUT_MS });
  return leases.flatMap(({ id: leaseId }) => {
    const id = leaseId.startsWith(LEASE_PREFIX)
      ? /^(.+)-[0-9a-f]{8}$/.exec(leaseId.slice(LEASE_PREFIX.length))?.[1]
      : undefined;
    return id === undefined ? [] : [{ id, leaseId }];
  });
}

/**
 * A fresh writable snapshot for the container, in place of one that is there. A cancellation cuts no call off:
 * {@linkcode removeSnapshot} could overtake it.
 */
export async function prepareSnapshot(
  context: EngineContext,
  options: { id: string; chainId: string; leaseId: string; signal: AbortSignal },
): Promise<Mount[]> {
  const { client, snapshotter } = context;
  const { id, chainId, leaseId, signal } = options;
  const prepare = async () => {
    signal.throwIfAborted();
    const { mounts } = await client.snapshots.prepare(
      { snapshotter, key: snapshotKey(id), parent: chainId, labels: { [SNAPSHOT_OWNER_LABEL]: id } },
      inLease(leaseId),
    );
    return mounts;
  };
  try {
    return await pastLeftover(prepare);
  } catch (error) {
    // Left by an agent that did not live to finish, or by the run before.
    if (!(error instanceof RuntimeError && error.code === "already-exists")) throw error;
    await removeSnapshot(context, id, signal);
    return await prepare();
  }
}

/** Removes the container's snapshot and what was written to it. Idempotent. */
export async function removeSnapshot(
  context: Pick<EngineContext, "client" | "snapshotter" | "absenceMs">,
  id: string,
  signal?: AbortSignal,
): Promise<void> {
  const { client, snapshotter, absenceMs } = context;
  const request = { snapshotter, key: snapshotKey(id) };
  await untilDone(() => ignoreNotFound(client.snapshots.remove(request, { signal })), { signal, absenceMs });
}

/** Whose snapshots there are. */
export async function snapshotOwners(
  context: Pick<EngineContext, "client" | "snapshotter">,
): Promise<string[]> {
  const { client, snapshotter } = context;
  const filters = [`labels."${SNAPSHOT_OWNER_LABEL}"`];
  const owners: string[] = [];
  const messages = client.snapshots.list({ snapshotter, filters }, { timeoutMs: DEFAULT_CALL_TIMEOUT_MS });
  for await (const { info } of messages) {
    owners.push(...info.map((snapshot) => snapshot.labels[SNAPSHOT_OWNER_LABEL]));
  }
  return owners;
}

/** Awaits the call; that its thing is not there is fine. */
export async function ignoreNotFound(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}
