import { RuntimeError } from "../errors.ts";
import { readLayeredFile } from "./layered_fs.ts";
import type { UserFiles } from "./user.ts";
import type { Xattr } from "./xattr.ts";

/** A mount as containerd's snapshotters give it. */
export interface SnapshotMount {
  type: string;
  source: string;
  options: readonly string[];
}

/** The folders that make up a snapshot, topmost first; `undefined` when it is not made of folders (a block device). */
export function snapshotLayers(mounts: readonly SnapshotMount[]): string[] | undefined {
  if (mounts.length !== 1) return undefined;
  const [{ type, source, options }] = mounts;
  if (type === "bind" || options.includes("bind") || options.includes("rbind")) return [source];
  if (type !== "overlay") return undefined;
  const option = (name: string) =>
    options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const upper = option("upperdir");
  const lower = option("lowerdir");
  if (lower === undefined) return undefined;
  return [...upper ? [upper] : [], ...lower.split(":")];
}

/**
 * The user database of a snapshot whose container does not run. Empty files where the image has none. Throws
 * `precondition` for snapshotters that do not keep folders when `isNeeded`, since only a number can do without.
 */
export async function readUserFiles(
  mounts: readonly SnapshotMount[],
  options: { isNeeded: boolean; xattr: Pick<Xattr, "isOpaque"> },
): Promise<UserFiles> {
  const layers = snapshotLayers(mounts);
  if (layers === undefined) {
    if (!options.isNeeded) return { passwd: "", group: "" };
    throw new RuntimeError(
      "precondition",
      `Cannot read users of the image: snapshots of type "${
        mounts[0]?.type ?? "none"
      }" cannot be looked into; ` +
        "give the user by number",
    );
  }
  const isOpaque = (dir: string) => options.xattr.isOpaque(dir);
  const read = (path: string) => readLayeredFile(layers, path, { isOpaque });
  const [passwd, group] = [await read("/etc/passwd"), await read("/etc/group")];
  return { passwd: passwd ?? "", group: group ?? "" };
}

/** Whether a user text can only be resolved with the image's files. */
export function needsUserFiles(user: string): boolean {
  return !/^(\d*)(:\d+)?$/.test(user);
}
