import type { ContainerEngine } from "../../runtime/engine.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { WorkloadManager } from "./manager.ts";
import { isWorkloadId } from "./parse_spawn.ts";

/**
 * The id whose log is meant: of a workload by id or name, or, by id alone, of one that was stopped lately. Throws as
 * {@linkcode WorkloadManager.get} does.
 */
export async function logOwner(
  idOrName: string,
  parts: { manager: Pick<WorkloadManager, "get">; engine: Pick<ContainerEngine, "hasLog"> },
): Promise<string> {
  try {
    return parts.manager.get(idOrName).id;
  } catch (error) {
    const isUnknown = error instanceof RuntimeError && error.code === "not-found";
    if (!isUnknown || !isWorkloadId(idOrName) || !await parts.engine.hasLog(idOrName)) throw error;
    return idOrName;
  }
}
