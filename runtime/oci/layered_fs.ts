import { RuntimeError } from "../errors.ts";

/** Most symbolic links followed for one path, as in the kernel. */
export const MAX_SYMLINKS = 40;

/** Most bytes read of one file. */
export const MAX_FILE_BYTES = 1 << 20;

/**
 * Reads a file of a container's root file system from its layers, topmost first, as overlayfs would show it, without
 * mounting anything. Every component of the path is looked at by itself (lstat) and symbolic links are resolved
 * inside the root, so nothing an image contains leads out of it. The layers must be at rest: of a container that does
 * not run. `undefined` when there is no such regular file; throws `invalid` when it is over {@linkcode MAX_FILE_BYTES}
 * or its links go in a circle.
 */
export async function readLayeredFile(
  layers: readonly string[],
  path: string,
  options: { isOpaque: (dir: string) => boolean },
): Promise<string | undefined> {
  const pending = components(path).reverse();
  /** The directories walked into so far; each is the host folders that make it up, topmost first. */
  const walked: (readonly string[])[] = [layers];
  let links = 0;
  while (pending.length > 0) {
    const name = pending.pop() as string;
    if (name === "..") {
      if (walked.length > 1) walked.pop();
      continue;
    }
    const entry = await lookUp(walked[walked.length - 1], name, options.isOpaque);
    switch (entry?.kind) {
      case undefined:
        return undefined;
      case "directory":
        walked.push(entry.dirs);
        break;
      case "symlink": {
        if (++links > MAX_SYMLINKS) {
          throw new RuntimeError("invalid", `Cannot read "${path}" of the image: too many symbolic links`);
        }
        const target = await Deno.readLink(entry.path);
        if (target.startsWith("/")) walked.length = 1;
        pending.push(...components(target).reverse());
        break;
      }
      case "file":
        return pending.length > 0 ? undefined : await readBounded(entry.path, path);
    }
  }
  return undefined;
}

type Entry =
  | { kind: "directory"; dirs: readonly string[] }
  | { kind: "symlink"; path: string }
  | { kind: "file"; path: string };

/** What `name` is in a directory made up of `dirs`. */
async function lookUp(
  dirs: readonly string[],
  name: string,
  isOpaque: (dir: string) => boolean,
): Promise<Entry | undefined> {
  const merged: string[] = [];
  for (const dir of dirs) {
    const path = `${dir}/${name}`;
    const info = await lstatIfThere(path);
    if (info === undefined) continue;
    if (!info.isDirectory) {
      if (merged.length > 0) break;
      if (info.isSymlink) return { kind: "symlink", path };
      // Anything else is a device, FIFO or socket; a character device 0:0 is overlayfs' mark of a deletion.
      return info.isFile ? { kind: "file", path } : undefined;
    }
    merged.push(path);
    if (isOpaque(path)) break;
  }
  return merged.length > 0 ? { kind: "directory", dirs: merged } : undefined;
}

function components(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

async function lstatIfThere(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.lstat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function readBounded(hostPath: string, path: string): Promise<string> {
  const { size } = await Deno.lstat(hostPath);
  if (size > MAX_FILE_BYTES) {
    throw new RuntimeError(
      "invalid",
      `Cannot read "${path}" of the image: ${size} bytes, over ${MAX_FILE_BYTES}`,
    );
  }
  return await Deno.readTextFile(hostPath);
}
