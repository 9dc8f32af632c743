import { RuntimeError } from "../errors.ts";
import { type EngineContext, findContainer } from "./context.ts";
import { decodeLabels, encodeLabels } from "./record.ts";

/** Merges labels into a container's. The caller sees to it that nobody else does at the same time. */
export async function updateLabels(
  context: Pick<EngineContext, "client">,
  id: string,
  options: { labels: Readonly<Record<string, string>>; signal?: AbortSignal },
): Promise<void> {
  const { labels, signal } = options;
  const container = await findContainer(context, id, signal);
  if (container === undefined) {
    throw new RuntimeError("not-found", `Cannot label container "${id}": not found`);
  }
  const encoded = encodeLabels(id, { ...decodeLabels(container), ...labels });
  await context.client.containers.update(
    {
      container: {
        id,
        labels: encoded.labels,
        extensions: { ...container.extensions, ...encoded.extensions },
      },
      updateMask: { paths: ["labels", "extensions"] },
    },
    { signal },
  );
}
