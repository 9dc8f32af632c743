import type { ContainerInfo, ContainerSpec, CreateOptions } from "../../runtime/engine.ts";
import { AbortScope } from "../../runtime/abort_scope.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { create } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { NetworkRules } from "../../runtime/network/mod.ts";
import type { Admission } from "../policy/gate.ts";
import type { WorkloadContext } from "./context.ts";
import { encodeLabels, encodeState, type WorkloadRecord } from "./labels.ts";
import { parseSpawn } from "./parse_spawn.ts";
import type { WorkloadSpec } from "./spec.ts";
import { stopWorkload } from "./stopper.ts";
import { Workload } from "./workload.ts";

/** Answers whether this node would take the workload, and takes nothing. Throws what a spawn would. */
export async function dryRun(context: WorkloadContext, request: VmSpawnRequest): Promise<void> {
  const { node, policies } = context.options;
  const spec = parseSpawn(request, node);
  const chosen = await policies?.choose(request);
  const { workloadId } = request;
  policies?.admit(chosen?.own, { ...spec, ...(workloadId !== "" && { id: workloadId }) }, { isDryRun: true });
  const refusal = context.ledger.refusal(spec);
  if (refusal !== undefined) throw refusal;
  await using _ports = await reservePorts(context, spec);
}

/** What is fixed about a workload before it starts here: it may have run elsewhere already. */
export interface Placement {
  /** Absent means a fresh one. */
  id?: string;
  /** Of this start; 1 by default. */
  generation?: number;
  restarts?: number;
  createdAtMs?: number;
}

/**
 * Admits, creates, starts and routes a workload. When any of it fails, or `signal` aborts, nothing is left of it. Throws
 * `already-exists` when the id given runs here.
 */
export async function spawnWorkload(
  context: WorkloadContext,
  request: VmSpawnRequest,
  options: CreateOptions & Placement,
): Promise<Workload> {
  const { node, nowMs, observe, policies } = context.options;
  const spec = parseSpawn(request, node);
  const chosen = await policies?.choose(request);
  if (context.closing.signal.aborted) {
    throw new RuntimeError("unavailable", "Cannot spawn the workload: the agent is stopping");
  }
  const id = options.id ?? freshId(context);
  if (context.workloads.has(id)) {
    throw new RuntimeError("already-exists", `Cannot spawn workload "${id}": it is on this node already`);
  }
  // From here to the entry in the books nobody else gets a turn: two spawns can't both take the last of a quota.
  const admission = policies?.admit(chosen?.own, { ...spec, id });
  context.ledger.reserve(id, spec);
  const kept = chosen === undefined ? request : withPolicy(request, chosen.policyJson);
  const workload = new Workload(id, spec, newRecord(kept, options, nowMs()), context.options.onChange);
  context.workloads.set(id, workload);
  context.options.onChange?.();
  const beganMs = nowMs();
  try {
    await context.queue.run(id, async () => {
      await createAndRoute(context, workload, { ...options, ...admission });
      // Still in this turn: the container's end, which may have come meanwhile, is told of in the next one.
      context.emit("spawned", id, `spawned from ${spec.image}`);
    });
  } catch (error) {
    observe?.({ kind: "spawn", durationMs: nowMs() - beganMs, outcome: "failed" });
    context.emit("failed", id, "the spawn failed");
    throw error;
  } finally {
    // Only a failed spawn that left no container ends here in this phase; one that left something is "stopping".
    if (workload.phase === "starting") context.forget(workload);
  }
  observe?.({ kind: "spawn", durationMs: nowMs() - beganMs, outcome: "ok" });
  return workload;
}

async function createAndRoute(
  context: WorkloadContext,
  workload: Workload,
  options: CreateOptions & Admission,
): Promise<void> {
  const { engine } = context.options;
  const { id, spec, record } = workload;
  using scope = new AbortScope([workload.abort.signal, context.closing.signal, options.signal]);
  const { signal } = scope;
  await using _ports = await reservePorts(context, spec);
  using _place = await context.starts.acquire(signal);
  const container = await engine.create(containerSpec(workload, options.networkRules), {
    ...options,
    signal,
  });
  try {
    signal.throwIfAborted();
    await complete(context, workload, container);
  } catch (error) {
    await undo(context, workload, record);
    throw error;
  }
  function undo(context: WorkloadContext, workload: Workload, record: WorkloadRecord): void {
    workload.record = record;
    // It waits for its turn in the queue, behind this very work: nobody may wait for it here.
    context.background("cannot remove a workload whose spawn failed", id, () => {
      return stopWorkload(context, workload, { graceMs: 0 });
    });
  }
}

/** Marks the container as wanted and opens its routes; the two do not wait for each other. */
async function complete(
  context: WorkloadContext,
  workload: Workload,
  container: ContainerInfo,
): Promise<void> {
  const { engine, nowMs } = context.options;
  const record = { ...workload.record, isComplete: true, startedAtMs: nowMs() };
  workload.run(container, record);
  const [failures] = await Promise.all([
    workload.spec.ports.length > 0 ? context.routes.sync() : [],
    engine.setLabels(workload.id, encodeState(record)),
  ]);
  const own = failures.find(({ hostPort }) => workload.spec.ports.some((port) => port.hostPort === hostPort));
  if (own !== undefined) {
    throw new RuntimeError("precondition", `Cannot open host port "${own.hostPort}": ${own.reason}`);
  }
}

/** Opens the listeners ahead, so that a port that somebody else has is known before anything is created. */
async function reservePorts(context: WorkloadContext, spec: WorkloadSpec): Promise<AsyncDisposable> {
  const stack = new AsyncDisposableStack();
  try {
    for (const { hostPort } of spec.ports) {
      const reservation = await context.options.proxy.reserve(hostPort);
      stack.defer(() => reservation.release());
    }
  } catch (error) {
    await stack.disposeAsync();
    throw new RuntimeError("precondition", error instanceof Error ? error.message : String(error), {
      cause: error,
    });
  }
  return stack;
}

/** The request with its policy's text in place of the policy's name. */
function withPolicy(request: VmSpawnRequest, policyJson: string): VmSpawnRequest {
  return create(VmSpawnRequestSchema, { ...request, policy: "", policyJson });
}

function containerSpec({ id, spec, record }: Workload, networkRules?: NetworkRules): ContainerSpec {
  return {
    id,
    image: spec.image,
    milliCpus: spec.milliCpus,
    memoryBytes: spec.memoryBytes,
    pidsLimit: spec.pidsLimit,
    env: spec.env,
    args: spec.args,
    tty: spec.tty,
    stdin: spec.stdin,
    hostname: spec.name ?? id,
    runtime: spec.runtime,
    ...(networkRules !== undefined && { networkRules }),
    labels: encodeLabels(record),
  };
}

function newRecord(request: VmSpawnRequest, placement: Placement, nowMs: number): WorkloadRecord {
  return {
    request,
    isComplete: false,
    isStopping: false,
    generation: placement.generation ?? 1,
    restarts: placement.restarts ?? 0,
    failures: 0,
    createdAtMs: placement.createdAtMs ?? nowMs,
    startedAtMs: 0,
  };
}

function freshId({ options, workloads }: WorkloadContext): string {
  for (;;) {
    const id = options.newId();
    if (!workloads.has(id)) return id;
  }
}
