import { RuntimeError } from "../errors.ts";
import { anyJson, RUNTIME_SPEC_TYPE_URL } from "../containerd/any.ts";
import type { Container } from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import { allDone, type EngineContext, findContainer } from "./context.ts";
import { endTask } from "./end_task.ts";
import { endLostProcesses } from "./lost_processes.ts";
import { setPhase } from "./phase.ts";
import { decodeRecord, recordLabels } from "./record.ts";
import { DEFAULT_STOP_SIGNAL } from "./signals.ts";
import { ignoreNotFound, removeSnapshot } from "./snapshot.ts";
import { untilDone } from "../containerd/until_done.ts";

/** Time between stop signal and SIGKILL when nobody says, in milliseconds. */
export const DEFAULT_GRACE_MS = 5_000;

/**
 * Stops the container and removes every trace of it, in the order that leaks nothing: the process first, then its
 * network, snapshot and files side by side, and last the record, by which garbage collection finds what an agent did
 * not live to finish. Every step is idempotent, so that all of it can be done again.
 */
export async function removeContainer(
  context: EngineContext,
  id: string,
  options: { graceMs?: number; signal?: AbortSignal } = {},
): Promise<void> {
  const { client, network, specs, io, metrics, absenceMs } = context;
  const { signal } = options;
  const step = async (name: string, work: () => Promise<unknown>) => {
    await context.observe?.("remove", name, id);
    await work();
  };
  const container = await untilDone(
    async () => await findContainer(context, id, signal) ?? await standInFor(context, id, signal),
    { signal, absenceMs },
  );
  if (container !== undefined) {
    await step(
      "mark",
      () =>
        untilDone(() => ignoreNotFound(setPhase(context, id, { phase: "removing", signal })), {
          signal,
          absenceMs,
        }),
    );
    await step("stop", () =>
      endTask(context, id, {
        stopSignal: decodeRecord(container)?.stopSignal ?? DEFAULT_STOP_SIGNAL,
        graceMs: options.graceMs ?? DEFAULT_GRACE_MS,
        beforeDelete: () => metrics.keepLast(id),
        signal,
      }));
  }
  await allDone([
    step("network", () => network.detach(id)),
    step("snapshot", () => removeSnapshot(context, id, signal)),
    // A containerd that was killed in the middle has forgotten a shim that still runs.
    step(
      "files",
      () => allDone([io.release(id, { keepLog: true }), specs.release(id), endLostProcesses(context, id)]),
    ),
  ]);
  if (container === undefined) return;
  await step(
    "record",
    () =>
      untilDone(() => ignoreNotFound(client.containers.delete({ id }, { signal })), { signal, absenceMs }),
  );
}

/** A record for a task that has none: containerd ends no task without. */
async function standInFor(
  context: EngineContext,
  id: string,
  signal?: AbortSignal,
): Promise<Container | undefined> {
  const { client } = context;
  const { tasks } = await client.tasks.list({}, { signal });
  if (!tasks.some((task) => task.id === id)) return undefined;
  try {
    const { container } = await client.containers.create({
      container: {
        id,
        labels: recordLabels({ phase: "removing" }),
        runtime: { name: "io.containerd.runc.v2" },
        spec: anyJson(RUNTIME_SPEC_TYPE_URL, {}),
      },
    }, { signal });
    return container;
  } catch (error) {
    if (error instanceof RuntimeError && error.code === "already-exists") {
      return findContainer(context, id, signal);
    }
    throw error;
  }
}
