import type { ContainerInfo } from "../../runtime/engine.ts";
import { decodeLabels, type WorkloadRecord } from "./labels.ts";

/** What the agent believes of a workload. */
export interface Belief {
  id: string;
  phase: Phase;
  /** Pid of the run it knows of; 0 when none. */
  pid: number;
  address?: string;
  /** An operation on it is under way; that operation settles its state. */
  isBusy: boolean;
}

/** Where a workload is in its life. */
export type Phase = "starting" | "running" | "backing-off" | "stopping";

/** One thing to do so that belief and containerd agree. */
export type Action =
  /** It runs: take it over, or take over what changed. */
  | { kind: "run"; container: ContainerInfo; record: WorkloadRecord }
  /** It should run and does not: start it again after its pause. */
  | { kind: "ended"; container: ContainerInfo; record: WorkloadRecord }
  /** A stop was asked for and did not end. */
  | { kind: "stop"; container: ContainerInfo; record: WorkloadRecord }
  /** Left by a spawn that never ended. */
  | { kind: "remove"; id: string }
  /** containerd has no such container any more. */
  | { kind: "forget"; id: string }
  /** Ours, but its labels can't be read; it is left alone. */
  | { kind: "report"; id: string; reason: string };

/**
 * Compares what containerd has with what the agent believes. Containers that are not of this program are not touched.
 */
export function reconcile(containers: readonly ContainerInfo[], beliefs: readonly Belief[]): Action[] {
  const known = new Map(beliefs.map((belief) => [belief.id, belief]));
  const seen = new Set(containers.map((container) => container.id));
  const actions = containers.flatMap((container) => decide(container, known.get(container.id)) ?? []);
  for (const { id, isBusy } of beliefs) {
    if (!seen.has(id) && !isBusy) actions.push({ kind: "forget", id });
  }
  return actions;
}

function decide(container: ContainerInfo, belief: Belief | undefined): Action | undefined {
  if (belief?.isBusy) return undefined;
  const { id } = container;
  const record = decodeLabels(container.labels);
  if (record === undefined) return undefined;
  if (record instanceof Error) return { kind: "report", id, reason: record.message };
  if (record.isStopping || belief?.phase === "stopping") return { kind: "stop", container, record };
  if (!record.isComplete) return { kind: "remove", id };
  if (container.status === "running" || container.status === "paused") {
    const isKnown = belief?.phase === "running" && belief.pid === container.pid &&
      belief.address === container.address;
    return isKnown ? undefined : { kind: "run", container, record };
  }
  return belief?.phase === "backing-off" ? undefined : { kind: "ended", container, record };
}
