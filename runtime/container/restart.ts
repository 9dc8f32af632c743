import type { Container } from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import type { Mount } from "../../proto/gen/containerd/types/types_pb.ts";
import { isNotFound } from "../containerd/errors.ts";
import type { CreateOptions } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { allDone, type EngineContext, findContainer, findTask, isAlive } from "./context.ts";
import { TASK_TIMEOUT_MS } from "./create.ts";
import { endTask } from "./end_task.ts";
import { updateLabels } from "./labels.ts";
import { decodeJson, decodeRecord, type EngineRecord, recordLabels } from "./record.ts";
import { createLease, deleteLease, newLeaseId, prepareSnapshot } from "./snapshot.ts";
import { runSteps, type Step } from "./steps.ts";

/**
 * Starts a container whose process has ended again: a new task on a fresh snapshot. Its network stays where it is
 * whole, else it gets a new one. A failure leaves the container without a task, to be tried again.
 */
export async function restartContainer(
  context: EngineContext,
  id: string,
  options: CreateOptions & { signal: AbortSignal; labels?: Record<string, string> },
): Promise<void> {
  const { client, images, network, specs, runtimes, io, metrics, snapshotter, log } = context;
  const container = await findContainer(context, id, options.signal);
  const record = container && decodeRecord(container);
  if (container === undefined || record?.phase !== "ready") {
    throw new RuntimeError("not-found", `Cannot restart container "${id}": not found`);
  }
  const leaseId = newLeaseId(id);
  let mounts!: Mount[];
  let stdio!: Awaited<ReturnType<typeof io.prepare>>;

  const steps: Step[] = [
    {
      name: "check",
      async run(signal) {
        const task = await findTask(context, id, signal);
        if (task !== undefined && isAlive(task)) {
          throw new RuntimeError("precondition", `Cannot restart container "${id}": it is running`);
        }
        await runtimes.resolve(record.runtime, { signal });
        await endTask(context, id, {
          stopSignal: record.stopSignal,
          graceMs: 0,
          beforeDelete: () => metrics.keepLast(id),
          signal,
        });
      },
    },
    {
      name: "image",
      async run(signal) {
        if (await isPresent(signal)) return;
        record.chainId =
          (await images.ensure(container.image, { signal, onProgress: options.onPull })).chainId;
      },
    },
    {
      name: "lease",
      run: (signal) => createLease(context, { leaseId, chainId: record.chainId, signal }),
      undo: () => deleteLease(context, leaseId),
    },
    {
      name: "snapshot",
      async run(signal) {
        mounts = await prepareSnapshot(context, { id, chainId: record.chainId, leaseId, signal });
      },
    },
    {
      name: "network",
      async run(signal) {
        const rules = record.networkRules ?? undefined;
        record.address = (await network.attach(id, { tap: record.isVm, rules, signal })).address;
      },
    },
    {
      name: "streams",
      async run() {
        stdio = await io.prepare(id, { tty: record.tty, stdin: record.stdin });
      },
    },
    {
      name: "files",
      async run() {
        await specs.refresh(id, { hostname: hostnameOf(container), address: record.address });
      },
    },
    {
      name: "container",
      async run(signal) {
        const changed: Partial<EngineRecord> = { address: record.address, chainId: record.chainId };
        await updateLabels(context, id, { labels: { ...options.labels, ...recordLabels(changed) }, signal });
      },
    },
    {
      name: "task",
      async run(signal) {
        await client.tasks.create({ containerId: id, rootfs: mounts, ...stdio }, {
          signal,
          timeoutMs: TASK_TIMEOUT_MS,
        });
      },
      undo: () => endTask(context, id, { stopSignal: record.stopSignal, graceMs: 0 }),
    },
    {
      name: "start",
      async run(signal) {
        await allDone([
          client.tasks.start({ containerId: id }, { signal, timeoutMs: TASK_TIMEOUT_MS }),
          deleteLease(context, leaseId),
        ]);
      },
    },
  ];
  const announced: Record<string, string> = { snapshot: "unpacking", network: "network", task: "starting" };
  await runSteps(steps, {
    signal: options.signal,
    log,
    onLeft: (error) => context.onLeft?.(id, error),
    onStep: async (step) => {
      if (step in announced) options.onStep?.(announced[step]);
      await context.observe?.("restart", step, id);
    },
  });

  async function isPresent(signal: AbortSignal): Promise<boolean> {
    try {
      await client.snapshots.stat({ snapshotter, key: record!.chainId }, { signal });
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }
}

/** The host name its spec gives it. */
function hostnameOf(container: Container): string {
  const spec = container.spec === undefined ? {} : decodeJson(container.spec) as { hostname?: string };
  return spec.hostname ?? container.id;
}
