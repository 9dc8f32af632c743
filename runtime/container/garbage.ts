import type { GarbageReport } from "../engine.ts";
import { type EngineContext, listContainers } from "./context.ts";
import type { KeyedMutex } from "../keyed_mutex.ts";
import { endLostProcesses, processOwners } from "./lost_processes.ts";
import { decodeRecord } from "./record.ts";
import { removeContainer } from "./remove.ts";
import { deleteLease, leaseOwners, removeSnapshot, snapshotOwners } from "./snapshot.ts";

/**
 * Removes what belongs to no container: what an agent did not live to make or to remove, and what somebody's hand
 * left. Whatever an operation is busy with, or becomes busy with meanwhile, is left alone. One failure does not keep
 * the rest from being removed; the first is thrown at the end.
 */
export async function collectGarbage(context: EngineContext, mutex: KeyedMutex): Promise<GarbageReport> {
  const report: GarbageReport = { netns: 0, addresses: 0, veths: 0, rules: 0, snapshots: 0, logs: 0 };
  const failures: unknown[] = [];
  const attempt = async (what: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      context.log.error("cannot collect garbage", { what, error: String(error) });
      failures.push(error);
    }
  };
  // Grows while operations begin, so that looking at it right before a removal is enough.
  using busy = mutex.watch();
  const live = busy.seen;
  // Waits for nobody: only ids that nobody is busy with are taken.
  const exclusively = async (id: string, work: () => Promise<void>) => {
    if (!live.has(id)) await attempt(id, () => mutex.run(id, work, { unseenBy: busy }));
  };
  // First, while only the busy ones are spared: a lease is over with the operation that made it.
  await attempt("leases", async () => {
    for (const { id, leaseId } of await leaseOwners(context)) {
      await exclusively(id, () => deleteLease(context, leaseId));
    }
  });
  for (const id of await unfinished(context, live)) {
    await exclusively(id, () => removeContainer(context, id));
  }
  await attempt("processes", async () => {
    for (const id of await processOwners(context)) {
      await exclusively(id, async () => {
        context.log.warn("ending processes that containerd has lost", { id });
        await endLostProcesses(context, id);
      });
    }
  });
  await attempt("networks", async () => {
    Object.assign(report, await context.network.collectGarbage(() => Promise.resolve(live)));
  });
  await attempt("snapshots", async () => {
    for (const id of await snapshotOwners(context)) {
      await exclusively(id, async () => {
        await removeSnapshot(context, id);
        report.snapshots++;
      });
    }
  });
  await attempt("logs", async () => {
    report.logs = await context.io.collectGarbage(live);
  });
  await attempt("spec files", async () => void await context.specs.collectGarbage(live));
  if (failures.length > 0) throw failures[0];
  return report;
}

/**
 * Adds every finished container to `live`; returns the ids of those that are half-made or half-removed, and of tasks
 * without a record.
 */
async function unfinished(context: EngineContext, live: Set<string>): Promise<string[]> {
  const containers = await listContainers(context);
  const ids: string[] = [];
  for (const container of containers) {
    const phase = decodeRecord(container)?.phase;
    // Somebody else's container in this namespace is none of our business.
    if (phase === undefined || phase === "ready") live.add(container.id);
    else ids.push(container.id);
  }
  const { tasks } = await context.client.tasks.list({});
  const known = new Set(containers.map((container) => container.id));
  return [...ids, ...tasks.map((task) => task.id).filter((id) => !known.has(id))];
}
