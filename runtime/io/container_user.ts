import type { ContainerdClient } from "../containerd/client.ts";
import { RuntimeError } from "../errors.ts";
import { needsUserFiles, readUserFiles, resolveUser, type Xattr } from "../oci/mod.ts";
import type { ContainerUser } from "./process_spec.ts";

/**
 * Resolves `user[:group]` as the container's own /etc/passwd and /etc/group have it now, its changes included.
 * Throws RuntimeError: `invalid` for a name nobody has, `not-found` without such a container.
 */
export async function resolveContainerUser(
  client: ContainerdClient,
  containerId: string,
  options: { user: string; xattr: Pick<Xattr, "isOpaque">; signal?: AbortSignal },
): Promise<ContainerUser> {
  const { user, xattr, signal } = options;
  const { container } = await client.containers.get({ id: containerId }, { signal });
  if (!container) {
    throw new RuntimeError("not-found", `Cannot find user "${user}": no container "${containerId}"`);
  }
  const { mounts } = await client.snapshots.mounts({
    snapshotter: container.snapshotter,
    key: container.snapshotKey,
  }, { signal });
  const files = await readUserFiles(mounts, { isNeeded: needsUserFiles(user), xattr });
  const { uid, gid, additionalGids } = resolveUser(user, files);
  return { uid, gid, groups: additionalGids };
}
