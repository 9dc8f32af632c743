import type { Container } from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import { type Process, Status } from "../../proto/gen/containerd/v1/types/task_pb.ts";
import { type ContainerdClient, DEFAULT_CALL_TIMEOUT_MS } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import type { Log } from "../log.ts";
import type { TaskMetrics } from "./metrics.ts";
import type { EngineParts } from "./ports.ts";

/** What every operation of an engine works with. */
export interface EngineContext extends EngineParts {
  client: ContainerdClient;
  snapshotter: string;
  /** Where the runtimes keep their state, in a directory per containerd namespace. */
  runtimeStateRoot: string;
  /** What tasks have used. */
  metrics: TaskMetrics;
  log: Log;
  /** How long clean-up waits for a containerd that is away, in milliseconds; 30 s by default. For tests. */
  absenceMs?: number;
  /** Told what could not be undone, and why. */
  onLeft?: (id: string, error: unknown) => void;
  /** Sees every step before it is taken; a throw fails it. For tests. */
  observe?: (operation: Operation, step: string, id: string) => void | Promise<void>;
}

/** What an engine does to a container in steps. */
export type Operation = "create" | "restart" | "remove";

/** The container's record, if there is one. */
export async function findContainer(
  context: Pick<EngineContext, "client">,
  id: string,
  signal?: AbortSignal,
): Promise<Container | undefined> {
  try {
    return (await context.client.containers.get({ id }, { signal })).container;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Every record in the namespace. */
export async function listContainers(
  context: Pick<EngineContext, "client">,
  signal?: AbortSignal,
): Promise<Container[]> {
  const containers: Container[] = [];
  const messages = context.client.containers.listStream({}, { signal, timeoutMs: DEFAULT_CALL_TIMEOUT_MS });
  for await (const { container } of messages) if (container !== undefined) containers.push(container);
  return containers;
}

/** The container's task, if there is one. */
export async function findTask(
  context: Pick<EngineContext, "client">,
  id: string,
  signal?: AbortSignal,
): Promise<Process | undefined> {
  try {
    const { process } = await context.client.tasks.get({ containerId: id }, { signal });
    return process;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Whether the task's init process runs or may yet run. */
export function isAlive(process: Process): boolean {
  return process.status !== Status.STOPPED;
}

/** Key of the container's writable snapshot. */
export function snapshotKey(id: string): string {
  return `hypercore-${id}`;
}

/** Waits for all, then throws the first failure: nothing runs on behind the clean-up's back. */
export async function allDone(work: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) {
    if (result.status === "rejected") throw result.reason;
  }
}
