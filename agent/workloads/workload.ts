import type { WorkloadProof } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ContainerInfo } from "../../runtime/engine.ts";
import type { WorkloadRecord } from "./labels.ts";
import type { Belief, Phase } from "./reconcile.ts";
import type { Routable } from "./routes.ts";
import type { WorkloadSpec } from "./spec.ts";

/** One workload as the agent knows it. Only the manager and its caretaker change it, and the keeper of proofs its proof. */
export class Workload {
  phase: Phase = "starting";
  /** As of the newest start; absent before the first. */
  container?: ContainerInfo;
  /** Why it does not run, in words. */
  reason = "";
  /** Counts changes, so that a comparison made earlier is known to be stale. */
  version = 0;
  /** The newest proof of what it used, if any. */
  proof?: WorkloadProof;
  /** The stop that is under way. */
  stopping?: Promise<void>;
  /** Stops that failed one after the other. */
  stopFailures = 0;
  /** Ends a start that is under way. */
  readonly abort = new AbortController();
  #cancelTimer?: () => void;

  readonly #changed: () => void;

  /** `changed` is called whenever others would see it differently. */
  constructor(
    readonly id: string,
    readonly spec: WorkloadSpec,
    public record: WorkloadRecord,
    changed: () => void = () => {},
  ) {
    this.#changed = changed;
  }

  /** Changes phase, counting the change. */
  enter(phase: Phase, reason = ""): void {
    this.phase = phase;
    this.reason = reason;
    this.version++;
    this.#changed();
  }

  /** It runs, in this container. */
  run(container: ContainerInfo, record: WorkloadRecord): void {
    this.setTimer(undefined);
    this.container = container;
    this.record = record;
    this.enter("running");
  }

  /** The one timer it waits for; setting another cancels it. */
  setTimer(cancel: (() => void) | undefined): void {
    this.#cancelTimer?.();
    this.#cancelTimer = cancel;
  }

  /** For the route table: no address unless it runs. */
  get routable(): Routable {
    const { id, spec: { name, ports } } = this;
    return { id, name, ports, address: this.phase === "running" ? this.container?.address : undefined };
  }

  /** For the reconciler. */
  belief(isBusy: boolean): Belief {
    const { id, phase, container } = this;
    return { id, phase, pid: container?.pid ?? 0, address: container?.address, isBusy };
  }
}
