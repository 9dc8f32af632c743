import type { Container } from "../../proto/gen/containerd/services/containers/v1/containers_pb.ts";
import type { Mount } from "../../proto/gen/containerd/types/types_pb.ts";
import type { ResolvedRuntime } from "../catalog/mod.ts";
import type { ContainerInfo, ContainerSpec, CreateOptions } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { allDone, type EngineContext, findContainer, snapshotKey } from "./context.ts";
import { endTask } from "./end_task.ts";
import type { GuestNetwork } from "../network/mod.ts";
import type { UnpackedImage } from "./ports.ts";
import { endLostProcesses } from "./lost_processes.ts";
import { containerInfo, encodeRecord, type EngineRecord } from "./record.ts";
import { setPhase } from "./phase.ts";
import { stopSignalNumber } from "./signals.ts";
import {
  createLease,
  deleteLease,
  ignoreNotFound,
  newLeaseId,
  prepareSnapshot,
  removeSnapshot,
} from "./snapshot.ts";
import { runSteps, type Step } from "./steps.ts";
import { untilDone } from "../containerd/until_done.ts";

/** Deadline of the calls that start a runtime, in milliseconds; virtual machines take their time. */
export const TASK_TIMEOUT_MS = 120_000;

/** What users are told when a step begins. */
const ANNOUNCED: Record<string, string> = { snapshot: "unpacking", network: "network", task: "starting" };

/**
 * Creates and starts a container, step by step; a failure undoes what was done in reverse. The record is in phase
 * `creating` until the process runs, so that a creation which nobody lived to finish is never taken for a container.
 */
export async function createContainer(
  context: EngineContext,
  spec: ContainerSpec,
  options: CreateOptions & { signal: AbortSignal },
): Promise<ContainerInfo> {
  const { client, images, network, specs, runtimes, io, snapshotter, log, absenceMs } = context;
  const { id } = spec;
  let runtime!: ResolvedRuntime;
  let image!: UnpackedImage;
  const leaseId = newLeaseId(id);
  let preparing: Promise<Mount[]> | undefined;
  let mounts!: Mount[];
  let attaching!: Promise<unknown>;
  let guest!: Pick<GuestNetwork, "netnsPath" | "address">;
  let openingStreams: ReturnType<typeof io.prepare> | undefined;
  let ociSpec!: Record<string, unknown>;
  let container!: Container;
  let record!: EngineRecord;
  let pid = 0;

  const steps: Step[] = [
    {
      name: "check",
      async run(signal) {
        if (await findContainer(context, id, signal) !== undefined) {
          throw new RuntimeError("already-exists", `Cannot create container "${id}": it exists already`);
        }
        runtime = await runtimes.resolve(spec.runtime, { signal });
      },
    },
    {
      name: "image",
      async run(signal) {
        image = await images.ensure(spec.image, { signal, onProgress: options.onPull });
      },
    },
    {
      name: "streams",
      run() {
        openingStreams = io.prepare(id, { tty: spec.tty, stdin: spec.stdin });
        openingStreams.catch(() => {});
        return Promise.resolve();
      },
      async undo() {
        await Promise.allSettled([openingStreams]);
        await io.release(id);
      },
    },
    {
      name: "lease",
      run: (signal) => createLease(context, { leaseId, chainId: image.chainId, signal }),
      undo: () => deleteLease(context, leaseId),
    },
    {
      name: "snapshot",
      run(signal) {
        // Beside the network; whoever needs it waits for it.
        preparing = prepareSnapshot(context, { id, chainId: image.chainId, leaseId, signal });
        preparing.catch(() => {});
        return Promise.resolve();
      },
      async undo() {
        await Promise.allSettled([preparing]);
        await removeSnapshot(context, id);
      },
    },
    {
      name: "network",
      async run(signal) {
        // What the host still has to do for the guest goes on beside the creation of the task.
        const reachable = Promise.withResolvers<Pick<GuestNetwork, "netnsPath" | "address">>();
        const whole = network.attach(id, {
          tap: runtime.isVm,
          rules: spec.networkRules,
          signal,
          onAddress: reachable.resolve,
        });
        attaching = whole;
        attaching.catch(() => {});
        // A virtual machine takes the network over as it finds it.
        guest = await (runtime.isVm ? whole : Promise.race([whole, reachable.promise]));
        record = {
          phase: "creating",
          imageDigest: image.digest,
          chainId: image.chainId,
          stopSignal: stopSignalNumber(image.config.StopSignal),
          tty: spec.tty,
          stdin: spec.stdin,
          runtime: spec.runtime,
          isVm: runtime.isVm,
          address: guest.address,
          networkRules: spec.networkRules ?? null,
        };
      },
      // In line behind the attaching.
      undo: () => network.detach(id),
    },
    {
      name: "spec",
      async run() {
        mounts = await preparing!;
        ociSpec = await specs.build({
          container: spec,
          image,
          netnsPath: guest.netnsPath,
          address: guest.address,
          mounts,
        });
      },
      undo: () => specs.release(id),
    },
    {
      name: "container",
      async run() {
        // Not cut off by a cancellation: the undoing could overtake it.
        const created = await client.containers.create({
          container: encodeRecord({
            id,
            image: image.name,
            labels: spec.labels,
            record,
            runtime,
            spec: ociSpec,
            snapshotter,
            snapshotKey: snapshotKey(id),
          }),
        });
        container = created.container!;
      },
      undo: () => untilDone(() => ignoreNotFound(client.containers.delete({ id })), { absenceMs }),
    },
    {
      name: "task",
      async run(signal) {
        const stdio = await openingStreams!;
        await client.tasks.create({ containerId: id, rootfs: mounts, ...stdio }, {
          signal,
          timeoutMs: TASK_TIMEOUT_MS,
        });
      },
      async undo() {
        await endTask(context, id, { stopSignal: record.stopSignal, graceMs: 0 });
        // A containerd that was killed in the middle knows nothing of the shim it has started.
        await endLostProcesses(context, id);
      },
    },
    {
      name: "start",
      async run(signal) {
        // Nothing of the container runs before it is cut off from host and guests.
        await attaching;
        await allDone([
          client.tasks.start({ containerId: id }, { signal, timeoutMs: TASK_TIMEOUT_MS })
            .then((started) => pid = started.pid),
          setPhase(context, id, { phase: "ready" }),
          deleteLease(context, leaseId),
        ]);
      },
    },
  ];
  await runSteps(steps, {
    signal: options.signal,
    log,
    onLeft: (error) => context.onLeft?.(id, error),
    onStep: async (step) => {
      if (step in ANNOUNCED) options.onStep?.(ANNOUNCED[step]);
      await context.observe?.("create", step, id);
    },
  });
  return {
    ...containerInfo({ container, record, task: undefined, logPath: io.logPath(id) }),
    status: "running",
    pid,
  };
}
