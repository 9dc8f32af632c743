import type { EngineContext } from "./context.ts";
import { ENGINE_PREFIX, type Phase, recordLabels } from "./record.ts";

/** Notes in the record how far the container is. */
export async function setPhase(
  context: Pick<EngineContext, "client">,
  id: string,
  options: { phase: Phase; signal?: AbortSignal },
): Promise<void> {
  const labels = recordLabels({ phase: options.phase });
  await context.client.containers.update(
    { container: { id, labels }, updateMask: { paths: [`labels.${ENGINE_PREFIX}phase`] } },
    { signal: options.signal },
  );
}
