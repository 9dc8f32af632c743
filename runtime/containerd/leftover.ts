import { RuntimeError } from "../errors.ts";

/**
 * Prepares a snapshot, once more when a directory was in the way: a containerd that was killed just before it noted
 * a snapshot leaves its directory, and gives the next one the same number. It removes the directory as it fails.
 */
export async function pastLeftover<T>(prepare: () => Promise<T>): Promise<T> {
  try {
    return await prepare();
  } catch (error) {
    if (!(error instanceof RuntimeError && /failed to rename: .*: file exists$/.test(error.message))) {
      throw error;
    }
    return await prepare();
  }
}
